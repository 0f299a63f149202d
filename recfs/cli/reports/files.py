"""`recfs ls-files` and `recfs info`: what recfs knows of files."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import here_or_top, locate
from recfs.core.media.facts import describe
from recfs.core.model import State

_LISTED = """
$ recfs ls-files -r users
State          Size  Modified (UTC)       SHA-256       Path
dir           3 MiB  2026-11-21 09:03:12  -             users/5/
dir           3 MiB  2026-11-21 09:03:12  -             users/5/recordings/
dir           3 MiB  2026-11-21 09:03:15  -             users/5/recordings/142/
committed  79.2 KiB  2026-11-21 09:03:14  e817adfa5369  users/5/recordings/142/audio.mp3
committed   2.9 MiB  2026-11-21 09:03:14  f305a3505239  users/5/recordings/142/source.mp4
dir             0 B  2026-11-21 09:03:12  -             users/5/thumbnails/
"""
_SHOWN = """
$ recfs info users/5/recordings/142/source.mp4
path           users/5/recordings/142/source.mp4
ino            10
kind           file
mode           0644
uid            0
gid            0
atime_ns       1795251793193548559 (2026-11-21 09:03:13 UTC)
mtime_ns       1795251794811306078 (2026-11-21 09:03:14 UTC)
ctime_ns       1795251794811306078 (2026-11-21 09:03:14 UTC)
owner          5
state          committed
size_bytes     3072003 (2.9 MiB)
charged_bytes  3072003 (2.9 MiB)
sha256         f305a3505239f55851a89aa5a99efcc31b86e22dde3ff09c6c69d075504b22f3
md5            61fef53795f707df9807989a5ec266e2
location       local
local_path     /srv/recfs/users/5/recordings/142/source.mp4
settled        yes
"""
_COMPARE = """
`--json` has the whole checksum. To compare the bytes on the disk with what was recorded (the list names the files from
the store's root):

\b
cd /srv/recfs && recfs --json ls-files -r --state committed --root /srv/recfs |
  python3 -c 'import json, sys; [print(f["sha256"], "", f["path"]) for f in json.load(sys.stdin)]' | \
sha256sum --check --quiet
"""


@click.command("ls-files", cls=Command, sections={"": _COMPARE}, example=_LISTED)
@click.argument("path", required=False, type=ANY_PATH)
@click.option("-r", "--recursive", is_flag=True, help="Everything below PATH too.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only files in this state.")
@click.option("--media", is_flag=True, help="What is in recordings, JSON and subtitles; other files are left out.")
@store_options
@click.pass_obj
def ls_files(invocation: Invocation, path: Path | None, recursive: bool, state: str | None, media: bool) -> None:
    """List files with state, size, time and checksum.

    They are those of the catalogue; shown files are not in it. PATH is a path inside the mount or on the store's
    disk, or `users/...` with `--root`. Without PATH: the working directory inside a mount, else the whole store's
    top.
    """
    place = locate(invocation, path) if path is not None else here_or_top(invocation)
    only = {"media": True} if media else {}
    files = place.store.call("ls_files", path=place.path, recursive=recursive, state=state, **only)
    if invocation.json:
        output.emit_json(files)
        return
    if media:
        output.print_table(
            ("Media", "Size", "What is known", "Path"),
            [
                (
                    file["media"]["verdict"],
                    output.size(file["size_bytes"]),
                    output.show_name(describe(file["media"])),
                    output.show_name(file["path"]),
                )
                for file in files
            ],
            right=("Size",),
        )
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


@click.command(cls=Command, example=_SHOWN)
@click.argument("path", type=ANY_PATH)
@store_options
@click.pass_obj
def info(invocation: Invocation, path: Path) -> None:
    """Show everything known of a file or directory.

    `local_path` is where the bytes lie, `settled` whether the home tree agrees with the catalogue. `s3.…` is what S3
    holds of the file; `s3.current` says whether that is the version the file has, and `s3.read_error` why its last read
    from there failed. A shown file has `shown_from`; a directory `rbytes` and `rfiles`; `users/<id>` also the quota; an
    open file its `writers` and `readers`.
    """
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
