"""The upkeep of a store: what expires, what is looked at now and then, and what comes back."""
