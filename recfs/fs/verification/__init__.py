"""Verification of single files, and their repair."""
