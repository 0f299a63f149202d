"""What a file's content is, for whoever asks on the mount: `user.recfs.media` and so on, and its status.

| attribute | value |
|---|---|
| media | pending, whole, broken or unknown (`core/media/verdicts.py`) |
| media_reason | why it is broken, or could not be looked into |
| media_facts | all that is known of what is in it, as JSON |
| mime, container, duration (seconds), bitrate, video_codec, width, height, frame_rate | one of these |
| audio_codec, sample_rate, channels | one of these |
| status | where it stands, in the words of applications (`core/media/words.py`) |
| status_detail | the same as JSON, with times, code, message and attempts |
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from recfs.core.media.facts import unpacked
from recfs.core.media.words import Known, told, word_of
from recfs.core.model import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from recfs.ports.rows import MediaRow
    from recfs.state.media import MediaRows
    from recfs.state.nodes import FileNode
    from recfs.state.remote import RemoteBytes

_FACTS: Final = {
    b"duration": "duration_s", b"container": "container", b"mime": "mime", b"bitrate": "bitrate",
    b"video_codec": "video_codec", b"width": "width", b"height": "height", b"frame_rate": "frame_rate",
    b"audio_codec": "audio_codec", b"sample_rate": "sample_rate", b"channels": "channels",
}  # fmt: skip
ATTRIBUTES: Final = frozenset({b"media", b"media_reason", b"media_facts", b"status", b"status_detail", *_FACTS})
_CURRENT: Final = (State.STORED, State.EVICTED, State.FETCHING, State.ARCHIVED)


class Contents:
    """Answers."""

    def __init__(self, rows: MediaRows, remote: RemoteBytes) -> None:
        self.rows = rows
        self._remote = remote

    async def attribute(self, node: FileNode, name: bytes) -> bytes | None:
        """The value of one of ATTRIBUTES; None: it has none."""
        return (await self.several(node, (name,))).get(name)

    async def several(self, node: FileNode, names: Collection[bytes]) -> dict[bytes, bytes]:
        """Those of some of ATTRIBUTES that a file has, all of one moment, which is that of the return."""
        row = await self.rows.of(node)
        if not node.bytes and await self.rows.is_reserved(node):
            return {}  # nothing can be said of it yet
        values = {name: self._value(node, row, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _value(self, node: FileNode, row: MediaRow | None, name: bytes) -> bytes | None:
        if name == b"status":
            word = word_of(self.known(node, row))
            return word.encode("ascii") if word is not None else None
        if name == b"status_detail":
            return json.dumps(told(self.known(node, row))).encode("ascii")
        if row is None:
            return None
        if name == b"media":
            return row.verdict.encode("ascii")
        if name == b"media_reason":
            return row.reason.encode("utf-8", "backslashreplace") or None
        if name == b"media_facts":
            return row.facts.encode("utf-8", "backslashreplace") or None
        facts = unpacked(row.facts)
        value: Any = getattr(facts, _FACTS[name]) if facts is not None else None
        return f"{value:.12g}".encode("ascii") if isinstance(value, float) else _text(value)

    def known(self, node: FileNode, row: MediaRow | None) -> Known:
        """What is known of a file, for its status. Atomic."""
        upload = self._remote.upload_of(node)
        known = Known(node.state, changed_ns=node.mtime_ns, touched_ns=node.ctime_ns)
        if row is not None:
            known = known._replace(
                verdict=row.verdict, reason=row.reason, looks=row.attempts,
                queued_ns=row.queued_ns, began_ns=row.began_ns, ended_ns=row.ended_ns,
            )  # fmt: skip
        if upload is not None:
            known = known._replace(upload_due=True, upload_attempts=upload.attempts, upload_error=upload.error)
        if node.object is not None and node.state in _CURRENT:
            known = known._replace(stored_ns=node.object.uploaded_ns)
        return known


def _text(value: object) -> bytes | None:
    return str(value).encode("ascii", "backslashreplace") if value is not None else None


__all__ = ["ATTRIBUTES", "Contents"]
