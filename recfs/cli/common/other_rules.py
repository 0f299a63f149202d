"""What a command says whose `--config` is not what the daemon that answers goes by."""

import os
from collections.abc import Collection

import click

from recfs.cli.common.options import Invocation
from recfs.cli.common.store import INTERNAL_DIR, Store
from recfs.core.naming import show_name
from recfs.errors import RecfsError

LIVES = ("retention", "recordings.grace")
"""The settings by which recordings expire."""
_PATIENCE_S = 15.0


def differing(invocation: Invocation, store: Store, keys: Collection[str]) -> list[str]:
    """Those of the settings *keys* (`section.key`) that the running daemon has otherwise than `--config`.

    None where no file was named, no daemon runs, or it does not tell: what is asked then has an error of its own.
    """
    if invocation.config is None or not os.access(store.root / INTERNAL_DIR, os.X_OK):
        return []  # who asks on the socket of [gateway] would be refused, and that be written down
    from recfs.config import from_plain
    from recfs.config.changes import settings_of

    try:
        told = store.client(_PATIENCE_S).call("settings")
        theirs = settings_of(from_plain(told["config"], "settings"))
    except RecfsError:
        return []
    ours = settings_of(store.config)
    return [key for key in sorted(keys) if theirs.get(key) != ours.get(key)]


def tell(invocation: Invocation, store: Store, *keys: str, hint: str = "") -> None:
    """Say on standard error that the daemon's *keys* count, and not those of `--config`, where these differ.

    *hint*: what else there is to say then.
    """
    if others := differing(invocation, store, keys):
        say(
            invocation,
            f"this is by the daemon's settings, and not by {{}}, where others are: {', '.join(others)}{hint}",
        )


def reads_rules(invocation: Invocation, store: Store) -> bool:
    """Whether what is asked about recordings is to be answered of the catalogue by the rules of `--config`.

    It is where the daemon goes by others: so an operator sees what new rules do, before anything goes by them. Says so.
    """
    others = differing(invocation, store, LIVES)
    if not others:
        return False
    if not os.access(store.root / INTERNAL_DIR / "catalogue.db", os.R_OK):
        tell(invocation, store, *LIVES)
        return False
    say(invocation, f"this is by {{}}; the daemon goes by other settings: {', '.join(others)}")
    return True


def say(invocation: Invocation, line: str) -> None:
    """Write *line* to standard error, with the file of `--config` in it."""
    click.echo(f"recfs: {line.format(show_name(str(invocation.config)))}", err=True)
