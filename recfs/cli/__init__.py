"""The command line: one file per command group. It asks a daemon or a store, prints, and decides nothing."""
