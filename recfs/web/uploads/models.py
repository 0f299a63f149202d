"""Documents of uploads: what is taken in JSON, and what is told."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from recfs.web.problems import Problem
from recfs.web.uploads.making import Wanted
from recfs.web.uploads.plan import CHUNK_BYTES, MAX_BYTES

_MOST_BYTES: Final = 16 << 10


class NewUpload(BaseModel):
    """An upload that is to begin."""

    model_config = ConfigDict(extra="forbid", strict=True)
    length: int = Field(ge=0, le=MAX_BYTES, description="in bytes", examples=[734003200])
    user: str = Field("", max_length=64, description="needed where the token is for several", examples=["5"])
    recording: str = Field("", max_length=64, description="none: a new one", examples=["142"])
    path: str = Field("", max_length=4096, description="in the recording; none: its source", examples=["source.mp4"])
    filename: str = Field("", max_length=1000, examples=["Lecture 3.mp4"])
    mime_type: str = Field("", max_length=255, examples=["video/mp4"])
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$", description="of all bytes, in hex")
    chunk_bytes: int = Field(CHUNK_BYTES, ge=1, le=MAX_BYTES, description="length of all chunks but the last one")

    @classmethod
    async def read(cls, request: Request) -> Wanted:
        """Read one from a request's body, which is not longer than it has to be. Raises Problem."""
        raw = b""
        async for block in request.stream():
            raw += block
            if len(raw) > _MOST_BYTES:
                raise Problem("PayloadTooLarge", f"this document has {_MOST_BYTES} bytes at most")
        try:
            told = cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Problem("InvalidArgument", f"{where}: {first['msg']}" if where else str(first["msg"])) from None
        return Wanted(
            told.length, told.user, told.recording, told.path, told.filename, told.mime_type,
            None if told.sha256 is None else told.sha256.lower(), told.chunk_bytes,
        )  # fmt: skip


class Done(BaseModel):
    """A file that an upload has become."""

    id: str = Field(examples=["5.0b8f0c1e-6f0e-4a53-9a3e-0c2a5f3d7b11"])
    state: Literal["committed"]
    user: str
    recording: str
    path: str
    href: str = Field(examples=["/api/v1/users/5/recordings/142/source.mp4"])
    size_bytes: int
    sha256: str | None


class Progress(BaseModel):
    """How far an upload is."""

    id: str = Field(examples=["5.0b8f0c1e-6f0e-4a53-9a3e-0c2a5f3d7b11"])
    state: Literal["waiting", "receiving", "committing", "committed"]
    user: str
    recording: str
    path: str
    href: str = Field(description="of the file that it becomes")
    upload_href: str
    original_name: str
    length: int | None
    offset: int | None = Field(None, description="all bytes before this one have come")
    received_bytes: int | None = None
    missing: list[list[int]] = Field([], description="first byte, and the one behind the last, of what is missing")
    chunk_bytes: int | None = None
    chunks: int | None = Field(None, description="how many there are, from 0 on")
    created_at: str | None = None
    expires_at: str | None = Field(None, description="when it is removed unless somebody goes on with it")
    size_bytes: int | None = None
    sha256: str | None = None


class Page(BaseModel):
    """Uploads that are not done."""

    items: list[Progress]


def made_of(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is told of a body that a route reads by itself."""
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}


def bytes_of(kind: str = "application/octet-stream") -> dict[str, Any]:
    """The same of a body of bytes."""
    return {"requestBody": {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}


def fields_of(**needed: str) -> dict[str, Any]:
    """What OpenAPI is told of header fields that a route reads by itself; each with an example. "_" stands for "-"."""
    return {
        "parameters": [
            {
                "name": name.replace("_", "-"),
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "example": example,
            }
            for name, example in needed.items()
        ]
    }


__all__ = ["Done", "NewUpload", "Page", "Progress", "bytes_of", "fields_of", "made_of"]
