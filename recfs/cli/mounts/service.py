"""`recfs umount --unit`: how the unit of a store ends, as systemd wants it (ExecStop=)."""

import contextlib
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recfs.api.client import ControlClient
from recfs.cli.common import output
from recfs.cli.common.last_daemon import holder
from recfs.cli.common.store import INTERNAL_DIR
from recfs.errors import DaemonNotRunning, MountError, RecfsError

CLOSE_S = 10.0
"""So long a stop waits for files to be closed: programs may be ending, too."""
_ANSWER_S = 15.0
_LEAVE_S = 90.0
"""How long a daemon may take to leave its mount: it waits 30 s for what it moves, and 30 s for S3."""
_END_S = 20.0
"""How long its end may take from then on: requests wait, and nothing is lost with it any more."""
_SYSTEMD_S = 10.0
_UPGRADE_S = 90.0
"""So long a restart waits until `recfs upgrade` is over."""
_KEPT = 2
"""So many descriptors a kept mount takes (recfs/kept_mount.py): the kernel's, and the ledger."""
_LOOK_S = 0.1
_NAMED = 10


def is_restarted(unit: str) -> bool:
    """Whether systemd ends *unit* in order to start it again, has its mount, and takes no disk away meanwhile.

    A disk below the store may be what is restarted, and this unit with it: it cannot go while files on it are open.
    False where systemd does not say.
    """
    listed = _said("list-jobs", "--no-legend", "--no-pager", "--full")
    jobs = [words[1:3] for line in listed.splitlines() if len(words := line.split()) >= 3]
    takes_a_disk = any(name.endswith(".mount") and kind in ("stop", "restart") for name, kind in jobs)
    if [unit, "restart"] not in jobs or takes_a_disk:
        return False
    kept = _said("show", "--value", "--property=NFileDescriptorStore", unit).strip()
    return kept.isdecimal() and int(kept) >= _KEPT


def _said(*arguments: str) -> str:
    """What systemctl(1) says; nothing where it fails."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, timeout=_SYSTEMD_S, check=True
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def is_there_to_leave(client: ControlClient, root: Path, say: Callable[[str], object]) -> bool:
    """Wait until no `recfs upgrade` is under way; whether a daemon serves *root* then.

    Whoever goes on with the mount can leave it, too. Between the two nobody listens, and the store is held.
    """
    deadline = time.monotonic() + _UPGRADE_S
    told = False
    while True:
        try:
            is_free = not client.call("upgraded").get("under_way")
        except DaemonNotRunning:
            if holder(root) is None or time.monotonic() >= deadline:
                return False
        except RecfsError:
            return False  # whoever unmounts is told the same
        else:
            if is_free or time.monotonic() >= deadline:
                return True
            if not told:
                say(f"{root}: waiting up to {_UPGRADE_S:.0f} s until `recfs upgrade` is over")
                told = True
        time.sleep(_LOOK_S)


def leave(root: Path, process: int | None, say: Callable[[str], object]) -> bool:
    """Have the daemon of *root* end, and leave its mount to the one that systemd starts next; False, and told, if not.

    *process*: a pidfd of it. Raises MountError when it does not end, not even killed.
    """
    client = ControlClient(root / INTERNAL_DIR / "control.sock", _LEAVE_S)
    try:
        client.call("leave")
    except RecfsError as error:
        say(f"it is unmounted, and mounted again: {error}")
        return False
    if process is not None and not _ends(process, _END_S):
        say(f"the daemon of {root} has left its mount, and does not end: it is killed")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        if not _ends(process, _END_S):
            raise MountError(f"the daemon of {root} cannot be killed: it waits for a disk, perhaps")
    say(f"{root}: the mount stays, for the daemon that is started next")
    return True


def _ends(process: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def wait_until_closed(client: ControlClient, timeout_s: float, tell: Callable[[str], object]) -> list[dict[str, Any]]:
    """Wait until no file is open, for *timeout_s* at most; those that are. Raises RecfsError."""
    deadline = time.monotonic() + timeout_s
    told = False
    while opened := list(client.call("status").get("open_files", [])):
        if time.monotonic() >= deadline:
            break
        if not told and timeout_s > 0:
            tell(f"waiting up to {timeout_s:.0f} s until {names_of(opened)} closed")
            told = True
        time.sleep(_LOOK_S)
    return opened


def names_of(opened: list[dict[str, Any]]) -> str:
    """Such as "2 files are (a, b)", for people."""
    names = ", ".join(output.show_name(str(file["path"])) for file in opened[:_NAMED])
    more = f" and {len(opened) - _NAMED:,} more" if len(opened) > _NAMED else ""
    return f"{output.number_of(len(opened), 'file')} {'is' if len(opened) == 1 else 'are'} ({names}{more})"


__all__ = ["CLOSE_S", "is_restarted", "is_there_to_leave", "leave", "names_of", "wait_until_closed"]
