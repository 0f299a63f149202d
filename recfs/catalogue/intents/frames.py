"""How an entry of the intent log stands in a file: MessagePack behind a head with its number, length and checksum."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import msgpack

from recfs.core.life import Cause, Status
from recfs.core.model import Kind, State
from recfs.ports.batch import Batch
from recfs.ports.intents import ROWS, TOTALS, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HEAD: Final = struct.Struct("<QQII")
"""Epoch, number, length of what follows, and the CRC-32 of all that."""
_SEED: Final = struct.Struct("<QQI")
_HEX: Final = 16

_WORDS: Final[dict[tuple[str, str], Callable[[Any], Any]]] = {
    ("nodes", "kind"): Kind, ("nodes", "state"): State, ("garbage", "kind"): Kind, ("trash", "kind"): Kind,
    ("life", "status"): Status, ("life", "expired_by"): Cause,
}  # fmt: skip
"""Columns that hold a member of an enumeration, which MessagePack writes as its word."""
_WITHIN: Final = {("nodes", "placement"): "placement", ("objects", "copy"): "copy", ("recordings", "life"): "life"}
"""Columns that hold a row of their own."""

_pack: Final = msgpack.Packer(unicode_errors="surrogateescape").pack


def frame(epoch: int, number: int, entry: Entry) -> tuple[bytes, bytes]:
    """Head and body of an entry. Raises OverflowError, TypeError or ValueError for what MessagePack has no form for."""
    body: bytes = _pack(entry)
    crc = zlib.crc32(body, zlib.crc32(_SEED.pack(epoch, number, len(body))))
    return HEAD.pack(epoch, number, len(body), crc), body


def frames(content: bytes, epoch: int) -> Iterator[tuple[int, bytes]]:
    """Number and body of each entry of that epoch from the beginning of a file on, as far as they are whole."""
    place = 0
    while place + HEAD.size <= len(content):
        found, number, length, crc = HEAD.unpack_from(content, place)
        end = place + HEAD.size + length
        if found != epoch or end > len(content):
            return
        body = content[place + HEAD.size : end]
        if zlib.crc32(body, zlib.crc32(_SEED.pack(found, number, length))) != crc:
            return
        yield number, body
        place = end


def described(epoch: int) -> str:
    """What the catalogue keeps of a log, for who reads it (`LOG`): its epoch, and the columns of its rows."""
    return json.dumps({"epoch": f"{epoch:0{_HEX}x}", "rows": {name: row._fields for name, row in ROWS.items()}})


class Reader:
    """Reads entries that this or another version of recfs has written."""

    def __init__(self, description: str) -> None:
        """*description*: what `described` said then. Raises ValueError where it is no such thing."""
        try:
            known = json.loads(description)
            self.epoch = int(known["epoch"], _HEX)
            self._columns: dict[str, list[str]] = {str(name): list(names) for name, names in known["rows"].items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no description of an intent log: {error}") from error

    def entry(self, body: bytes) -> tuple[Batch, Sequence[tuple[int, int, int]]]:
        """What an entry changes; of directories of which only the totals did, (inode, bytes, files).

        Columns that are not known any more are left out, and new ones have their defaults. Raises ValueError for what
        cannot be read, or has none.
        """
        batch, totals = Batch(), ()
        try:
            for name, items in msgpack.unpackb(body, unicode_errors="surrogateescape", use_list=False).items():
                if name == TOTALS:
                    totals = items
                elif name == "meta":
                    batch.meta |= dict(items)
                else:
                    getattr(batch, name).extend(self._row(name, item) if name in ROWS else item for item in items)
        except (TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
            raise ValueError(f"an entry that cannot be read: {error}") from error
        return batch, totals

    def _row(self, name: str, values: Sequence[Any]) -> Any:
        kind = ROWS[name]
        columns: dict[str, Any] = {}
        for column, value in zip(self._columns[name], values, strict=True):
            if column not in kind._fields:
                continue
            within, word = _WITHIN.get((name, column)), _WORDS.get((name, column))
            if within is not None:
                columns[column] = self._row(within, value)
            else:
                columns[column] = word(value) if word is not None and value is not None else value
        return kind(**columns)


__all__ = ["HEAD", "Reader", "described", "frame", "frames"]
