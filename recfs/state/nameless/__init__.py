"""What has lost its name and is there all the same: open inodes, and what was removed."""
