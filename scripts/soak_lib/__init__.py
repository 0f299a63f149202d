"""A soak: mixed work by several users, with trouble, and what must be right in the end."""
