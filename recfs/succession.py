"""From one daemon to the next: how a running daemon starts its successor, and what passes between the two.

The successor is the same command, from the files that lie on the disk now. It says when it is prepared (everything is
imported, the configuration read); only then is the mount held up. Between "ready" and "go" it has everything and has
answered nobody: until it is told to go, the old daemon can take the mount back, and does so when anything fails.

    old ──► new   whose: root and mount point         new ──► old   prepared
    old ──► new   the table (a memfd) and descriptors new ──► old   ready
    old ──► new   go
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio

from recfs.config import TAKE_OVER
from recfs.errors import MountError, StoreError
from recfs.fs.handover import kept_files
from recfs.fs.handover.inheritance import Inheritance
from recfs.fs.handover.open_files import with_descriptors
from recfs.fuse.acceleration import Acceleration
from recfs.fuse.passthrough import Inherited
from recfs.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VARIABLE = TAKE_OVER
"""Names the successor's end of the socket."""
PREPARE_S = 120.0
"""How long a successor may take until it is prepared; the mount is served meanwhile."""
READY_S = 60.0
"""How long it may take from then on. Requests wait for it."""
_AT_ONCE = 200
"""Descriptors in a message; the kernel takes 253 (SCM_MAX_FD)."""
_LINE_BYTES = 1 << 16


@dataclass(slots=True)
class Legacy:
    """What a daemon leaves to the next one on the same mount, besides the store."""

    session: Inherited
    files: Inheritance
    mount: dict[str, Any]
    """Which mount it is (`OwnMount.told`)."""
    lock_fd: int = -1
    """The open file that has the root's lock; -1 where it died with the daemon."""
    ledger: Ledger | None = None
    """What is said of open files and requests, should the daemon die."""
    died: bool = False
    """Whether it did: then `files` is empty, and the ledger has them. So it is where it ended and left its mount."""
    left_in_order: bool = False
    """Whether it ended of its own will, with nothing of it under way."""
    nameless: dict[int, kept_files.Nameless] = field(default_factory=dict)
    """In that case: files that had lost their name, by inode number."""

    @property
    def writing(self) -> frozenset[int]:
        """Inode numbers of the files that are open for writing."""
        if self.died and self.ledger is not None:
            return kept_files.writing(self.ledger)
        return self.files.writing

    def session_as_json(self) -> dict[str, Any]:
        """The mount, for another process, which has the descriptors."""
        session = self.session
        return {
            "request": base64.b64encode(session.request).decode("ascii"),
            "answer": base64.b64encode(session.answer).decode("ascii"),
            "acceleration": asdict(session.acceleration),
            "given_up": session.given_up,
            "mount": self.mount,
        }

    @classmethod
    def of_session(cls, told: dict[str, Any], device: int) -> Legacy:
        """The reverse, without open files. Raises KeyError, TypeError or ValueError when it is not understood."""
        session = Inherited(
            device, base64.b64decode(told["request"]), base64.b64decode(told["answer"]),
            Acceleration(**told["acceleration"]), bool(told["given_up"]),
        )  # fmt: skip
        return cls(session, Inheritance(), dict(told["mount"]))

    @classmethod
    def of_the_dead(cls, device: int, ledger_fd: int) -> Legacy:
        """What a daemon left that died. Raises StoreError when it is not understood, or it had not begun."""
        try:
            ledger = Ledger(ledger_fd)
            legacy = cls.of_session(json.loads(ledger.session()), device)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"what the daemon that died left is not understood: {error}") from error
        legacy.session = replace(legacy.session, given_up=True)
        legacy.ledger, legacy.died = ledger, True
        return legacy

    def send(self, channel: socket.socket) -> None:
        """Pass it on; what is kept here stays good. Raises OSError."""
        ledger = [self.ledger.fd] if self.ledger is not None else []
        fds = [self.session.device, self.lock_fd, *ledger, *(body.fd for body in self.files.bodies)]
        told = self.session_as_json() | {"files": self.files.as_json(), "has_ledger": bool(ledger)}
        table = os.memfd_create("recfs-table", os.MFD_CLOEXEC)
        with open(table, "wb", buffering=0) as file:
            file.write(json.dumps(told).encode("ascii"))
            socket.send_fds(channel, [json.dumps({"descriptors": len(fds)}).encode("ascii")], [table])
        for start in range(0, len(fds), _AT_ONCE):
            socket.send_fds(channel, [b"{}"], fds[start : start + _AT_ONCE])

    @classmethod
    def receive(cls, channel: socket.socket) -> Legacy:
        """What `send` sent. Raises MountError or StoreError where there is none, or it is not understood."""
        line, (table,) = _received(channel)
        with open(table, "rb") as file:
            file.seek(0)
            told = json.load(file)
        fds: list[int] = []
        while len(fds) < int(line["descriptors"]):
            fds += _received(channel)[1]
        try:
            device, lock_fd, *bodies = fds
            legacy = cls.of_session(told, device)
            legacy.lock_fd = lock_fd
            if told["has_ledger"]:
                legacy.ledger = Ledger(bodies.pop(0))
            legacy.files = with_descriptors(Inheritance.from_json(told["files"]), bodies)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"what the earlier daemon left is told in a way that is not understood: {error}") from None
        return legacy


