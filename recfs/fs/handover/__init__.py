"""What is open, on its way from one daemon to the next on the same mount."""
