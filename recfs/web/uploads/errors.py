"""What uploads refuse by themselves; what the file system refuses stays OSError.

UploadError
├── NoUpload       there is none of that id (404)
├── UploadGone     its bytes are gone: they had another digest, or somebody removed them (410)
├── UploadBusy     it is being committed, or another process has it (423)
├── WrongOffset    it goes on elsewhere (409)
├── WrongChecksum  the bytes of one request are not those of its checksum (460)
├── Incomplete     bytes are missing (409)
├── TooMuch        more bytes than were announced (413)
├── Scattered      what has come is in too many pieces to be kept in mind (409)
├── Changed        what was to be replaced is another file by now (412)
├── OverLimit      it does not fit into a limit of the user (507, 413, or 429 of the month)
└── CutOff         the body ended before its time (400, mostly told to nobody)
    └── Superseded another request goes on with it (423)
"""

from __future__ import annotations


class UploadError(Exception):
    """Base of all; `str()` is a sentence for people."""


class NoUpload(UploadError):
    """There is no upload of that id."""


class UploadGone(UploadError):
    """The bytes of this upload are gone, and it cannot go on."""


class UploadBusy(UploadError):
    """The upload is being committed, or another process works on it."""


class WrongOffset(UploadError):
    """The upload goes on at another offset."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"this upload goes on at offset {offset}")
        self.offset = offset


class WrongChecksum(UploadError):
    """The bytes of a request are not those of its checksum: they are not kept."""


class Incomplete(UploadError):
    """Bytes are missing."""

    def __init__(self, missing: tuple[tuple[int, int], ...]) -> None:
        super().__init__(f"{sum(end - first for first, end in missing)} bytes are missing")
        self.missing = missing


class TooMuch(UploadError):
    """More bytes came than were announced."""


class Scattered(UploadError):
    """What has come is in too many pieces."""


class Changed(UploadError):
    """What was to be replaced is another file by now, or gone."""


class OverLimit(UploadError):
    """An upload does not fit into a limit of the user. `limit` is its name: max_bytes, max_monthly_uploads …"""

    def __init__(self, limit: str, told: str) -> None:
        super().__init__(told)
        self.limit = limit


class CutOff(UploadError):
    """The body ended before it was whole."""


class Superseded(CutOff):
    """Another request goes on with this upload."""


__all__ = [
    "Changed",
    "CutOff",
    "Incomplete",
    "NoUpload",
    "OverLimit",
    "Scattered",
    "Superseded",
    "TooMuch",
    "UploadBusy",
    "UploadError",
    "UploadGone",
    "WrongChecksum",
    "WrongOffset",
]
