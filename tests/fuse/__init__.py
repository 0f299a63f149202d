"""The real-mount suite: a recfs daemon in a subprocess, real clients on its mount."""
