"""The side of the control protocol (`control.py`) that asks: blocking, for the command line.

It loads nothing that a command would have to wait for.
"""

import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recfs import errors
from recfs.errors import ControlError, DaemonNotRunning, NotAllowed, RecfsError
from recfs.ports import object_errors

_SUN_PATH_BYTES = 107


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Give an address for `path` that fits sockaddr_un, which has room for 107 bytes (unix(7))."""
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def dump(value: Any) -> bytes:
    """A document of the protocol, in one line."""
    # ASCII output carries lone surrogates (names that are not UTF-8) as \udcXX escapes, and back.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _error_classes() -> dict[str, type[RecfsError]]:
    known = vars(errors) | vars(object_errors)
    return {name: cls for name, cls in known.items() if isinstance(cls, type) and issubclass(cls, RecfsError)}


class ControlClient:
    """Asks a daemon from outside; blocking, one connection per call, so there is nothing to close.

    `timeout_s` is the longest silence accepted, not the longest answer.
    """

    def __init__(self, socket_path: Path, timeout_s: float = 30.0) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s

    def call(self, method: str, /, **params: Any) -> Any:
        """Return the method's result.

        Raises DaemonNotRunning when nobody listens, ControlError when the daemon cannot be reached, stays
        silent or breaks off, and the handler's own RecfsError (same class and message) when it refuses.
        """
        request = dump({"method": method, "params": params}) + b"\n"
        with self._connect() as sock:
            try:
                # A refused connection or line is answered before it is read to the end: the answer counts.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(request)
                line = self._receive_line(sock)
            except TimeoutError:
                raise ControlError(
                    f"the daemon on {self._socket_path} did not answer {method} in {self._timeout_s:g} s"
                ) from None
            except OSError as exc:
                raise ControlError(f"lost the daemon on {self._socket_path}: {exc.strerror or exc}") from exc
        return self._result(method, line)

    def peer_pid(self) -> int:
        """Return the daemon's process id as seen from here, 0 when it is not visible. Raises as `call`."""
        with self._connect() as sock:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", raw)[0]
        return pid

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(self._timeout_s)
        try:
            with address_of(self._socket_path) as address:
                sock.connect(address)
        except OSError as exc:
            sock.close()
            raise self._unreachable(exc) from exc
        return sock

    def _unreachable(self, exc: OSError) -> ControlError:
        path = self._socket_path
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ENOTSOCK):
            return DaemonNotRunning(f"no recfs daemon listens on {path}")
        if isinstance(exc, PermissionError):
            return NotAllowed(f"not allowed to talk to the daemon on {path}: run this as its user or root")
        if isinstance(exc, TimeoutError | BlockingIOError):
            return ControlError(f"the daemon on {path} takes no connection; it may hang or be overloaded")
        return ControlError(f"cannot reach the daemon on {path}: {exc.strerror or exc}")

    @staticmethod
    def _receive_line(sock: socket.socket) -> bytes:
        chunks: list[bytes] = []
        while not chunks or not chunks[-1].endswith(b"\n"):
            chunk = sock.recv(1 << 20)
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "it closed the connection before answering")
            chunks.append(chunk)
        return b"".join(chunks)

    def _result(self, method: str, line: bytes) -> Any:
        try:
            answer = json.loads(line)
            if answer["ok"]:
                return answer["result"]
            kind, message = str(answer["error"]["kind"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError) as exc:
            message = f"the answer to `{method}` on {self._socket_path} makes no sense: {exc}"
            raise ControlError(message) from exc
        cls = _error_classes().get(kind)
        raise cls(message) if cls is not None else ControlError(f"{kind}: {message}")
