"""What is known of files' contents, in memory and on its way to the catalogue."""

from recfs.state.media.rows import MediaRows

__all__ = ["MediaRows"]
