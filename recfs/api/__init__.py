"""What the daemon answers on its control socket."""
