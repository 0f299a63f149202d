"""Mounting and unmounting: the daemon started here or in the background, its log, and its end."""
