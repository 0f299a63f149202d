"""What an admin looks at and does, and what of it users may of their own: figures, limits, queue, trash, audit log.

The daemon answers by its control socket: what its [gateway] methods do not offer is refused there, by name.
"""
