"""`recfs audit`: who did what, and whether they were let."""

import os
import time
from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import TOP_LEVELS, Place, in_effect, locate, open_store
from recfs.core.observing.acts import CONTROL_OPS, OPS
from recfs.core.observing.cursors import parse_time
from recfs.core.observing.lines import line_of
from recfs.errors import InvalidPath, IoFailure, NotADirectory, NotAllowed, NotFound
from recfs.observing.audit.reading import AuditReader, Sought
from recfs.observing.audit.settings import folder_of

_EXAMPLE = """
$ recfs audit --path users/5/recordings/142 --since 2h --op unlink --op rename
2026-11-29T16:42:42Z  unlink       ok        uid 1000  rm (4711)            users/5/recordings/142/video.mp4
2026-11-29T16:43:10Z  rename       EDQUOT    uid 1001  mv (4802)            users/5/recordings/142/a -> temp/6/1/a
"""

_ACTS = OPS | CONTROL_OPS

_FIELDS = """
`via=control`: it came from the command line, by the daemon's control socket, with the `params` of that request;
`via=daemon`: the daemon did it by itself. Without `via` it came through the mount. A process is its name and its id
(comm and pid of proc(5)); `? (0)` is one that cannot be told: it was gone before it could be looked at, is in another
pid namespace, or the kernel wrote for it later. A result is ok, an error number of errno(3), or the kind of error that
the command line was answered.
"""

_SHOWN = frozenset(
    {"time", "time_ns", "op", "result", "uid", "gid", "pid", "command", "path", "path_hex", "user", "to", "to_hex"}
)


class Moment(click.ParamType[int]):
    """A date, or how long ago; becomes nanoseconds since the epoch."""

    name = "time"
    unit = "a date such as 2027-01-31T18:00:00Z, or how long ago: 90s, 2h, 7d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_time(str(value), time.time_ns())
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def _known(ctx: click.Context, param: click.Parameter, ops: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an act that there is not: nothing would be found, and that looked like an answer."""
    unknown = [op for op in ops if op not in _ACTS]
    if unknown:
        raise click.BadParameter(f"there is no act {unknown[0]!r}; known are {', '.join(_ACTS)}", ctx, param)
    return ops


@click.command("audit", cls=Command, sections={"Acts": _ACTS, "": _FIELDS}, example=_EXAMPLE)
@click.option("--user", metavar="ID", help="Only what was done to this user's files.")
@click.option("--uid", type=click.IntRange(min=0), help="Only what this uid did.")
@click.option(
    "--path", metavar="PATH", type=ANY_PATH,
    help="Only what was done to this path, or below it: in the mount (it need not be there any more), or users/...",
)  # fmt: skip
@click.option("--since", type=Moment(), help="Only from then on.")
@click.option("--until", type=Moment(), help="Only until then.")
@click.option(
    "--op", "ops", multiple=True, metavar="OP", callback=_known, help="Only this kind of acts; several may be given."
)
@click.option("--refused", is_flag=True, help="Only what was refused.")
@store_options
@click.pass_obj
def audit(
    invocation: Invocation, user: str | None, uid: int | None, path: Path | None, since: int | None, until: int | None,
    ops: tuple[str, ...], refused: bool,
) -> None:  # fmt: skip
    """Tell who did what in the store: oldest first, across all files of the audit log.

    `[audit]` in the configuration turns it on, and says where it lies and how much of it is kept. With `--json` each
    act is one line of JSON, as the files have it. What the kernel refuses because of mode bits never reaches recfs and
    is not told. The files are their owner's to read.
    """
    place = None if path is None else _place(invocation, path)
    config, _ = in_effect(invocation, place.store if place is not None else None)
    folder = folder_of(config.root, config.audit)
    inside = None if place is None else place.path
    sought = Sought(user, uid, inside, frozenset(ops) or None, since, until, refused)
    reader = AuditReader(folder)
    try:
        for act in reader.acts(sought):
            click.echo(line_of(act) if invocation.json else _line(act))
    except BrokenPipeError:
        raise  # of who reads what is told here
    except FileNotFoundError as error:
        off = "" if config.audit.enabled else ": [audit] enabled is false"
        raise NotFound(f"there is no audit log in {folder}{off}") from error
    except PermissionError as error:
        raise NotAllowed(f"the audit log in {folder} cannot be read: run this as its owner or root") from error
    except NotADirectoryError as error:
        raise NotADirectory(f"{folder} is no directory: [audit] directory has to name one, or be left out") from error
    except OSError as error:
        raise IoFailure(f"the audit log in {folder} cannot be read: {error.strerror}") from error
    if reader.damaged:
        click.echo(f"recfs: {reader.damaged:,} lines are damaged, and left out", err=True)


def _place(invocation: Invocation, path: Path) -> Place:
    """What PATH means; also `/users/...`, from the top of the mount. Raises as `locate`."""
    try:
        return locate(invocation, path)
    except InvalidPath:
        inside = os.path.normpath(path).lstrip("/")
        if not path.is_absolute() or inside.partition("/")[0] not in ("", *TOP_LEVELS):
            raise
        return Place(open_store(invocation), inside)


def _line(act: dict[str, Any]) -> str:
    show = output.show_name
    who = f"{show(str(act.get('command') or '?'))} ({act.get('pid')})"
    what = show(str(act.get("path", "")))
    if "to" in act:
        what += f" -> {show(str(act['to']))}"
    more = " ".join(f"{show(key)}={show(str(value))}" for key, value in act.items() if key not in _SHOWN)
    told = f"{str(act.get('time', ''))[:19]}Z  {show(str(act.get('op'))):<12} {show(str(act.get('result'))):<9}"
    return f"{told} uid {act.get('uid')}  {who:<20} {what} {more}".rstrip()


__all__ = ["audit"]
