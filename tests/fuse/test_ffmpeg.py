"""FFmpeg on the mount: real encodes, byte for byte those of a native directory, sealed with a checksum."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .clients import output, run, sha256_of, state, wait_until, xattr
from .harness import Mount

SECONDS = 4
QUIET = ["ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
SOURCE = [
    *("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=25:duration={SECONDS}"),
    *("-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}"),
]
# One thread and no encoder version strings: the same bytes in every run.
ENCODE = [
    *("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-g", "25", "-c:a", "aac"),
    *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"),
]


pytestmark = [pytest.mark.modes("auto", "off"), pytest.mark.needs("ffmpeg", "ffprobe", "sha256sum")]


def probe(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        output("ffprobe", "-loglevel", "error", "-of", "json", "-show_format", "-show_streams", path)
    )
    return found


def assert_sealed(mount: Mount, path: Path) -> None:
    """The file is committed, its checksum is that of the bytes a reader gets and of the bytes at home."""
    mount.drain()
    assert state(path) == "committed", path
    digest = output("sha256sum", path).split()[0]
    assert xattr(path, "sha256") == digest, path
    assert sha256_of(mount.home(path)) == digest, path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("source.mp4", ["-movflags", "+faststart"]),
        ("fragmented.mp4", ["-movflags", "+frag_keyframe+empty_moov+default_base_moof"]),
        ("plain.mp4", []),
        ("video.mkv", []),
        ("video.ts", ["-f", "mpegts"]),
    ],
)
def test_an_encode_is_the_same_as_on_a_native_directory(
    mount: Mount, rec: Path, outside: Path, name: str, options: list[str]
) -> None:
    for place in (rec, outside):
        run(*QUIET, *SOURCE, *ENCODE, *options, place / name)
    assert (rec / name).stat().st_size == (outside / name).stat().st_size
    assert sha256_of(rec / name) == sha256_of(outside / name)
    assert_sealed(mount, rec / name)
    found = probe(rec / name)
    assert float(found["format"]["duration"]) == pytest.approx(SECONDS, abs=0.3)
    assert {s["codec_type"] for s in found["streams"]} == {"video", "audio"}
    assert os.listdir(rec) == [name], "a temporary file was left behind"


def test_faststart_puts_the_index_first(rec: Path) -> None:
    run(*QUIET, *SOURCE, *ENCODE, "-movflags", "+faststart", rec / "source.mp4")
    content = (rec / "source.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat"), "the second pass rewrote the file in place"


@pytest.mark.parametrize(
    ("options", "index"),
    [
        (["-f", "hls", "-hls_time", "1", "-hls_list_size", "0"], "index.m3u8"),
        (
            ["-f", "hls", "-hls_time", "1", "-hls_list_size", "2", "-hls_flags", "delete_segments"],
            "live.m3u8",
        ),
        (["-f", "segment", "-segment_time", "1", "-segment_list", "{place}/list.csv"], "part%03d.ts"),
    ],
    ids=["hls", "hls-delete-segments", "segment"],
)
def test_segment_muxers(mount: Mount, rec: Path, outside: Path, options: list[str], index: str) -> None:
    for place in (rec, outside):
        filled = [option.format(place=place) for option in options]
        run(*QUIET, *SOURCE, *ENCODE, *filled, place / index, cwd=place)
    names = sorted(os.listdir(outside))
    assert len(names) > 3
    assert sorted(os.listdir(rec)) == names
    for name in names:
        assert sha256_of(rec / name) == sha256_of(outside / name), name
        assert_sealed(mount, rec / name)


def test_audio_is_extracted_from_the_mount_to_the_mount(mount: Mount, rec: Path) -> None:
    run(*QUIET, *SOURCE, *ENCODE, "-movflags", "+faststart", rec / "source.mp4")
    run(*QUIET, "-i", rec / "source.mp4", "-vn", "-ac", "1", "-ar", "16000", "-b:a", "64k", rec / "audio.mp3")
    assert_sealed(mount, rec / "audio.mp3")
    stream = probe(rec / "audio.mp3")["streams"][0]
    assert (stream["codec_name"], stream["sample_rate"], stream["channels"]) == ("mp3", "16000", 1)


def test_a_video_is_overwritten_by_a_second_encode(mount: Mount, rec: Path) -> None:
    target = rec / "source.mp4"
    run(*QUIET, *SOURCE, *ENCODE, target)
    first = sha256_of(target)
    run(*QUIET, *SOURCE, "-vf", "negate", *ENCODE, "-movflags", "+faststart", target)
    assert sha256_of(target) != first
    assert_sealed(mount, target)
    mount.drain()
    assert mount.leftovers("staging") == mount.leftovers("trash") == [], "the old bytes are still there"


def test_two_pass_encoding(mount: Mount, rec: Path) -> None:
    two_pass = [*ENCODE, "-b:v", "200k", "-passlogfile", str(rec / "pass")]
    run(*QUIET, *SOURCE, *two_pass, "-pass", "1", "-f", "null", "-")
    run(*QUIET, *SOURCE, *two_pass, "-pass", "2", rec / "video.mp4")
    assert_sealed(mount, rec / "video.mp4")


def record(target: Path, background: list[subprocess.Popen[bytes]], enough: int) -> subprocess.Popen[bytes]:
    """Start an endless recording and return once `enough` bytes of it are there."""
    endless = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]
    fragments = ["-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-flush_packets", "1"]
    argv = [*QUIET, *endless, *ENCODE, "-t", "3600", *fragments, str(target)]
    recorder = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    background.append(recorder)
    wait_until(lambda: target.exists() and target.stat().st_size > enough, f"{target.name} has {enough} bytes")
    return recorder


def test_a_recording_can_be_watched_while_it_grows(
    mount: Mount, rec: Path, background: list[subprocess.Popen[bytes]]
) -> None:
    target = rec / "source.mp4"
    recorder = record(target, background, 300_000)
    assert state(target) == "writing"
    assert probe(target)["streams"][0]["codec_name"] == "h264"
    recorder.send_signal(signal.SIGINT)
    recorder.wait(20)
    assert_sealed(mount, target)


def test_a_killed_ffmpeg_leaves_a_readable_committed_file(
    mount: Mount, rec: Path, background: list[subprocess.Popen[bytes]]
) -> None:
    target = rec / "source.mp4"
    recorder = record(target, background, 500_000)
    recorder.kill()
    recorder.wait(20)
    size = target.stat().st_size
    assert size > 500_000
    assert_sealed(mount, target)  # the kernel closed its files
    assert target.stat().st_size == size
    assert float(probe(target)["streams"][0]["duration_ts"]) > 0
    run(*QUIET, "-i", target, "-c", "copy", rec / "rescued.mp4")
    assert_sealed(mount, rec / "rescued.mp4")


def test_a_recording_is_moved_while_ffmpeg_writes_it(
    mount: Mount, rec: Path, background: list[subprocess.Popen[bytes]]
) -> None:
    recorder = record(rec / "part.mp4", background, 200_000)
    target = rec.parent / "2" / "source.mp4"
    target.parent.mkdir()
    os.rename(rec / "part.mp4", target)
    before = target.stat().st_size
    wait_until(lambda: target.stat().st_size > before, "the recording goes on under its new name")
    recorder.send_signal(signal.SIGINT)
    recorder.wait(20)
    assert_sealed(mount, target)
    assert os.listdir(rec) == []
