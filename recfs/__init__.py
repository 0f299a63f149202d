"""recfs: a filesystem daemon for media recordings. The kernel moves the bytes, Python keeps the books."""

__version__ = "1.0.0"
