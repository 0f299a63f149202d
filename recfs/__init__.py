"""recfs: a filesystem daemon for media recordings. The kernel moves the bytes, Python keeps the books."""

__version__ = "0.1.0"
