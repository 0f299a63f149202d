"""The gateway on a plain directory that stands for the mount."""
