"""The S3 queue: what is still to be done there, and what may still come of what was asked before."""
