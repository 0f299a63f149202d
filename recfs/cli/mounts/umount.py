"""`recfs umount`: stop a daemon cleanly and wait until it is gone, or clear the mount of a dead one."""

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from recfs.api.client import ControlClient
from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.last_daemon import clear_dead_mount, holder, left_behind, signed_off
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration
from recfs.cli.common.store import INTERNAL_DIR, configured, reports_at
from recfs.cli.common.where import MOUNTINFO, DeadMount, Mount, dead_mounts, is_recfs_type, mount_on, root_behind
from recfs.cli.mounts import service
from recfs.cli.work.waiting import Teller, lines_of, of_queue, of_status, queue_of
from recfs.errors import Busy, CatalogueCorrupt, DaemonNotRunning, MountError, RecfsError

_TELL_S = 2.0
"""How often people are told what is waited for."""
_LOOK_S = 0.1
_ANSWER_S = 15.0
_GRACE_S = 30.0
"""How long the end itself may take once the time for the uploads is up."""
_NAMED = 10
"""So many files are told by name."""
_WAY_OUT = (
    "once the catalogue can be written it goes on; else the daemon ends after 2 min, and the next start finds again "
    "what was closed"
)
"""What ends the wait for a catalogue that cannot be written (`parts.DRAIN_S`)."""

_STAYS_OPEN = (
    "what the kernel writes by itself goes on into these files, and the next start seals those whose writers let go of "
    "them; the others are `incomplete`, with all that was written"
)


_EXITS = {ExitCode.MOUNT: "files are open, or nothing is mounted on MOUNTPOINT"}
_EXAMPLE = """
$ recfs umount /mnt/recordings
recfs: 1 file is open: users/5/recordings/142/video.mp4
close them, or use --force
$ recfs umount --root /srv/recfs
/mnt/recordings: was a dead mount: its daemon had ended without unmounting; cleared
"""


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@click.argument("mountpoint", required=False, type=ANY_PATH)
@click.option(
    "--force",
    is_flag=True,
    help='Stop although files are open; they stay as `incomplete` (docs/semantics.md, "7. What survives what").',
)
@click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Longest wait; the daemon goes on committing, and what is not uploaded is left for the next mount.",
)
@click.option(
    "--unit",
    metavar="UNIT",
    help="End as systemd wants this unit to end: for its ExecStop=.",
)
@store_options
@click.pass_obj
def umount(
    invocation: Invocation, mountpoint: Path | None, force: bool, timeout_s: float, unit: str | None
) -> None:  # fmt: skip
    """Unmount and end the daemon. MOUNTPOINT defaults to `mountpoint` of recfs.conf, or to where the store is mounted.

    Commits and uploads what was written first, says what it waits for, and returns when the mount and the daemon are
    gone. Uploads that fail are not waited for, nor are files that take more than 30 s to be hashed: what is left then,
    the next mount goes on with.

    Refused while files are open; it names them. A program that merely stands in a directory of the mount does not
    hinder it. Interrupted while it waits for uploads (docs/s3.md, "Drain and unmount"), it leaves the mount as it is.
    Where the catalogue cannot be written, on a full disk say, it tells so at once, and what ends the wait. Large
    files that the next start hashes are named (`sealing_later_paths` in JSON).

    The mount of a daemon that died is cleared, whether MOUNTPOINT names it or `--root` its store. A daemon whose
    mount is gone from here, since umount(8) took it away while a container or a unit with mounts of its own holds a
    copy, is told by the store's control socket: give `--root` or `--config`. A MOUNTPOINT on which nothing is
    mounted, while the store has its mount elsewhere, is refused.

    With `--unit`, `systemctl restart` does not unmount: the daemon ends, systemd keeps the mount, and the daemon that
    it starts next goes on with it; requests wait meanwhile, and open files stay open. Where that cannot be (the
    configuration has a fault, or changes what the mount was made with), it is an unmount, and says why. A stop waits up
    to 10 s for files that are open, names those that still are, and ends the daemon all the same, as with `--force`.
    """
    is_chosen = mountpoint is None or invocation.root is not None or invocation.config is not None
    config = configured(invocation) if is_chosen else None
    wanted = mountpoint if config is None or mountpoint is not None else config.mountpoint
    mount = mount_on(wanted) if wanted is not None else None
    if unit is not None and config is None:
        raise click.UsageError("--unit wants the store by --config or --root")
    patience_s: float | None = None
    if unit is not None and config is not None:
        patience_s = service.CLOSE_S
        if service.is_restarted(unit):
            if _leave(config.root, output.say if not invocation.json else _say_nothing):
                return
            patience_s = 0.0  # whoever has files open hears of nothing
    if mount is None and config is not None:
        left = left_behind(config.root)
        if left is not None and mountpoint is None:
            _clear(invocation, left)
            return
        mount = _elsewhere(config.root, wanted, is_named=mountpoint is not None)
        if mount is None:
            ended = _stop(
                None, config.root, force=force, timeout_s=timeout_s, aloud=not invocation.json, patience_s=patience_s
            )  # fmt: skip
            _tell(invocation, wanted, f"the daemon of {config.root} has stopped; its mount was gone from here", *ended)
            return
    if mount is None:
        raise MountError(
            f"nothing is mounted on {wanted}; a daemon that goes on although its mount was taken away by other means"
            f" (umount -l) is ended by its root: `recfs umount --root ROOT`"
        )
    foreign = MountError(f"{mount.mount_point} is a mount of {mount.fstype}, not of recfs; use umount(8)")
    if not is_recfs_type(mount):
        raise foreign
    try:
        root = root_behind(mount)
    except DeadMount:
        _clear(invocation, mount.mount_point)
        return
    if root is None:
        raise foreign
    ended = _stop(
        mount, root, force=force, timeout_s=timeout_s, aloud=not invocation.json, patience_s=patience_s
    )  # fmt: skip
    _tell(invocation, mount.mount_point, "unmounted", *ended)


