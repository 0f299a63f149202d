"""The command line: one file per command group. It asks a daemon or a store, prints, and decides nothing."""

from recfs.cli.common import cwd as _cwd  # noqa: F401  # before all others
