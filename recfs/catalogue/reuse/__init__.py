"""What SQLite knows of work that need not be done twice: results of processing, and files with the same bytes."""
