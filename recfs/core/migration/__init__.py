"""What is decided of a migration: which file goes where, and why; pure, without I/O."""
