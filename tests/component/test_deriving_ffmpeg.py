"""Products and chunks as ffmpeg makes them, confined as under a daemon: what comes out is what players expect."""

from __future__ import annotations

import json
import struct
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs import derivation
from recfs.core.media.derived import DeriveRule, Product
from recfs.core.media.facts import Facts
from recfs.core.media.recipes import last_frame, recipe

from .build import Filesystem
from .making import REC, SOURCE

pytestmark = [pytest.mark.slow, pytest.mark.needs("ffmpeg", "ffprobe")]  # they run programs
SECONDS = 13
RULES: dict[str, Any] = {
    "derive": [{"make": each} for each in ("thumbnail", "audio", "waveform", "sprite", "hls")],
    "chunks": {"threshold": 4, "length": 5},
    "deriving": {"jobs": 2},
}


@pytest.fixture(scope="module")
def video() -> Iterator[bytes]:
    """13 s, silent from 5.1 to 5.5; its index lies at its end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        sound = f"sine=frequency=440:duration={SECONDS}:sample_rate=8000,volume=0:enable='between(t,5.1,5.5)'"
        command = [
            "ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", f"testsrc=duration={SECONDS}:size=64x36:rate=5",
            "-f", "lavfi", "-i", sound, "-c:v", "mpeg4", "-c:a", "pcm_s16le", "-f", "mov", "-y", str(path),
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=60)
        yield path.read_bytes()


@pytest.fixture
def root() -> Iterator[Path]:
    """Not of the fixture `place`: its time jumps, and programs take some."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def looked_at(path: Path) -> dict[str, Any]:
    """What ffprobe says of a file."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE).stdout)
    return found


async def test_products_and_chunks_are_what_players_expect(nursery: trio.Nursery, root: Path, video: bytes) -> None:
    services = derivation.Derivation.services
    fs = Filesystem(nursery, root, **RULES)
    with mock.patch.object(derivation.Derivation, "services", lambda made, mounted: services(made, mounted=True)):
        await fs.start()
    await fs.write(SOURCE, video)
    await fs.drain()
    deriving, chunking = fs.parts.derivation.work.asking, fs.parts.derivation.work.chunking
    asked = await deriving.ask(REC, everything=False, dry_run=False)
    left = [(each["folder"], Product(each["product"])) for each in asked]
    told = [await deriving.state_of(*key) for key in left]
    with trio.fail_after(120):
        while any(each["status"] in ("pending", "processing") and not each["reason"] for each in told):
            told = await deriving.wait(left, 5.0)
    assert [(each["status"], each["reason"]) for each in told] == [("completed", "")] * 5
    await fs.drain()
    assets = fs.root / REC / "assets"

    for name, size in (("thumbnail.png", (640, 360)), ("waveform.png", (1800, 226))):
        data = (assets / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n"), name
        assert struct.unpack(">2I", data[16:24])[0] == size[0], name
    (stream,) = looked_at(fs.root / REC / "audio.mp3")["streams"]
    assert (stream["codec_name"], stream["sample_rate"], stream["channels"]) == ("mp3", "16000", 1)
    assert stream["bit_rate"] == "64000"
    (picture,) = assets.glob("sprite-*.jpg")
    (stream,) = looked_at(picture)["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("mjpeg", 1600, 180)
    cues = (assets / "sprite.vtt").read_text().split("\n\n")
    assert (cues[0], len([each for each in cues if "-->" in each])) == ("WEBVTT", SECONDS)
    assert cues[12] == f"00:00:11.000 --> 00:00:12.000\n{picture.name}#xywh=160,90,160,90"
    listed = looked_at(assets / "hls.m3u8")
    assert {each["codec_name"] for each in listed["streams"]} == {"h264", "aac"}
    assert float(listed["format"]["duration"]) == pytest.approx(SECONDS, abs=0.3)
    assert (assets / "hls.m3u8").read_text().count("#EXT-X-BYTERANGE") == 3

    told = await chunking.extract(SOURCE, format="wav", silences=True)
    with trio.fail_after(60):
        while told["writing"]:
            told = await chunking.wait(told["ino"], 5.0)
    await fs.drain()
    assert [each["status"] for each in told["chunks"]] == ["completed"] * 3, told
    assert told["chunks"][0]["end_s"] == pytest.approx(5.3, abs=0.1), "it is cut in the silence"
    frames = 0
    for each in told["chunks"]:
        with wave.open(str(fs.root / told["job"] / each["name"])) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16000, 1, 2)
            assert sound.getnframes() == pytest.approx(each["duration_s"] * 16000, abs=20)
            frames += sound.getnframes()
    assert frames == pytest.approx(SECONDS * 16000, abs=60)
    assert [*(fs.root / ".recfs" / "rooms").glob("*")] == []
    await fs.stop()


async def test_what_is_no_media_fails_with_what_is_wrong_with_it(nursery: trio.Nursery, root: Path) -> None:
    services = derivation.Derivation.services
    fs = Filesystem(nursery, root, derive=[{"make": "thumbnail"}])
    with mock.patch.object(derivation.Derivation, "services", lambda made, mounted: services(made, mounted=True)):
        await fs.start()
    await fs.write(SOURCE, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    await fs.drain()
    deriving = fs.parts.derivation.work.asking
    (asked,) = await deriving.ask(REC, everything=False, dry_run=False)
    key = (asked["folder"], Product(asked["product"]))
    told = await deriving.state_of(*key)
    with trio.fail_after(60):
        while told["status"] in ("pending", "processing"):
            (told,) = await deriving.wait([key], 5.0)
    assert told["status"] == "failed"
    assert told["reason"] == "the source is broken: it cannot be read as audio or video"
    assert not await fs.exists(f"{REC}/assets")
    await fs.stop()


@pytest.mark.parametrize("source", ["one frame", "sound goes on", "sound goes on, as mkv"])
async def test_a_video_that_ends_early_shows_its_last_frame(
    nursery: trio.Nursery, root: Path, tmp_path: Path, source: str
) -> None:
    video = ["-f", "lavfi", "-i", "color=red:duration=0.8:size=64x36:rate=5", "-c:v", "mpeg4"]
    if source == "one frame":
        made = [*video, "-frames:v", "1", "source.mp4"]
    else:
        kind = "mkv" if source.endswith("mkv") else "mp4"
        made = [*video[:4], "-f", "lavfi", "-i", "sine=duration=9:sample_rate=8000", *video[4:], "-c:a", "aac"]
        made += ["-c:v", "libx264", "-pix_fmt", "yuv420p"] if kind == "mkv" else []
        made.append(f"source.{kind}")
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *made], check=True, timeout=60, cwd=tmp_path)
    services = derivation.Derivation.services
    fs = Filesystem(nursery, root, derive=[{"make": "thumbnail", "at": 3600}, {"make": "sprite"}, {"make": "hls"}])
    with mock.patch.object(derivation.Derivation, "services", lambda made, mounted: services(made, mounted=True)):
        await fs.start()
    await fs.write(f"{REC}/{made[-1]}", (tmp_path / made[-1]).read_bytes())
    await fs.drain()
    deriving = fs.parts.derivation.work.asking
    asked = await deriving.ask(REC, everything=False, dry_run=False)
    left = [(each["folder"], Product(each["product"])) for each in asked]
    told = [await deriving.state_of(*key) for key in left]
    with trio.fail_after(120):
        while any(each["status"] in ("pending", "processing") and not each["reason"] for each in told):
            told = await deriving.wait(left, 5.0)
    assert [(each["status"], each["reason"]) for each in told] == [("completed", "")] * 3
    await fs.drain()
    assets = fs.root / REC / "assets"
    assert is_red(assets / "thumbnail.png", "scale=1:1")
    (picture,) = assets.glob("sprite-*.jpg")
    last = len([line for line in (assets / "sprite.vtt").read_text().splitlines() if "-->" in line]) - 1
    assert last == 0 if source == "one frame" else last in (8, 9)  # Matroska rounds the end up
    assert is_red(picture, f"crop=160:90:{last * 160}:0,scale=1:1")
    await fs.stop()


def is_red(picture: Path, look: str) -> bool:
    """Of a pixel that is made of a part of a picture."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(picture), "-vf", look, "-f", "rawvideo"]
    pixel = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], check=True, timeout=60, stdout=subprocess.PIPE).stdout
    return len(pixel) == 3 and pixel[0] > 200 and max(pixel[1:]) < 60


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("size=64x36", (640, 360)),
        ("size=64x36,format=yuv444p10le", (640, 360)),  # of what phones record in HDR PNGs would have 16 bits
        ("size=90x160", (640, 1138)),
        ("size=16x4096", (8, 1920)),  # 640 pixels wide it would be 163,840 high
        ("size=4096x16", (640, 2)),
        ("size=16384x2", (640, 2)),
        ("size=80x90,setsar=2", (640, 360)),  # its pixels are twice as wide as they are high
        ("size=64x36,setsar=1/1000", (4, 1920)),
    ],
)
def test_a_thumbnail_is_bounded_and_looks_like_the_video(tmp_path: Path, source: str, size: tuple[int, int]) -> None:
    command = ["ffmpeg", "-nostdin", "-v", "error"]
    shown, _, pixels = source.partition(",")
    made = ["-f", "lavfi", "-i", f"testsrc=duration=1:rate=5:{shown}", "-vf", pixels or "null", "-c:v", "ffv1"]
    subprocess.run([*command, *made, "source.mkv"], check=True, timeout=60, cwd=tmp_path)
    facts = Facts("matroska", "video/x-matroska", 1.0, video_codec="ffv1")
    rule = DeriveRule("thumbnail", width=640)
    last = last_frame(rule, facts)
    assert last is not None
    for told in (recipe(rule, facts), last):
        subprocess.run([*command, *told.before, "-i", "source.mkv", *told.after], check=True, timeout=60, cwd=tmp_path)
        (stream,) = looked_at(tmp_path / "principal")["streams"]
        (tmp_path / "principal").unlink()
        assert (stream["width"], stream["height"], stream["pix_fmt"]) == (*size, "rgb24")


