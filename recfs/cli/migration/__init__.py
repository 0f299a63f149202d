"""Commands that bring files in from other trees, and take them out."""
