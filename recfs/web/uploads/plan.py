"""What an upload is to become: said when it is made, kept with it on the mount, and never changed."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from recfs.client.errors import InvalidName
from recfs.client.tree import id_of, parts_of
from recfs.client.uploads import extension_of

CHUNK_BYTES: Final = 5_000_000
"""How long an indexed chunk is, unless its upload says otherwise."""
MAX_BYTES: Final = 1 << 60
"""More than any file system takes: what is larger is no length."""
NOTHING: Final = ""
ANYTHING: Final = "*"
_MAX_TEXT: Final = 4096
_MOST_BYTES: Final = 3300
_MOST_BYTES_ALONE: Final = 3600
"""What a plan may take of the attributes of its directory, which has 4 KiB for all: beside it is noted what has come,
if the upload goes on, and its end."""
_UNFINISHED: Final = (".tmp", ".part", ".partial", ".crdownload")
_MAX_NS: Final = (1 << 63) - 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_JOB: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class UploadId(NamedTuple):
    """An upload's id: whose it is, and its directory in temp/<user>/. As text "5.0192…": nobody has to look for it."""

    user: str
    job: str

    @classmethod
    def parse(cls, text: str) -> UploadId:
        """Make one of what a request has. Raises InvalidName."""
        user, dot, job = text.partition(".")
        if not dot or not _JOB.fullmatch(job):
            raise InvalidName("this is no id of an upload")
        return cls(id_of("user", user), job)

    @classmethod
    def new(cls, user: str) -> UploadId:
        """Make one that nobody has."""
        return cls(id_of("user", user), str(uuid.uuid4()))

    def __str__(self) -> str:
        return f"{self.user}.{self.job}"


def target_of(user: str, recording: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Give the names of a file in a recording that is to be uploaded. Raises InvalidName.

    Names that recfs takes for those of unfinished files are refused: such a file would never go to S3.
    """
    parts = parts_of("/".join(("users", user, "recordings", recording, *path)), new=True)
    if parts != ("users", user, "recordings", recording, *path):
        raise InvalidName("a name has no slash")
    if parts[-1].startswith(".") or extension_of(parts[-1]) in _UNFINISHED:
        raise InvalidName(f"{parts[-1][:80]!a} is a name of unfinished files")
    return parts


def is_sha256(value: object) -> bool:
    """Whether that is a sha256 in hex, whoever wrote it."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upload is to become. `check` has to have been called before any of it is believed."""

    id: UploadId
    recording: str
    path: tuple[str, ...]
    """Inside the recording."""
    length: int | None
    """In bytes; None where it is not known, as of a body in chunks: such an upload cannot be resumed."""
    sha256: str | None = None
    """In hex, as whoever sends it says; None where nothing was said."""
    replaces: str = NOTHING
    """What may stand in its place: nothing, anything, or a file with that sha256."""
    resumable: bool = True
    """Whether it goes on after its connection was lost; else nothing is left of it then."""
    chunk_bytes: int = CHUNK_BYTES
    metadata: str = ""
    """Upload-Metadata of tus as it came: whoever asks is told of it."""
    original_name: str = ""
    mime_type: str = ""
    by: str = ""
    """The id of the token it was made with."""
    created_ns: int = 0
    """Wall clock."""

    @property
    def target(self) -> tuple[str, ...]:
        """Where it will lie, from the tree's root on."""
        return ("users", self.id.user, "recordings", self.recording, *self.path)

    @property
    def is_source(self) -> bool:
        """Whether it is a recording's source, which has rules of its own."""
        return len(self.path) == 1 and self.path[0].lower().startswith("source.")

    def check(self) -> Plan:
        """Give itself. Raises InvalidName and ValueError for what no plan has: it may come from anybody."""
        if target_of(self.id.user, self.recording, self.path) != self.target:
            raise InvalidName("this is no path inside a recording")
        if self.length is not None and not 0 <= self.length <= MAX_BYTES:
            raise ValueError("a length is a number of bytes")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError("a sha256 has 64 hex digits")
        if self.replaces not in (NOTHING, ANYTHING) and not _SHA256.fullmatch(self.replaces):
            raise ValueError("a sha256 has 64 hex digits")
        if not 1 <= self.chunk_bytes <= MAX_BYTES:
            raise ValueError("chunks have a byte at least")
        if max(len(self.metadata), len(self.original_name), len(self.mime_type), len(self.by)) > _MAX_TEXT:
            raise ValueError("a text is too long")
        if not all(text.isascii() and text.isprintable() for text in (self.metadata, self.mime_type, self.by)):
            raise ValueError("what goes into a header has printable letters of ASCII")
        if not 0 <= self.created_ns <= _MAX_NS:
            raise ValueError("it was made between 1970 and 2262")
        return self

    def chunk(self, index: int) -> tuple[int, int]:
        """Give where a chunk begins and ends. Raises ValueError for one that the upload has not."""
        length = self.length or 0
        first = index * self.chunk_bytes
        if index < 0 or (first >= length and (index, length) != (0, 0)):
            count = -(-length // self.chunk_bytes)
            raise ValueError(f"there are {count} chunks of {self.chunk_bytes} bytes, from 0 on")
        return first, min(first + self.chunk_bytes, length)

    def dump(self) -> bytes:
        """Give it as it is kept."""
        told = asdict(self) | {"id": str(self.id)}
        # As json.loads reads bytes: also names that are no UTF-8.
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def fits(self) -> bool:
        """Whether there is room to keep it, and what becomes of it besides."""
        return len(self.dump()) <= (_MOST_BYTES if self.resumable else _MOST_BYTES_ALONE)

    @classmethod
    def load(cls, id: UploadId, raw: bytes) -> Plan:
        """Make one of what `dump` gave, of that upload. Raises ValueError for anything else."""
        told: Any = json.loads(raw)
        kinds: dict[str, type | tuple[type, ...]] = {
            "recording": str, "path": list, "length": (int, type(None)), "sha256": (str, type(None)),
            "replaces": str, "resumable": bool, "chunk_bytes": int, "metadata": str, "original_name": str,
            "mime_type": str, "by": str, "created_ns": int,
        }  # fmt: skip
        if not isinstance(told, dict) or set(told) != {"id", *kinds} or told["id"] != str(id):
            raise ValueError("this is no plan of that upload")
        if any(not isinstance(told[name], kind) for name, kind in kinds.items()):
            raise ValueError("this is no plan of an upload")
        if any(not isinstance(name, str) for name in told["path"]):
            raise ValueError("a path is a list of names")
        return cls(**(told | {"id": id, "path": tuple(told["path"])})).check()


__all__ = ["ANYTHING", "CHUNK_BYTES", "MAX_BYTES", "NOTHING", "Plan", "UploadId", "is_sha256", "target_of"]
