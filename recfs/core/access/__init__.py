"""Who gets at what."""
