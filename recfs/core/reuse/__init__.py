"""What makes two pieces of work the same, and versions different."""
