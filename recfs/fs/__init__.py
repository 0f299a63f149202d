"""The file system: inodes and bytes in flight, and the pyfuse3 adapter. Knows its stores only through `ports`."""

# Every import of pyfuse3 lies below this package, and the extension has to be loaded before it.
from recfs.fs import interpose as interpose
