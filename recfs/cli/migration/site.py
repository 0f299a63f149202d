"""What the commands that work on a plan have in common: the plan, its state, the store, and what is told meanwhile."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.last_daemon import holder
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import LocalPath
from recfs.cli.common.progress import ProgressLine, to_go
from recfs.cli.common.store import INTERNAL_DIR, Store, open_store, reports_at
from recfs.cli.common.where import ROOT_XATTR, Mount, mount_around, mounts
from recfs.cli.migration import home_before
from recfs.core.migration.escapes import unescaped
from recfs.core.migration.steps import Step
from recfs.errors import AccessDenied, FsError, InvalidArgument, IoFailure, MountError, NotAStore, NotFound, RootBusy
from recfs.fuse.mounting import left_by
from recfs.migration import plans
from recfs.migration.run import destination, hashing, html, report, state, trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recfs.core.migration.plan import Plan
    from recfs.core.migration.rsync_ends import Verdict

_LOCK_WAIT_S = 60.0
_ROOT = "root"
_OLD = "inode of the old tree"
_NAMED = 20
EXITS = {
    ExitCode.PROBLEMS: "not all is clean: files stay behind or need a person, or it was stopped; it is told why",
    ExitCode.STORE: "the store cannot be used as it is, or another run of this plan is under way",
    ExitCode.MOUNT: "the store is not mounted (any more)",
}


@dataclass
class Site:
    """A plan that is worked on."""

    plan: Plan
    old: bytes
    state: state.State
    destination: destination.Destination
    store: Store
    meter: hashing.Meter
    tell: Callable[[], None]

    def reported(
        self, command: str, *, stopped: Verdict | None = None, users: dict[str, Verdict] | None = None
    ) -> report.Report:
        """Where the migration stands."""
        return report.reported(command, self.plan, self.state, stopped=stopped, users=users)


def plan_command(name: str, example: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command on a plan: with PLAN, --mount, --home, --html and what every command has."""

    def made(function: Callable[..., None]) -> click.Command:
        for option in (
            click.option(
                "--html", "page", type=LocalPath(), metavar="FILE", help="Write the report as a page of HTML, too."
            ),
            click.option("--home", is_flag=True, help="Work on the home tree of a store whose daemon is stopped."),
            click.option(
                "--mount", type=LocalPath(), metavar="DIR", help="The mount; by default that of the store's daemon."
            ),
            click.argument("plan", type=LocalPath(), metavar="PLAN"),
        ):
            function = option(function)
        return click.command(name, cls=Command, exits=EXITS, example=example)(
            store_options(click.pass_context(function))
        )

    return made


@contextmanager
def opened(
    invocation: Invocation, plan_path: Path, what: str, *, home: bool, mount: Path | None, sizes: Callable[[Plan], int]
) -> Iterator[Site]:
    """Open everything for as long as a command works. SIGTERM ends it as Ctrl-C does.

    *what* is told with how far it is; *sizes*: how many bytes are dealt with. Raises RecfsError.
    """
    if home and mount is not None:
        raise click.UsageError("--home is for a store without a mount: use one of --home and --mount")
    plan = plans.load(plan_path)
    old = plan.made_of.get("old")
    if old is None:
        raise InvalidArgument(f"{plan_path}: the line `#: old = …`, which names the old tree, is missing")
    store = open_store(invocation, mount)
    meter, line = hashing.Meter(), ProgressLine()
    with ExitStack() as stack:
        stack.callback(line.clear)
        stack.enter_context(_terminated_as_interrupted())
        there = stack.enter_context(_home(store)) if home else _mount(store, mount, meter)
        _check_apart(unescaped(old), there, store.root)
        kept = stack.enter_context(
            state.opened(plan_path, wait_s=_LOCK_WAIT_S, tell=lambda told: line.show(f"{what}: {told}"))
        )
        root = os.path.realpath(store.root)
        _same_tree(kept, unescaped(old))
        before = kept.fact(_ROOT)
        if before is not None and before != root:
            raise InvalidArgument(f"{plan_path} is being migrated into the store at {before}, and not into {root}")
        if before is None:
            kept.put_fact(_ROOT, root)
        if home:
            home_before.note(kept)
        else:
            home_before.wait_until_taken_over(kept, store, there, line.show)
        tell = _teller(line, what, meter, sizes(plan))
        yield Site(plan, unescaped(old), kept, there, store, meter, tell)


