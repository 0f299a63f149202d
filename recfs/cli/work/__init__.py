"""The work of a store: what is still to be done, waiting for it, and having it done now."""
