"""How the request loop stands still, for a mount that is left to another daemon."""