@pytest.mark.parametrize("source", ["size=160x45,setsar=1/2", "size=80x90"])
def test_frames_for_scrubbing_look_like_the_video(tmp_path: Path, source: str) -> None:
    """Of one that is shown 80 by 45, or 80 by 90, pixels wide: what is beside it is black."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    shown, _, pixels = source.partition(",")
    made = ["-f", "lavfi", "-i", f"color=red:duration=1:rate=5:{shown}", "-vf", pixels or "null", "-c:v", "ffv1"]
    subprocess.run([*command, *made, "source.mkv"], check=True, timeout=60, cwd=tmp_path)
    told = recipe(DeriveRule("sprite"), Facts("matroska", "video/x-matroska", 1.0, video_codec="ffv1"))
    subprocess.run([*command, *told.before, "-i", "source.mkv", *told.after], check=True, timeout=60, cwd=tmp_path)
    picture = tmp_path / "media"
    width = 160 if "setsar" in source else 80
    assert is_red(picture, f"crop=2:2:{80 - width // 2 + 2}:44,scale=1:1")
    assert is_red(picture, "crop=2:2:80:4,scale=1:1")
    assert width == 160 or not is_red(picture, "crop=2:2:20:44,scale=1:1")


@pytest.mark.parametrize(("width", "size"), [(33, (32, 18)), (640, (64, 36))])
def test_a_stream_has_an_even_size_and_no_cover_picture(tmp_path: Path, width: int, size: tuple[int, int]) -> None:
    """Of a source of 65x37 pixels: H.264 of 4:2:0 has even ones."""
    command = ["ffmpeg", "-nostdin", "-v", "error"]
    made = ["-f", "lavfi", "-i", "testsrc=duration=1:size=65x37:rate=5", "-pix_fmt", "yuv444p", "-c:v", "ffv1"]
    subprocess.run([*command, *made, "source.mkv"], check=True, timeout=60, cwd=tmp_path)
    told = recipe(DeriveRule("hls", width=width), Facts("matroska", "video/x-matroska", 1.0, video_codec="ffv1"))
    subprocess.run([*command, *told.before, "-i", "source.mkv", *told.after], check=True, timeout=60, cwd=tmp_path)
    (stream,) = looked_at(tmp_path / "media")["streams"]
    assert (stream["width"], stream["height"]) == size
