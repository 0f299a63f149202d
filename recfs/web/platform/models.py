"""The platform's documents."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Video(BaseModel):
    """An asset of a project: a recording, by its source."""

    id: str = Field(examples=["142"])
    project_id: str = Field(examples=["5"])
    status: str = Field(examples=["completed"])
    filename: str = Field(description="as the uploader called it: escape it wherever it is shown")
    file_path: str = Field(examples=["users/5/recordings/142/source.mp4"])
    file_size: int
    mime_type: str
    sha256: str | None
    href: str = Field(description="of its bytes")
    thumbnail_path: str | None
    metadata: dict[str, Any] = Field(description="what is in it, and what came with the form")
    created_at: str
    updated_at: str


class Count(BaseModel):
    """Files and their bytes."""

    bytes: int
    megabytes: float = Field(description="of 1,048,576 bytes, to two places")
    file_count: int


class Stats(BaseModel):
    """What a store, or a project, holds."""

    root: str
    categories: dict[str, Count]
    total: Count


class Removed(BaseModel):
    """What was removed."""

    project_id: str
    recordings: int
    files: int


__all__ = ["Count", "Removed", "Stats", "Video"]
