"""The home tree, where committed files lie under their names, and the way there."""
