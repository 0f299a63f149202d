"""What is still to be written to the catalogue: collected, told to the intent log, set aside where it is refused."""
