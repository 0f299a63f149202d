"""What is done by path for an identity: by everything that is not the kernel."""

from recfs.fs.session.paths import At
from recfs.fs.session.session import Session, Sessions

__all__ = ["At", "Session", "Sessions"]
