"""The file system: inodes and bytes in flight, and the pyfuse3 adapter. Knows its stores only through `ports`."""
