"""`recfs derive` and `recfs chunks` on a mount: what is made is there for programs that looked for it before."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .clients import recfs
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.slow, pytest.mark.modes("auto"), pytest.mark.needs("ffmpeg", "ffprobe")]


@pytest.fixture(scope="module")
def mount_config() -> str:
    """With a rule, and short chunks."""
    return f'{BASE_CONFIG}\n[[derive]]\nmake = "audio"\n[chunks]\nthreshold = "2s"\nlength = "2s"\n'


def test_what_is_made_is_there_at_once(mount: Mount, rec: Path) -> None:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "sine=frequency=440:duration=5"]
    subprocess.run([*command, "-ar", "8000", "-y", str(rec / "source.wav")], check=True, timeout=60)
    audio = rec / "audio.mp3"
    assert not audio.exists()  # the kernel remembers that
    (told,) = json.loads(recfs("--json", "derive", rec).stdout)
    assert (told["status"], told["reason"]) == ("completed", "")
    assert audio.exists()
    assert audio.read_bytes()[:2] == b"\xff\xf3" or audio.read_bytes()[:3] == b"ID3"
    assert recfs("derive", rec).stdout.endswith(b"1 product: 1 completed\n")
    audio.write_bytes(b"mine")
    assert b"kept: the file that is there was not made by recfs" in recfs("derive", rec).stdout
    assert audio.read_bytes() == b"mine"
    told = json.loads(recfs("--json", "chunks", rec / "source.wav", "--extract", "wav").stdout)
    sizes = [(mount.path / told["job"] / each["name"]).stat().st_size for each in told["chunks"]]
    assert sizes == [each["size_bytes"] for each in told["chunks"]]
    assert [round(size / 32_000) for size in sizes] == [2, 2, 1]
