"""Decisions about what is done for a store as a whole."""