def _say_nothing(line: str) -> None:
    pass


def _leave(root: Path, say: Callable[[str], object]) -> bool:
    client = ControlClient(root / INTERNAL_DIR / "control.sock", _ANSWER_S)
    if not service.is_there_to_leave(client, root, say):
        return False
    if (obstacle := _unusable_catalogue(root)) is not None:
        say(f"it is unmounted, for this recfs could not go on with it: {obstacle}")
        return False
    with _process(client.peer_pid()) as pidfd:
        return service.leave(root, pidfd, say)


def _unusable_catalogue(root: Path) -> CatalogueCorrupt | None:
    """Why the daemon that is started next, this version, would refuse the catalogue: a later one wrote it, say."""
    with contextlib.suppress(RecfsError, OSError):
        try:
            with reports_at(root).reading():
                return None
        except CatalogueCorrupt as error:
            return error
    return None


def _clear(invocation: Invocation, point: Path) -> None:
    clear_dead_mount(point)
    outcome = "was a dead mount: its daemon had ended without unmounting; cleared"
    _tell(invocation, point, outcome, was_dead=True)


def _elsewhere(root: Path, wanted: Path | None, *, is_named: bool) -> Mount | None:
    """Nothing is mounted on *wanted*: return where the store's daemon has its mount; None if that is not to be seen.

    *is_named*: somebody asked for just that mount point, and no other. Raises MountError then, and without a daemon.
    """
    nothing = "no mount point" if wanted is None else f"nothing is mounted on {wanted}"
    try:
        there = ControlClient(root / INTERNAL_DIR / "control.sock", _ANSWER_S).call("status")["mountpoint"]
    except DaemonNotRunning as exc:
        process = holder(root)
        if process is not None:
            raise MountError(
                f"{nothing}, and the daemon of {root} (process {process}) does not listen; `kill {process}` stops it"
            ) from exc
        dead = "".join(f"; {point} is a dead mount: `recfs umount {point}` clears it" for point in dead_mounts())
        if wanted is None:
            raise DaemonNotRunning(f"no daemon runs on {root}, and no mount of it is left here{dead}") from exc
        raise MountError(f"{nothing}, and no daemon runs on {root}{dead}") from exc
    mount = mount_on(Path(there)) if there is not None else None
    if mount is None:
        return None
    if not is_recfs_type(mount):
        raise MountError(
            f"{there}, where {root} is mounted, lies under a mount of {mount.fstype}: unmount that first (umount(8))"
        )
    try:
        behind = root_behind(mount)
    except DeadMount:
        return None
    if behind is None or os.path.realpath(behind) != os.path.realpath(root):
        return None
    if is_named:
        raise MountError(f"{nothing}; {root} is mounted on {mount.mount_point}: `recfs umount {mount.mount_point}`")
    return mount


