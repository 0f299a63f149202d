"""Commands that tell what happened: events, and who did what."""
