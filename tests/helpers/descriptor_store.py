"""The part of systemd that keeps descriptors for a service (sd_notify(3), FDSTORE=1), for daemons of the harness.

`DescriptorStore.prefix` is a command that execs a daemon as its service manager would: with $NOTIFY_SOCKET, $FDSTORE,
and what was kept before as $LISTEN_FDS. Everything else it says goes on to the socket that the harness listens on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path

ROOM = 64
_FIRST = 3
_HIGH = 200
"""Descriptors are put there first, out of the way of the places they go to."""


class DescriptorStore:
    """Keeps descriptors by name until it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept: dict[str, int] = {}
        self._harness = ""
        self._lock = threading.Lock()
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "store"))
        self._asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked.bind(str(folder / "take"))
        self._asked.listen()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._listen, self._serve)]
        for each in self._threads:
            each.start()

    @property
    def prefix(self) -> list[str]:
        """What starts the daemon that is named by the arguments after it."""
        return [sys.executable, "-S", "-E", __file__, str(self._folder)]

    def _listen(self) -> None:
        while True:
            state, fds, _, _ = socket.recv_fds(self._told, 4096, 16)
            if state == b"end":
                return
            lines = dict(line.split("=", 1) for line in state.decode().splitlines())
            name = lines.get("FDNAME", "")
            with self._lock:
                if "FDSTORE" in lines:
                    self.kept[name] = fds[0]
                elif "FDSTOREREMOVE" in lines:
                    self._drop(name)
                elif self._harness:
                    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as harness:
                        harness.sendto(state, self._harness)

    def _drop(self, name: str) -> None:
        fd = self.kept.pop(name, None)
        if fd is not None:
            os.close(fd)

    def _serve(self) -> None:
        while True:
            peer, _ = self._asked.accept()
            with peer:
                harness = peer.recv(4096).decode()
                if harness == "end":
                    return
                with self._lock:
                    self._harness = harness
                    socket.send_fds(peer, [json.dumps(list(self.kept)).encode()], list(self.kept.values()))

    def close(self) -> None:
        """Let go of everything; a mount that is kept so is dead then."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(b"end", str(self._folder / "store"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ask:
            ask.connect(str(self._folder / "take"))
            ask.send(b"end")
        for each in self._threads:
            each.join(20)
        self._told.close()
        self._asked.close()
        for name in list(self.kept):
            self._drop(name)


def _exec(folder: str, command: list[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ask:
        ask.connect(f"{folder}/take")
        ask.send(os.environ["NOTIFY_SOCKET"].encode())
        told, fds, _, _ = socket.recv_fds(ask, 4096, ROOM)
    names = json.loads(told)
    os.environ |= {"NOTIFY_SOCKET": f"{folder}/store", "FDSTORE": str(ROOM)}
    for number, fd in enumerate(fds):
        os.dup2(fd, _HIGH + number)
        os.close(fd)
    for number in range(len(fds)):
        os.dup2(_HIGH + number, _FIRST + number, inheritable=True)
        os.close(_HIGH + number)
    if names:
        os.environ |= {
            "LISTEN_FDS": str(len(names)),
            "LISTEN_FDNAMES": ":".join(names),
            "LISTEN_PID": str(os.getpid()),
        }
    os.execvp(command[0], command)


if __name__ == "__main__":
    _exec(sys.argv[1], sys.argv[2:])
