"""The part of systemd that keeps descriptors for a service (sd_notify(3), FDSTORE=1), for daemons of the harness.

`DescriptorStore.hand_over` says what a daemon is started with by its service manager: $NOTIFY_SOCKET, $FDSTORE, and
what was kept before as $LISTEN_FDS. Everything else the daemon says goes on to the socket that the harness listens on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

ROOM = 64


class DescriptorStore:
    """Keeps descriptors by name until it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept: dict[str, int] = {}
        self._harness = ""
        self._lock = threading.Lock()
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "store"))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def hand_over(self, harness: str) -> tuple[dict[str, str], list[int]]:
        """Environment and descriptors of a daemon that starts now; *harness* is the socket it would tell else.

        The descriptors are its 3, 4 and so on. $LISTEN_PID is for whoever starts it to say.
        """
        with self._lock:
            self._harness = harness
            env = {"NOTIFY_SOCKET": str(self._folder / "store"), "FDSTORE": str(ROOM)}
            if self.kept:
                env |= {"LISTEN_FDS": str(len(self.kept)), "LISTEN_FDNAMES": ":".join(self.kept)}
            return env, list(self.kept.values())

    def _listen(self) -> None:
        while True:
            state, fds, _, _ = socket.recv_fds(self._told, 4096, 16)
            if state == b"end":
                return
            lines = dict(line.split("=", 1) for line in state.decode().splitlines())
            name = lines.get("FDNAME", "")
            with self._lock:
                if "BARRIER" in lines:
                    os.close(fds[0])
                elif "FDSTORE" in lines:
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

    def close(self) -> None:
        """Let go of everything; a mount that is kept so is dead then."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(b"end", str(self._folder / "store"))
        self._thread.join(20)
        self._told.close()
        for name in list(self.kept):
            self._drop(name)
