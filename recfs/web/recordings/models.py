"""The documents of recordings, for OpenAPI and for whoever reads it."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from recfs.web.description import problem


class Entry(BaseModel):
    """A file or a directory in a recording."""

    kind: Literal["file", "directory"]
    name: str = Field(examples=["source.mp4"])
    path: str = Field(description="inside the recording", examples=["transcription/subtitles.vtt"])
    href: str = Field(examples=["/api/v1/users/5/recordings/142/source.mp4"])
    modified_ns: int
    size_bytes: int | None = None
    state: str | None = Field(None, examples=["committed"])
    location: str | None = Field(None, examples=["local,s3"])
    sha256: str | None = None
    mime: str | None = Field(None, examples=["video/mp4"])
    media: dict[str, Any] = Field({}, examples=[{"duration_s": 61.5, "width": 1920, "height": 1080}])
    tags: dict[str, str] = {}
    verdict: str | None = None
    status: str | None = None
    original_name: str | None = Field(None, description="as the uploader sent it: escape it wherever it is shown")
    uploaded_at: str | None = None


class Recording(BaseModel):
    """A recording, and what is known of its source."""

    id: str = Field(examples=["142"])
    user: str = Field(examples=["5"])
    href: str
    modified_ns: int
    size_bytes: int | None
    files: int | None
    status: str = Field(examples=["active"])
    expires_at: str | None
    keep: bool
    source: Entry | None
    thumbnail: str
    has_thumbnail: bool


class Whole(Recording):
    """A recording with a page of what is in it."""

    entries: list[Entry]
    next: str | None = Field(description="cursor of the next page")


class Page(BaseModel):
    """A page of recordings."""

    items: list[Recording]
    next: str | None = Field(description="cursor of the next page")


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: problem("no path of the tree"),
    401: problem("a token or a session is needed"),
    403: problem("this token, or the file system, does not allow it"),
    404: problem("there is no such thing, or it is somebody else's"),
    409: problem("it is in use, in an archive, or something else than what was asked for"),
    412: problem("a precondition does not hold"),
    422: problem("a value is not what it should be"),
    503: problem("the file system is away"),
}
_BYTES: Final = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
"""Of the type that the file has."""
BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "the bytes", "content": _BYTES},
    206: {"description": "the ranges", "content": _BYTES},
    304: {"description": "the client has these bytes"},
    416: problem("there are no such bytes"),
}
BYTES_OR_PAGE: Final[dict[int | str, dict[str, Any]]] = BYTES | {
    200: {
        "description": "the bytes; of a directory, a page of what is in it",
        "content": _BYTES | {"application/json": {"schema": {}}},
    }
}


__all__ = ["BYTES", "BYTES_OR_PAGE", "PROBLEMS", "Entry", "Page", "Recording", "Whole"]
