"""Verification of files: what is found, what follows from it, and when the scrub reads."""
