"""The pure core: what recfs knows and decides, without I/O and without a clock.

Only the standard library and `recfs.errors` are imported here. `now` is always an argument, every decision
is a plain value, and nothing in this package holds mutable state but the queue whose order it decides (`lanes`).
"""
