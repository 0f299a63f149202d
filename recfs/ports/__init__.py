"""What recfs asks of the outside world: contracts, and the value types that cross them.

Adapters live in `stores/`, `catalogue/` and `fuse/kernel.py`; they meet their users only in `parts.py`.
"""