def _received(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A message and the descriptors that came with it. Raises MountError at the end, TimeoutError."""
    line, fds, _, _ = socket.recv_fds(channel, _LINE_BYTES, _AT_ONCE)
    for fd in fds:
        os.set_inheritable(fd, False)
    if not line:
        raise MountError("the other daemon is gone")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise MountError("the other daemon says something else than was agreed on")
    return found, fds


def _say(channel: socket.socket, **what: object) -> None:
    channel.send(json.dumps(what).encode("ascii"))


# --- the old daemon --------------------------------------------------------------------------------------------------


class Successor:
    """The process that is to go on with the mount, as its predecessor sees it."""

    def __init__(self, command: Sequence[str], root: Path, mountpoint: Path) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                # The service manager's watchdog is for whoever is the main process.
                env={key: value for key, value in os.environ.items() if key != "WATCHDOG_PID"}
                | {VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                cwd="/",
            )
        _say(self._channel, root=str(root), mountpoint=str(mountpoint))

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    async def prepared(self) -> None:
        """Wait until it could go on at once. Raises MountError when it cannot."""
        with contextlib.suppress(trio.TooSlowError):
            with trio.fail_after(PREPARE_S):
                await trio.lowlevel.wait_readable(self._channel)
            self._heard("prepared", 1.0)
            return
        raise MountError(f"the new daemon (process {self.pid}) was not prepared within {PREPARE_S:g} s")

    def _heard(self, what: str, timeout_s: float) -> None:
        """Wait until it says so. Raises MountError when it says something else, or ends."""
        self._channel.settimeout(timeout_s)
        try:
            line, _ = _received(self._channel)
        except (OSError, ValueError, MountError):
            line = {}
        if not line.get(what):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            code = self._process.poll()
            ended = f"ended with exit code {code}" if code is not None else f"did not come to be {what}"
            raise MountError(f"the new daemon (process {self.pid}) {ended}; the log tells why")

    def give(self, legacy: Legacy) -> None:
        """Leave everything to it, and return when it has all. Blocks. Raises MountError: then nothing is left."""
        try:
            legacy.send(self._channel)
        except OSError as error:
            raise MountError(f"the new daemon (process {self.pid}) took nothing over: {error.strerror}") from error
        self._heard("ready", READY_S)

    def go(self) -> None:
        """It is the daemon from here on. Raises nothing: it goes on, too, when this process dies."""
        with contextlib.suppress(OSError):
            _say(self._channel, go=True)
        self._channel.close()
        self._process.returncode = 0  # it outlives this process

    def call_off(self) -> None:
        """End it; what it was given is this process's again. Blocks for a moment."""
        self._process.kill()
        self._process.wait()
        self._channel.close()


# --- the new one -----------------------------------------------------------------------------------------------------


class Predecessor:
    """The daemon that leaves its mount to this process."""

    def __init__(self, fd: int) -> None:
        """*fd*: this process's end of the socket."""
        os.set_inheritable(fd, False)
        self._channel = socket.socket(fileno=fd)

    def legacy(self, root: Path, mountpoint: Path) -> Legacy:
        """Say that this process is prepared, and wait for what is left to it. Blocks. Raises RecfsError."""
        self._channel.settimeout(PREPARE_S)
        try:
            whose, _ = _received(self._channel)
            if (whose.get("root"), whose.get("mountpoint")) != (str(root), str(mountpoint)):
                raise MountError(
                    f"the running daemon serves {whose.get('root')} on {whose.get('mountpoint')}, and the configuration"
                    f" now says {root} on {mountpoint}; unmount, and mount again"
                )
            _say(self._channel, prepared=True)
            return Legacy.receive(self._channel)
        except (OSError, ValueError) as error:
            raise MountError(f"the running daemon leaves nothing to this one: {error}") from error

    def ready(self) -> None:
        """Say that everything is there, and wait to be told to go. Blocks. Raises MountError when it is not told."""
        try:
            _say(self._channel, ready=True)
            self._channel.settimeout(READY_S)
            _received(self._channel)
        except MountError:
            pass  # it died: there is nobody else
        except OSError as error:
            raise MountError(f"the running daemon does not let this one begin: {error}") from error
        finally:
            self._channel.close()


def predecessor() -> Predecessor | None:
    """The daemon that started this process to go on with its mount, if one did."""
    told = os.environ.pop(VARIABLE, "")
    return Predecessor(int(told)) if told.isdecimal() else None


__all__ = ["Legacy", "Predecessor", "Successor", "predecessor"]
