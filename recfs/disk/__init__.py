"""Bytes on the local disk: staging, the files behind open ones, checksums, commit, and the way to the home tree."""
