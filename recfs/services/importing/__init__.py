"""Objects of a bucket become files: those that lie at their places, and those that are copied there by rules."""
