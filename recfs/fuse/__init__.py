"""The kernel: requests, replies, passthrough, mounting. The only room that knows pyfuse3."""

# Every import of pyfuse3 lies below this package, and the extension has to be loaded before it.
from recfs.fuse import interpose as interpose
