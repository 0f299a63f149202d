"""Recordings of one second of every kind that is recognised, made by ffmpeg: once for a run, whatever its workers."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers import workers

Samples = Mapping[str, Path]

SECONDS = 1
_VIDEO = ("-f", "lavfi", "-i", f"testsrc=duration={SECONDS}:size=64x48:rate=10")
_AUDIO = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}:sample_rate=16000")
_BOTH = ("-map", "0:v", "-map", "1:a")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
_MPEG4 = ("-c:v", "mpeg4", "-c:a", "libmp3lame")

RECIPES: dict[str, tuple[str, ...]] = {
    "mp4": (*_BOTH, *_H264, "-metadata", "title=A title", "-metadata", "artist=Somebody"),
    "fast.mp4": (*_BOTH, *_H264, "-movflags", "+faststart"),
    "mov": (*_BOTH, *_H264),
    "avi": (*_BOTH, *_MPEG4),
    "mkv": (*_BOTH, *_H264),
    "webm": (*_BOTH, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    "mp3": ("-map", "1:a", "-c:a", "libmp3lame"),
    "m4a": ("-map", "1:a", "-c:a", "aac"),
    "wav": ("-map", "1:a", "-c:a", "pcm_s16le"),
    "flac": ("-map", "1:a", "-c:a", "flac"),
    "ogg": ("-map", "1:a", "-c:a", "libvorbis"),
    "opus": ("-map", "1:a", "-c:a", "libopus"),
    "ts": (*_BOTH, *_H264),
}
"""What is said of the output, by the end of its name."""


def make(folder: Path) -> None:
    """Make them all, in one run of ffmpeg."""
    command: list[str] = ["ffmpeg", "-nostdin", "-v", "error", "-y", *_VIDEO, *_AUDIO]
    for kind, recipe in RECIPES.items():
        command += [*recipe, "-threads", "1", "-bitexact", str(folder / f"sample.{kind}")]
    subprocess.run(command, check=True, timeout=120)


@pytest.fixture(scope="session")
def media_samples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Where they are, by the end of their name; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    if workers.common(request.config) is not None:
        base = base.parent
    folder = base / "media-samples"
    folder.mkdir(exist_ok=True)
    with (base / "media-samples.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return {kind: folder / f"sample.{kind}" for kind in RECIPES}


__all__ = ["RECIPES", "Samples", "make", "media_samples"]
