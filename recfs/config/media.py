"""[media]: what files are looked into for, and what that may take."""

from __future__ import annotations

from pydantic import Field

from recfs.config.types import Duration, Section, Size, Text


class MediaSection(Section):
    """[media]"""

    enabled: bool = Field(default=True, strict=True, description="whether committed files are looked into")
    workers: int = Field(default=1, strict=True, ge=1, le=16, description="files that are looked into at a time")
    user: Text = Field(default="nobody", description="whom ffprobe and ffmpeg run as where the daemon is root")
    timeout: Duration = Field(default=60.0, ge=1.0, le=3600.0, description="longest look into a file (seconds)")
    cpu: Duration = Field(default=30.0, ge=1.0, le=3600.0, description="most CPU time of a look (seconds)")
    memory: Size = Field(default=1 << 30, ge=512 << 20, description="most memory of a look (bytes)")
    largest_text: Size = Field(
        default=16 << 20, ge=1024, le=1 << 30, description="largest JSON or subtitle file that is looked into (bytes)"
    )
    decode_tail: bool = Field(
        default=False, strict=True, description="whether the last seconds of recordings are decoded, too"
    )
    upload_wait: Duration = Field(
        default=60.0, ge=0.0, le=86_400.0, description="longest an upload waits for the look into its file (seconds)"
    )


__all__ = ["MediaSection"]
