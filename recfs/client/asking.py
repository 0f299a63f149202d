"""Asking a daemon by its socket: one line of JSON for each question and each answer, one connection each.

This is `recfs/api/client.py` once more, for programs that load nothing of the daemon: with its own errors, and with a
way to give a question up from another thread.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from recfs.client.errors import CursorLost, DaemonRefused, DaemonUnreachable, NotAMount
from recfs.client.places import default_root, store_root

SILENCE_S: Final = 30.0
_SUN_PATH_BYTES: Final = 107
_ANSWER_BYTES: Final = 256 << 20


def socket_of(where: str | os.PathLike[str] | None) -> Path:
    """Give the socket of a daemon: *where* itself, or the store's own of a path of its mount; None: of the only mount.

    Raises NotAMount and OSError.
    """
    path = Path(default_root() if where is None else where)
    if stat.S_ISSOCK(path.stat().st_mode):
        return path
    root = store_root(path)
    if root is None:
        raise NotAMount(f"{path} is no recfs mount and no socket: there is no daemon that would answer")
    return root / ".recfs" / "control.sock"


class Question:
    """One question to a daemon at a time, and a way to give it up from another thread."""

    def __init__(self, path: Path, patience_s: float = SILENCE_S) -> None:
        """*patience_s*: how long the daemon may be silent, besides a `wait_s` that it is asked to wait."""
        self._path = path
        self._patience_s = patience_s
        self._open: socket.socket | None = None
        self._stopped = False

    def stop(self) -> None:
        """Give it up: `ask` ends with DaemonUnreachable."""
        self._stopped = True
        sock = self._open
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Give the answer. Raises DaemonUnreachable, DaemonRefused."""
        line = json.dumps({"method": method, "params": params}, separators=(",", ":")).encode("ascii") + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            self._open = sock
            sock.settimeout(float(params.get("wait_s", 0.0)) + self._patience_s)
            try:
                _at_address(self._path, sock.connect)
                if self._stopped:
                    raise DaemonUnreachable("given up")
                with suppress(BrokenPipeError, ConnectionResetError):  # a refusal may come before all was sent
                    sock.sendall(line)
                answer = _line(sock)
            except OSError as error:
                if isinstance(error, DaemonUnreachable):
                    raise
                raise DaemonUnreachable(
                    f"the daemon on {self._path} does not answer: {error.strerror or error}"
                ) from error
            finally:
                self._open = None
        return self._result(answer)

    def _result(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
            if answer["ok"]:
                result: dict[str, Any] = answer["result"]
                return result
            kind, message = str(answer["error"]["kind"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise DaemonUnreachable(f"what answers on {self._path} is no recfs daemon") from error
        raise (CursorLost if kind == "CursorLost" else DaemonRefused)(kind, message)


def _at_address(path: Path, connect: Callable[[str], None]) -> None:
    """Connect to a socket whose path may be longer than sockaddr_un has room for (unix(7))."""
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
        connect(str(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _line(sock: socket.socket) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while not chunks or not chunks[-1].endswith(b"\n"):
        chunk = sock.recv(1 << 20)
        size += len(chunk)
        if not chunk or size > _ANSWER_BYTES:
            raise ConnectionResetError(errno.ECONNRESET, "it broke off")
        chunks.append(chunk)
    return b"".join(chunks)


__all__ = ["SILENCE_S", "Question", "socket_of"]