def _check_apart(old: bytes, there: destination.Destination, root: Path) -> None:
    """Raise InvalidArgument where the store and the old tree lie in each other, by name or by a bind mount.

    In the kernel's list of mounts a bind mount has the directory of its file system that is mounted there.
    """
    try:
        destination.check_apart(old, there)
        top = Path(os.path.realpath(os.fsdecode(old)))
        found = mounts()
        device, home = os.stat(root).st_dev, _within(found, Path(os.path.realpath(root)))
        shown = {top: _within(found, top)}
        shown |= {each.mount_point: Path("/", each.subtree) for each in found if top in each.mount_point.parents}
        for point, inside in shown.items():
            info = os.stat(point)
            is_store = info.st_dev == device and (inside.is_relative_to(home) or home.is_relative_to(inside))
            if info.st_dev == there.device or (is_store and _shows(point, inside, home)):
                raise InvalidArgument(
                    f"the store itself is mounted in the old tree, at {point}: unmount it there; what is migrated has"
                    " to lie elsewhere"
                )
    except OSError as error:
        raise NotFound(f"{os.fsdecode(old)}: the old tree is not there ({error.strerror}): mount its disk") from None


def _within(found: list[Mount], path: Path) -> Path:
    """Where a directory lies in its file system."""
    around = [each for each in found if path.is_relative_to(each.mount_point)]
    nearest = max(enumerate(around), key=lambda each: (len(each[1].mount_point.parts), each[0]))[1]
    return Path("/", nearest.subtree, path.relative_to(nearest.mount_point))


def _shows(point: Path, inside: Path, home: Path) -> bool:
    """Whether what is mounted at *point* has the store in it, or is in the store."""
    if inside.is_relative_to(home):
        return True
    at = point / home.relative_to(inside)
    return at.exists()


def _same_tree(kept: state.State, old: bytes) -> None:
    """Refuse an old tree that is not there, or is another directory than before: the disk may not be mounted.

    Raises NotFound, InvalidArgument.
    """
    try:
        with trees.Tree(old) as tree:
            inode = str(os.fstat(tree.fd).st_ino)
    except OSError as error:
        raise NotFound(f"{os.fsdecode(old)}: the old tree is not there ({error.strerror}): mount its disk") from None
    before = kept.fact(_OLD)
    if before is None:
        kept.put_fact(_OLD, inode)
    elif before != inode:
        raise InvalidArgument(
            f"{os.fsdecode(old)} is another directory than the one that was migrated: is its disk mounted? If it was"
            " moved, make a new plan"
        )


def _mount(store: Store, mount: Path | None, meter: hashing.Meter) -> destination.Destination:
    """The mount of the store's daemon. Raises MountError where there is none."""
    if mount is None:
        mount = left_by(store.root / INTERNAL_DIR / "mounted") if holder(store.root) is not None else None
        if mount is None:
            raise MountError(
                f"no daemon has {store.root} mounted: mount it, or name the mount with --mount, or bring the files into"
                " the home tree with --home"
            )
    top = os.path.realpath(mount)
    expected = os.path.realpath(store.root)

    def check() -> None:
        try:
            found = os.fsdecode(os.getxattr(top, ROOT_XATTR))
        except OSError as error:
            raise MountError(f"{top} is no mount of recfs any more: {error.strerror}") from None
        if os.path.realpath(found) != expected:
            raise MountError(f"{top} is the mount of another store, {found}")

    check()
    found = mount_around(Path(top))
    if found is None or str(found.mount_point) != top or found.subtree:
        raise MountError(f"{top} is a directory inside a mount: name its top")

    def ask(tree: trees.Tree, target: bytes) -> str | None:
        return hashing.asked(tree, target, meter)

    return destination.Destination(os.fsencode(top), ask, check=check, device=os.stat(top).st_dev)


