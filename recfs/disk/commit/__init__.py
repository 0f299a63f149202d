"""From the last close of a written file to its checksums."""
