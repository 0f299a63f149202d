"""Uploads: bytes are staged in temp/ of the mount, and become a committed file exactly once."""