def _tell(
    invocation: Invocation, point: Path | None, outcome: str, left: dict[str, Any] | None = None,
    later: dict[str, Any] | None = None, *, was_dead: bool = False,
) -> None:  # fmt: skip
    count = int((later or {}).get("sealing_later", 0))
    paths = [str(path) for path in (later or {}).get("sealing_later_paths", [])][:_NAMED]
    lines = of_queue(left)
    if invocation.json:
        totals = left["totals"] if left is not None and lines else None
        output.emit_json(
            {
                "mountpoint": None if point is None else str(point), "unmounted": True, "was_dead": was_dead,
                "left": totals, "sealing_later": count, "sealing_later_paths": paths,
            }
        )  # fmt: skip
        return
    output.say(f"{output.show_name(str(point))}: {outcome}" if point is not None else outcome)
    if count:
        names = _listed(paths, count)
        lines.insert(
            0, f"the hashing of {count:,} large {'file' if count == 1 else 'files'}{': ' * bool(names)}{names}"
        )
    if lines:
        output.say(f"the next mount goes on with {'; '.join(lines)}", style="yellow")


def _listed(paths: list[str], count: int) -> str:
    """Return the names of *count* files, as far as they are known."""
    names = ", ".join(map(output.show_name, paths))
    return f"{names} and {count - len(paths):,} more" if paths and count > len(paths) else names


