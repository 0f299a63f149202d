"""Verification of many files: what commands start, and the scrub in the background."""
