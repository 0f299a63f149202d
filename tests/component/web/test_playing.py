"""Players: ffmpeg plays by HTTP, with seeks, what it plays from the disk; curl goes on where it was cut off."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.component.web.running import LONG_S, SOURCE, Running

pytestmark = pytest.mark.slow


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Eight seconds, with its index behind the frames: a player has to go there and back."""
    path = tmp_path / "video.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=duration=8:size=160x120:rate=10"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10", "-threads", "1"]
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source, *coded, path], check=True, timeout=LONG_S)
    return path


def frames(source: str, at_s: float, *options: str) -> str:
    """The checksums of some frames."""
    command = ["ffmpeg", "-nostdin", "-v", "error", *options, "-ss", str(at_s), "-i", source, "-frames:v", "5"]
    done = subprocess.run([*command, "-f", "framemd5", "-"], check=True, timeout=LONG_S, capture_output=True, text=True)
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("#"))


@pytest.mark.needs("ffmpeg")
def test_a_player_that_seeks_sees_the_frames_of_the_file(tmp_path: Path, video: Path) -> None:
    with Running(tmp_path)() as gateway:
        told = []
        gateway.site.file("users/5/recordings/142/source.mp4", video.read_bytes())
        gateway.site.context.listeners.append(told.append)
        url = f"http://{gateway.address[0]}:{gateway.address[1]}{SOURCE}"
        headers = ("-headers", f"Authorization: Bearer {gateway.site.token}\r\n")
        for at_s in (7.0, 0.0, 3.5):
            seen = frames(url, at_s, *headers)
            assert seen.count("\n") == 5
            assert seen == frames(str(video), at_s)
        assert {each.status for each in told} == {206}


@pytest.mark.needs("curl")
def test_curl_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        content = (gateway.site.root / "users/5/recordings/142/source.mp4").read_bytes()
        part = tmp_path / "part.mp4"
        part.write_bytes(content[:1_000_001])
        url = f"http://{gateway.address[0]}:{gateway.address[1]}{SOURCE}"
        authorization = f"Authorization: Bearer {gateway.site.token}"
        subprocess.run(["curl", "-sSf", "-C", "-", "-H", authorization, "-o", part, url], check=True, timeout=LONG_S)
        assert part.read_bytes() == content
