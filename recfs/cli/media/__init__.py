"""Commands that make something of recordings."""
