"""Starting the daemon in the background, and knowing when it is ready or why it is not.

The child reports through an sd_notify socket (sd_notify(3)), as it would to systemd: one protocol for
readiness. Its stderr goes to the log: its last message there is what the parent repeats when it dies early, and
the class of its error comes by the socket (`failure_notified`).
"""

import contextlib
import errno
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

import recfs
from recfs.cli.common.exits import ChildFailed, ExitCode
from recfs.core.naming import show_name
from recfs.errors import MountError, StoreError

_MESSAGE_PREFIX = "recfs: "
_KIND = "X_RECFS_ERROR"
"""Variable of a notification that says why the daemon does not start. sd_notify(3) leaves "X_" to its users."""
_TAIL_BYTES = 16384
_TAIL_LINES = 10
_STOP_S = 10.0
_QUIET_S = 5.0
"""So long a start takes before that is told."""


@contextlib.contextmanager
def failure_notified() -> Iterator[None]:
    """In the daemon: let whoever waits for READY=1 know the class of what is raised instead."""
    try:
        yield
    except Exception as error:
        if "NOTIFY_SOCKET" in os.environ:
            import sdnotify

            sdnotify.SystemdNotifier().notify(f"{_KIND}={type(error).__name__}")
        raise


def start_detached(command: Sequence[str], log: Path, *, timeout_s: float, new_session: bool = True) -> int:
    """Start `command` in a session of its own and return its pid once it has said READY=1.

    Without *new_session* it leaves the session of this process itself.

    Raises ChildFailed with its message and exit code when it ends before, MountError when it is not ready in
    time (it is stopped then), StoreError when the log cannot be written.
    """
    with _log_file(log) as log_fd, _notify_socket() as (receiver, address):
        began_at = os.fstat(log_fd).st_size
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=new_session,
            env=os.environ | import_path() | {"NOTIFY_SOCKET": address},
        )
        try:
            is_over, kind = _wait_ready(child, receiver, timeout_s, log)
            if not is_over:
                raise MountError(
                    f"the daemon was not ready within {timeout_s:g} s and was stopped; its log is {log}; "
                    f"a longer --start-timeout gives it more time"
                )
        except BaseException:
            _stop(child)
            raise
        if child.returncode is not None:
            raise _failure(child.returncode, log, began_at, kind)
        # It outlives this process; without this, Popen's destructor would warn of a child still running.
        child.returncode = 0
        return child.pid


def import_path() -> dict[str, str]:
    """Let the child find recfs when it runs from a source tree that was never installed."""
    from importlib import metadata

    try:
        metadata.distribution("recfs")
    except metadata.PackageNotFoundError:
        tree = str(Path(recfs.__file__).parents[1])
        return {"PYTHONPATH": os.pathsep.join(filter(None, (tree, os.environ.get("PYTHONPATH"))))}
    return {}


def _wait_ready(
    child: "subprocess.Popen[bytes]", receiver: socket.socket, timeout_s: float, log: Path
) -> tuple[bool, str | None]:
    """Wait for READY=1 or the child's end (its returncode is set then); False when time is up.

    Also returns the class of the error that ended it, if it told. Says so on standard error when that takes a while.
    """
    kind = None
    began = time.monotonic()
    deadline, is_quiet = began + timeout_s, True
    pidfd = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(receiver, selectors.EVENT_READ)
            selector.register(pidfd, selectors.EVENT_READ)
            while (left_s := deadline - time.monotonic()) > 0:
                ready = {key.fileobj for key, _events in selector.select(min(left_s, _QUIET_S) if is_quiet else left_s)}
                if is_quiet and time.monotonic() - began >= _QUIET_S:
                    is_quiet = False
                    click.echo(
                        f"recfs: the daemon is not ready yet; {show_name(str(log))} tells what it does", err=True
                    )
                # Messages first: a daemon that was ready and then ended did start.
                told = receiver.recv(4096).decode("utf-8", "replace").splitlines() if receiver in ready else []
                if "READY=1" in told:
                    return True, None
                kind = next((line.partition("=")[2] for line in told if line.startswith(f"{_KIND}=")), kind)
                if pidfd in ready and receiver not in ready:
                    child.wait()
                    return True, kind
        return False, kind
    finally:
        os.close(pidfd)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _failure(returncode: int, log: Path, began_at: int, kind: str | None) -> ChildFailed:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return ChildFailed(f"the daemon was ended by {name} before it was ready; see {log}", ExitCode.MOUNT)
    return ChildFailed(_last_message(log, began_at), returncode or ExitCode.MOUNT, kind)


def _last_message(log: Path, began_at: int) -> str:
    with contextlib.suppress(OSError), open(log, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(began_at, end - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith(_MESSAGE_PREFIX)]
        if starts:
            return "\n".join(lines[starts[-1] :]).removeprefix(_MESSAGE_PREFIX)
        if lines:
            return "the daemon ended before it was ready:\n" + "\n".join(lines[-_TAIL_LINES:])
    return f"the daemon ended before it was ready and left no message; its log is {log}"


@contextlib.contextmanager
def _log_file(log: Path) -> Iterator[int]:
    """Open the log for appending, making its directory; unmake both when all they hold is a failed start."""
    private = (log.parent, log.parent.parent) if log.parent.name == ".recfs" else ()  # a store that is new
    made = [parent for parent in (log.parent, *log.parent.parents) if not parent.exists()]
    try:
        for parent in reversed(made):
            parent.mkdir(mode=0o700 if parent in private else 0o755)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as exc:
        refused = isinstance(exc, PermissionError) or exc.errno == errno.EROFS
        remedy = "use a root this user may write, or --log-file" if refused else "name another with --log-file"
        raise StoreError(f"cannot write the log {log}: {exc.strerror}; {remedy}") from exc
    try:
        yield fd
    except ChildFailed as exc:
        # A message that does not send its reader to the log has said all of it.
        if made and str(log) not in exc.message and os.listdir(log.parent) == [log.name]:
            log.unlink()
            with contextlib.suppress(OSError):
                for parent in made:
                    parent.rmdir()
        raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _notify_socket() -> Iterator[tuple[socket.socket, str]]:
    # A file in a private directory, not an abstract name: nobody else can say READY=1 to it.
    with (
        tempfile.TemporaryDirectory(prefix="recfs-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as receiver,
    ):
        address = os.path.join(directory, "notify")
        receiver.bind(address)
        yield receiver, address
