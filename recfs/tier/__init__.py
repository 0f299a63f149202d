"""Bytes in S3: uploads, partial and whole local copies, downloads, and what is still to be done there."""