def _stop(
    mount: Mount | None, root: Path, *, force: bool, timeout_s: float, aloud: bool, patience_s: float | None
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """End the daemon; returns what is left of the S3 queue by then, as `queue_of` does, and the answer to `stop`.

    *mount*: None if it is not to be seen here. *patience_s*: open files are waited for so long, and then keep
    nobody from the end; None: they do.
    """
    what = f"the daemon of {root}" if mount is None else str(mount.mount_point)
    socket = root / INTERNAL_DIR / "control.sock"
    client, asking = ControlClient(socket, max(timeout_s, _ANSWER_S)), ControlClient(socket, _TELL_S + _ANSWER_S)
    say = output.say if aloud else _say_nothing
    teller = Teller(say)
    waits_for: list[str] = []

    def tell(*, troubled: bool = False) -> None:
        try:
            status = asking.call("status")
        except RecfsError:
            return  # it is about to end
        trouble = (status.get("pipeline") or {}).get("problem")
        waits_for[:] = of_status(status) + [_WAY_OUT] * bool(trouble)
        if trouble or not troubled:
            teller.tell(waits_for)

    deadline = time.monotonic() + timeout_s
    left = None
    still_open: list[dict[str, Any]] = []
    try:
        if patience_s is not None:
            still_open = service.wait_until_closed(asking, min(patience_s, timeout_s), say)
            deadline = max(deadline, time.monotonic() + _GRACE_S)
            force = True
        status = client.call("status")
        has_queue = status.get("s3") is not None and (force or not status["open_files"])
        if has_queue:
            left = _upload_first(asking, deadline, teller)
            deadline = max(deadline, time.monotonic() + _GRACE_S)
        # Taken before the daemon is asked to go, so that the number cannot be another process's by then.
        with _process(client.peer_pid()) as pidfd:
            try:
                later = client.call("stop", force=force, uploads=not has_queue)
            except Busy as exc:
                raise MountError(_still_open(client, str(exc))) from exc
            if still_open:
                say(f"it ends although {service.names_of(still_open)} open: {_STAYS_OPEN}")
            tell(troubled=True)
            if not _wait_gone(mount, root, pidfd, deadline, tell):
                waiting = f"; it waits for {'; '.join(waits_for)}" if waits_for else ""
                raise MountError(
                    f"{what} is not gone after {timeout_s:g} s; the daemon goes on committing{waiting}; "
                    f"`recfs status` shows how far it is, a longer --timeout waits longer"
                )
    except DaemonNotRunning as exc:
        if mount is None:
            raise MountError(f"{what} does not listen any more: it ended meanwhile") from exc
        raise MountError(
            f"{mount.mount_point} is mounted, but its daemon does not listen on {root / INTERNAL_DIR}; "
            f"`fusermount3 -u {mount.mount_point}` makes it end"
        ) from exc
    if mount is not None and mount_on(mount.mount_point) == mount:
        clear_dead_mount(mount.mount_point)
        if not signed_off(root):
            raise MountError(
                f"the daemon of {mount.mount_point} died while it stopped; the dead mount was cleared. "
                f"The next `recfs mount` recovers the store"
            )
    return left, later


def _upload_first(asking: ControlClient, deadline: float, teller: Teller) -> dict[str, Any] | None:
    """Wait for the uploads while everything still works; returns what is left of the queue."""
    while True:
        slice_s = max(0.0, min(_TELL_S, deadline - time.monotonic()))
        result = asking.call("drain", timeout_s=slice_s, retries=False)
        if not result["pending"] or time.monotonic() >= deadline:
            return queue_of(asking.call("status"))
        teller.tell(lines_of(result.get("left", {})))


def _still_open(client: ControlClient, refusal: str) -> str:
    """Return the refusal to stop, with the open files when the daemon's message does not name them."""
    open_files: list[dict[str, Any]] = client.call("status").get("open_files", [])
    names = [output.show_name(file["path"]) for file in open_files]
    if all(name in refusal for name in names):
        return f"{refusal}\nclose them, or use --force"
    count = f"{output.number_of(len(names), 'file')} {'is' if len(names) == 1 else 'are'} open"
    more = f"\n  and {len(names) - _NAMED:,} more: `recfs status` names them" if len(names) > _NAMED else ""
    listed = "".join(f"\n  {name}" for name in names[:_NAMED])
    return f"{count}:{listed}{more}\nclose them, or use --force"


@contextlib.contextmanager
def _process(pid: int) -> Iterator[int | None]:
    """Give a pidfd, or None for a process that is gone or in another pid namespace (0)."""
    try:
        pidfd = os.pidfd_open(pid) if pid > 0 else None
    except ProcessLookupError:
        pidfd = None
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _wait_gone(mount: Mount | None, root: Path, pidfd: int | None, deadline: float, tell: Callable[[], None]) -> bool:
    """Wait until the daemon has ended, or without a pidfd until the mount is gone; False when time is up.

    With neither, until nobody holds the store.

    *tell* is called now and then: somebody waits with us.
    A daemon that has ended may leave its mount behind: the caller looks.
    """
    # proc_pid_mountinfo(5): the open file polls as POLLPRI after every change of the mount table.
    with open(MOUNTINFO, "rb") as table:
        poll = select.poll()
        if pidfd is not None:
            poll.register(pidfd, select.POLLIN)
        else:
            poll.register(table, select.POLLPRI)
        while (left_s := deadline - time.monotonic()) > 0:
            if pidfd is None and (holder(root) is None if mount is None else mount_on(mount.mount_point) != mount):
                return True
            events = poll.poll(min(left_s, _TELL_S if pidfd is not None or mount is not None else _LOOK_S) * 1000)
            if events and pidfd is not None:
                return True
            if not events and left_s > _TELL_S:
                tell()
    return False
