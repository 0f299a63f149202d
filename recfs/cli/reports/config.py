"""`recfs config`: check a recfs.conf, show what is in effect."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import LocalPath
from recfs.cli.common.store import all_in_effect, in_effect

_SECONDS = frozenset(
    {
        *("flush_interval", "settle_max", "sweep_interval", "retention", "min_age", "max_age", "keep_local"),
        *("header_timeout", "body_timeout", "send_timeout"),
        *("connect_timeout", "read_timeout", "deadline", "settle", "retry_max", "abort_multipart", "after"),
        *(
            "every",
            "orphans_every",
            "versions_every",
            "catalogue_every",
            "orphans_grace",
            "multiparts_every",
            "multiparts_age",
            "tier_every",
            "survey_every",
        ),
        *("grace", "archive_threshold", "quiet", "scan_interval", "period"),
        *("events.keep", "stats.keep", "audit.keep", "audit.rotate", "notify.timeout"),
        *("at", "deriving.timeout", "threshold", "length", "overlap", "expiry", "media.timeout", "cpu", "upload_wait"),
    }
)
_BYTES = frozenset(
    {
        *("min_free", "passthrough_headroom", "max_bytes", "max_file_size", "rate"),
        *("min_size", "max_size", "part_size", "fetch_whole_below", "read_ahead_max"),
        *("max_metadata", "audit.file_size", "audit.most", "max_output", "max_fetch", "copy_min_size", "max_entry"),
        *("memory", "largest_text", "body_rate"),
    }
)


_CHECKED = """
$ recfs config check recfs.conf.example
recfs.conf.example: ok, store at /srv/recfs
"""


@click.group("config", cls=Group)
def config_group() -> None:
    """Check and show the configuration."""


@config_group.command(
    "check",
    exits={ExitCode.CONFIG: "something is wrong with it: the file, the key and the remedy are named"},
    example=_CHECKED,
)
@click.argument("file", required=False, type=LocalPath())
@store_options
@click.pass_obj
def check(invocation: Invocation, file: Path | None) -> None:
    """Check FILE, or the configuration that commands would use.

    With FILE, what a daemon would have that is started with it here: variables of the environment that are settings
    (`$RECFS_ROOT`) go before what the file says, and are named. What is allowed and hardly meant is told as well, such
    as recordings that expire within two hours.
    """
    from recfs.config import check_file
    from recfs.config.hints import hints

    said: list[str] = []
    if file is not None:
        settings, source = check_file(file, invocation.root, os.environ), str(file)
        config = settings.config
        said = sorted({origin for origin in settings.origins.values() if origin.startswith("$")})
    else:
        config, source = in_effect(invocation)
    if invocation.json:
        told = {"ok": True, "source": source, "root": str(config.root), "s3": config.s3 and config.s3.url}
        told |= {"environment": [each[1:] for each in said]} if said else {}
        output.emit_json(told | ({"hints": found} if (found := hints(config)) else {}))
    else:
        tier = f", S3 tier in {config.s3.url}" if config.s3 is not None else ""
        also = f"; {', '.join(said)} of the environment counted as well" if said else ""
        what = f"{output.show_name(source)}: ok, store at {output.show_name(f'{config.root}{tier}')}{also}"
        output.say(what, style="green")
        for hint in hints(config):
            output.say(f"look again: {hint}", style="yellow")


@config_group.command("show")
@store_options
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show every setting in effect and where it is from: those of a running daemon, or of `--config`.

    A setting is from the command line of the daemon, else from a variable of its environment (`$RECFS_ROOT`,
    `$RECFS_QUOTA__MAX_BYTES`: section and key joined by two underscores), else from the file, with its line, else it is
    the default. With `--json` the key `origins` has those that are no defaults.

    Without `--config`, in a mount or with `--root`: what the daemon there runs with, or without one what the next start
    with `--root` alone would.
    """
    from recfs.config import plain

    settings, source = all_in_effect(invocation)
    values = plain(settings.config)
    if invocation.json:
        output.emit_json(values | ({"origins": dict(settings.origins)} if settings.origins else {}))
        return
    rows = [[key, _shown(key, value), output.show_name(settings.origin(key))] for key, value in _flat(values)]
    # A daemon of an earlier version does not tell where its settings are from.
    facts = rows if settings.origins else [row[:2] for row in rows]
    output.print_facts(facts, title=f"# {output.show_name(source)}")


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, each in enumerate(value, start=1):
                yield from _flat(each, f"{prefix}{key}[{number}].")
        else:
            yield f"{prefix}{key}", value


def _shown(key: str, value: Any) -> str:
    name = key.rpartition(".")[2]
    if value is None:
        return "unlimited" if key.startswith("quota.") else "-"
    if isinstance(value, str):
        return output.show_name(value) or '""'
    if isinstance(value, list):
        return output.show_name(str(value))  # of tables there may be several, and there is none
    if not _BYTES.isdisjoint((key, name)):
        return output.size(value)
    if not _SECONDS.isdisjoint((key, name)):
        return output.duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return output.show_name(str(value))
