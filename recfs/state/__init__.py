"""The namespace in memory: what is known of files and directories, and what of it is still to be written."""