@contextmanager
def _home(store: Store) -> Iterator[destination.Destination]:
    """The home tree of a store, which no daemon can take into use meanwhile. Raises RootBusy, NotAStore."""
    root = store.root
    try:
        lock = os.open(root / INTERNAL_DIR / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotAStore(f"no recfs store at {root}; `recfs mount --root {root} DIR` makes one") from None
    except OSError as error:
        raise IoFailure(f"{root}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootBusy(
                f"a daemon runs on {root} (process {holder(root)}): migrate into its mount, or stop it before --home"
            ) from None
        if not os.geteuid() and os.stat(root).st_mode & 0o077:
            raise AccessDenied(f"users can get into {root} and change what is brought there meanwhile: chmod 700 it")
        with reports_at(root).reading() as snapshot:
            from recfs.api import summaries

            def is_elsewhere(target: bytes) -> bool:
                try:
                    summaries.info(snapshot, store.config, os.fsdecode(target))
                except FsError:
                    return False
                return True

            top = os.fsencode(os.path.realpath(root))
            reserve = store.config.min_free
            yield destination.Destination(top, hashing.read, is_home=True, is_elsewhere=is_elsewhere, reserve=reserve)
    finally:
        os.close(lock)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _teller(line: ProgressLine, what: str, meter: hashing.Meter, total: int) -> Callable[[], None]:
    began_s = time.monotonic()

    def tell() -> None:
        done, took_s = min(meter.done, total), time.monotonic() - began_s
        told = f"{what}: {output.size(done)} of {output.size(total)}"
        if took_s >= 1.0:
            told += f", {output.size(round(done / took_s))}/s{to_go(done, total, took_s)}"
        line.show(told)

    return tell


def asked(question: str, *, yes: bool) -> None:
    """Ask before something is deleted. Raises UsageError where nobody can be asked, Abort for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked whether to delete: say --yes")
    click.confirm(question, abort=True, err=True)


def finish(
    ctx: click.Context, plan: Path, found: report.Report, page: Path | None, more: dict[str, Any] | None = None
) -> None:
    """Tell the report, and leave with its exit code. Raises IoFailure where the page cannot be written."""
    if page is not None:
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        try:
            page.write_text(html.page(found, plan.name, made), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise IoFailure(f"{page} cannot be written: {error.strerror}") from None
    if ctx.ensure_object(Invocation).json:
        output.emit_json(found.plain() | (more or {}))
    else:
        _say(found)
    if not found.is_clean:
        ctx.exit(ExitCode.PROBLEMS)


def _say(found: report.Report) -> None:
    output.say(f"before: {_sum(found.before)} in the plan")
    for action, each in found.actions.items():
        output.say(f"  {action:<11} {_sum(each)}")
    there = f" ({_sum(found.there_before)} were there before)" if found.there_before.files else ""
    output.say(f"after: {_sum(found.after)} at their targets{there}")
    for step, each in found.steps.items():
        output.say(f"  {step:<11} {_sum(each)}")
    if found.saved.files:
        output.say(f"duplicates saved: {_sum(found.saved)}")
    for kind, names, count in (
        ("problem", found.problems, found.problem_files),
        ("left alone", found.left, found.left_files),
    ):
        for named in names[:_NAMED]:
            output.say(f"{kind}: {named.source}: {named.reason}", style="yellow")
        if count > len(names[:_NAMED]):
            output.say(f"{kind}: {count - len(names[:_NAMED]):,} more; --json and --html name {report.NAMED:,}")
    for path, why in found.recordings:
        output.say(f"expiry of {path} not set: {why}", style="yellow")
    waiting = [each for step, each in found.steps.items() if step not in (Step.COPIED, Step.VERIFIED, Step.CLEANED)]
    if waiting and not found.is_clean:
        each = report.Sum(sum(one.files for one in waiting), sum(one.size for one in waiting))
        output.say(f"still to be brought: {_sum(each)}", style="yellow")
    for user, why, remedy in found.stopped:
        output.say(f"{f'user {user}: ' if user else ''}stopped: {why}; {remedy}", style="bold red")
    if found.is_clean:
        output.say("all is clean", style="green")


def _sum(each: report.Sum) -> str:
    return f"{output.number_of(each.files, 'file')}, {output.size(each.size)}"


__all__ = ["EXITS", "Site", "asked", "finish", "opened", "plan_command"]
