"""What is done by path for an identity: by everything that is not the kernel."""

from recfs.fs.session.session import Session, Sessions

__all__ = ["Session", "Sessions"]
