"""Bytes without rows and rows without bytes, on the local disk: found, cleared away, or made files of."""
