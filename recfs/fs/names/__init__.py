"""Names: what makes, moves, removes and lists them."""
