"""systemd's journal as a second place of the audit log: its native protocol, one datagram for each act.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: a field is NAME=value and a newline, or, where the value may hold newlines,
NAME, a newline, the length as 64 bits little-endian, the value and a newline. Nothing is waited for: what the journal
does not take at once is dropped and counted.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from recfs.core.observing.acts import act_line

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.core.observing.acts import Act

IDENTIFIER: Final = "recfs-audit"
"""`journalctl -t` of it shows the acts."""
_INFO: Final = "6"
_LENGTH: Final = struct.Struct("<Q")


def entry(fields: dict[str, bytes]) -> bytes:
    """Give the datagram of an entry."""
    parts = []
    for name, value in fields.items():
        key = name.encode("ascii")
        is_plain = b"\n" not in value
        parts.append(b"%b=%b\n" % (key, value) if is_plain else b"%b\n%b%b\n" % (key, _LENGTH.pack(len(value)), value))
    return b"".join(parts)


def fields_of(act: Act) -> dict[str, bytes]:
    """Give the fields of an act: its line, and what one looks for, each by itself (`journalctl RECFS_UID=1000`)."""
    line, result = act_line(act).rstrip("\n"), act.result
    if isinstance(result, int):
        result = errno.errorcode.get(result, str(result)) if result else "ok"
    return {
        "MESSAGE": line.encode("ascii"),
        "PRIORITY": _INFO.encode("ascii"),
        "SYSLOG_IDENTIFIER": IDENTIFIER.encode("ascii"),
        "RECFS_OP": act.op.encode("utf-8"),
        "RECFS_PATH": act.path,
        "RECFS_UID": str(act.uid).encode("ascii"),
        "RECFS_PID": str(act.pid).encode("ascii"),
        "RECFS_RESULT": result.encode("utf-8"),
    }


class JournalSocket:
    """Sends entries to the journal; used by one thread at a time."""

    def __init__(self, address: Path) -> None:
        self._address = os.fspath(address)
        self._socket: socket.socket | None = None
        self.sent = 0
        self.dropped = 0
        """Since the start."""
        self.problem: str | None = None
        """What the journal said last, while it takes nothing."""

    def send(self, acts: list[Act]) -> None:
        """Send them; what is not taken at once is counted. Never waits, and raises nothing."""
        for act in acts:
            try:
                self._send(entry(fields_of(act)))
            except OSError as error:
                self.dropped += 1
                self.problem = f"{self._address}: {error.strerror}"
                self.close()
            else:
                self.sent += 1
                self.problem = None

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._socket.connect(self._address)
        self._socket.send(datagram)

    def close(self) -> None:
        """Leave it; the next entry connects anew, as after a restart of the journal."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def as_json(self) -> dict[str, int | str | None]:
        """For `recfs status`."""
        return {"sent": self.sent, "dropped": self.dropped, "problem": self.problem}


__all__ = ["IDENTIFIER", "JournalSocket", "entry", "fields_of"]
