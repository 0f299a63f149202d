"""`recfs ls-files` and `recfs info`: what recfs knows of files."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import here_or_top, locate
from recfs.core.model import State


@click.command("ls-files")
@click.argument("path", required=False, type=ANY_PATH)
@click.option("-r", "--recursive", is_flag=True, help="Everything below PATH too.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only files in this state.")
@store_options
@click.pass_obj
def ls_files(invocation: Invocation, path: Path | None, recursive: bool, state: str | None) -> None:
    """List files with state, size, time and checksum.

    PATH is a path inside the mount or on the store's disk, or users/... with --root. Without PATH: the
    working directory inside a mount, else the whole store's top.
    """
    place = locate(invocation, path) if path is not None else here_or_top(invocation)
    files = place.store.call("ls_files", path=place.path, recursive=recursive, state=state)
    if invocation.json:
        output.emit_json(files)
        return
    output.print_table(
        ("State", "Size", "Modified (UTC)", "SHA-256", "Path"),
        [
            (
                output.state(file["state"]) if file["state"] else file["kind"],
                "-" if file["size_bytes"] is None else output.size(file["size_bytes"]),
                output.moment(file["mtime_ns"]),
                (file["sha256"] or "-")[:12],
                output.show_name(file["path"]) + ("/" if file["kind"] == "dir" else ""),
            )
            for file in files
        ],
        right=("Size",),
    )


@click.command()
@click.argument("path", type=ANY_PATH)
@store_options
@click.pass_obj
def info(invocation: Invocation, path: Path) -> None:
    """Show everything known of a file or directory."""
    place = locate(invocation, path)
    result = place.store.call("info", path=place.path)
    if invocation.json:
        output.emit_json(result)
    else:
        output.print_facts(_facts(result))


def _facts(result: dict[str, Any], prefix: str = "") -> list[tuple[str, str | Text]]:
    facts: list[tuple[str, str | Text]] = []
    for key, value in result.items():
        name = prefix + output.show_name(key)
        if isinstance(value, dict):
            facts += _facts(value, f"{name}.")
        elif value is not None:
            facts.append((name, _shown(key, value)))
    return facts


def _shown(key: str, value: Any) -> str | Text:
    """Return a value with a reading for people where its name tells the unit."""
    if key == "state":
        return output.state(value)
    if key == "mode" and isinstance(value, int):
        return f"{value & 0o7777:04o}"
    if key.endswith("bytes") and isinstance(value, int) and value >= 1024:
        return f"{value} ({output.size(value)})"
    if key.endswith("_ns") and isinstance(value, int):
        return f"{value} ({output.moment(value)} UTC)"
    if isinstance(value, list):
        return ", ".join(output.show_name(str(each)) for each in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return output.show_name(str(value))
