"""Bringing files of other trees into a store, and out of it: what is read, written and run for it, in plain threads."""
