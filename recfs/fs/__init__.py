"""The operations of the file system, with no FUSE in them, and how its state is put right at a start."""
