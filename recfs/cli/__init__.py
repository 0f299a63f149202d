"""The command line: one file per command group. It asks a daemon or a store, prints, and decides nothing."""

import gc

from recfs.cli.common import cwd as _cwd  # noqa: F401  # before all others

# What is imported stays; to look through it again and again is a tenth of the time that a command, or the daemon that
# it becomes, takes to come up. The daemon sets it anew (`process.py`).
gc.set_threshold(50_000)
