"""What becomes of files, told to its subscribers as it happens."""

from recfs.state.events.subscribers import Events, Subscriber

__all__ = ["Events", "Subscriber"]
