"""Requests on a mount that outlives its daemons."""
