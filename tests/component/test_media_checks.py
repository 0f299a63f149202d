"""Recordings of every kind are recognised, and damaged and hostile ones found out: none hangs, or reaches anything."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from recfs.core.media.kinds import Kind, kind_of
from recfs.media import checks as module
from recfs.media.checks import SMALL_BYTES, Checks, CheckSettings, Finding
from recfs.media.runner import Limits, Runner
from tests.helpers.media import RECIPES, Samples
from tests.helpers.virtual_time import GUARD_S

pytestmark = [pytest.mark.slow, pytest.mark.needs("ffmpeg", "ffprobe")]  # they run programs


async def look(path: Path, name: str = "", settings: CheckSettings | None = None) -> Finding:
    kind = kind_of((name or path.name).encode())
    assert kind is not None
    fd = os.open(path, os.O_RDONLY)
    try:
        with trio.fail_after(GUARD_S):
            return await Checks(Runner(2), settings or CheckSettings()).look(kind, fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


# --- whole ones ------------------------------------------------------------------------------------------------------

H264, AAC = {"video_codec": "h264", "width": 64, "height": 48, "frame_rate": 10.0}, {"audio_codec": "aac"}
EXPECTED: dict[str, dict[str, object]] = {
    "mp4": {"container": "mp4", "mime": "video/mp4", **H264, **AAC, "sample_rate": 16_000, "channels": 1},
    "fast.mp4": {"container": "mp4", "mime": "video/mp4", **H264, **AAC},
    "mov": {"container": "mp4", "mime": "video/mp4", **H264, **AAC},
    "avi": {"container": "avi", "mime": "video/x-msvideo", "video_codec": "mpeg4", "audio_codec": "mp3", "width": 64},
    "mkv": {"container": "matroska", "mime": "video/x-matroska", **H264, **AAC},
    "webm": {"container": "webm", "mime": "video/webm", "video_codec": "vp8", "audio_codec": "opus"},
    "mp3": {"container": "mp3", "mime": "audio/mpeg", "audio_codec": "mp3", "sample_rate": 16_000},
    "m4a": {"container": "mp4", "mime": "audio/mp4", **AAC},
    "wav": {"container": "wav", "mime": "audio/wav", "audio_codec": "pcm_s16le", "bitrate": None, "channels": 1},
    "flac": {"container": "flac", "mime": "audio/flac", "audio_codec": "flac"},
    "ogg": {"container": "ogg", "mime": "audio/ogg", "audio_codec": "vorbis"},
    "opus": {"container": "ogg", "mime": "audio/ogg", "audio_codec": "opus", "sample_rate": 48_000},
    "ts": {"container": "mpegts", "mime": "video/mp2t", **H264, **AAC},
}


@pytest.mark.parametrize("kind", RECIPES)
async def test_what_is_in_a_recording_is_found(media_samples: Samples, kind: str) -> None:
    finding = await look(media_samples[kind])
    assert finding.reason is None, finding
    facts = finding.facts
    assert facts is not None
    assert facts.duration_s == pytest.approx(1.0, abs=0.2)
    for name, value in EXPECTED[kind].items():
        assert value is None or getattr(facts, name) == value, name
    assert facts.bitrate is not None
    if kind == "mp4":
        assert facts.tags["title"] == "A title"


async def test_a_recording_that_does_not_say_how_long_it_plays_is_measured(
    media_samples: Samples, tmp_path: Path
) -> None:
    """As browsers write them: a segment without a length, and no duration."""
    data = bytearray(media_samples["webm"].read_bytes())
    segment = data.index(b"\x18\x53\x80\x67")
    data[segment + 4 : segment + 12] = b"\x01" + b"\xff" * 7
    duration = data.index(b"\x44\x89\x88")
    data[duration : duration + 11] = b"\xec\x89" + bytes(9)  # Void
    path = tmp_path / "live.webm"
    path.write_bytes(data)
    finding = await look(path)
    assert finding.reason is None
    assert finding.facts is not None
    assert finding.facts.duration_s == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("kind", ["aac", "mp3"])
async def test_where_a_length_could_only_be_guessed_it_is_measured(tmp_path: Path, kind: str) -> None:
    """A loud beginning and a silent end: by the bitrate at its beginning it would be much shorter."""
    path = tmp_path / f"sound.{kind}"
    codec = ["-c:a", "aac", "-f", "adts"] if kind == "aac" else ["-c:a", "libmp3lame", "-q:a", "4", "-write_xing", "0"]
    sound = "anoisesrc=d=12:a=0.8:r=16000,volume=enable='gt(t,4)':volume=0"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", sound, *codec, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    finding = await look(path)
    assert finding.reason is None
    assert finding.facts is not None
    assert finding.facts.duration_s == pytest.approx(12.0, abs=0.3)


@pytest.mark.parametrize("behind", [b"\0", b"cam", bytes(range(7, 200)) + b"a camera's own words, and its mark"])
async def test_what_a_camera_writes_behind_a_recording_is_no_part_of_it(
    media_samples: Samples, tmp_path: Path, behind: bytes
) -> None:
    path = tmp_path / "more.mp4"
    path.write_bytes(media_samples["mp4"].read_bytes() + behind)
    assert (await look(path)).reason is None
    path.write_bytes(media_samples["mp4"].read_bytes() + (1000).to_bytes(4, "big") + b"mdat" + bytes(10))
    assert (await look(path)).reason is not None


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("mp4", "video.mp4", None), ("mp3", "audio.mp3", None), ("m4a", "audio.mp4", None), ("mkv", "source.mp4", None),
        ("wav", "chunk.mp3", None), ("mp3", "video.mp4", "there are no moving pictures in it"),
        ("mp4", "audio.mp3", "it is a video"), ("mov", "sound.wav", "it is a video"),
        ("mp4", "topics.json", "it is not UTF-8"), ("wav", "subtitles.vtt", "it does not begin with WEBVTT"),
    ],
)  # fmt: skip
async def test_known_names_are_held_to_their_kind(
    media_samples: Samples, kind: str, name: str, reason: str | None
) -> None:
    finding = await look(media_samples[kind], name)
    assert finding.reason == reason


@pytest.mark.parametrize(("text", "is_whole"), [('{"a": [%s]}', True), ('{"a": [%s}', False)])
async def test_a_large_text_is_checked_elsewhere(tmp_path: Path, text: str, is_whole: bool) -> None:
    path = tmp_path / "large.json"
    path.write_text(text % ", ".join(str(number) for number in range(20_000)))
    assert path.stat().st_size > SMALL_BYTES
    finding = await look(path)
    assert (finding.reason is None) is is_whole, finding
    bounded = await look(path, settings=CheckSettings(largest_text_bytes=SMALL_BYTES))
    assert not bounded.is_sure
    assert bounded.is_final
    assert bounded.reason == "it is larger than texts that are looked into"


async def test_a_text_that_takes_all_memory_takes_none_of_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json"
    path.write_text("[" + "[]," * 4_000_000 + "[]]")
    finding = await look(path, settings=CheckSettings(Limits(memory_bytes=128 << 20)))
    assert finding.reason == "it takes too much memory"


@pytest.mark.parametrize("kind", ["fast.mp4", "avi", "wav", "flac", "mkv"])
async def test_a_recording_that_is_cut_off_says_what_it_was_to_be(
    media_samples: Samples, tmp_path: Path, kind: str
) -> None:
    data = media_samples[kind].read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: len(data) * 3 // 4])
    finding = await look(path)
    assert finding.reason is not None
    assert finding.is_sure
    assert finding.facts is not None
    for name in ("container", "mime", "video_codec", "width", "audio_codec"):
        assert name not in EXPECTED[kind] or getattr(finding.facts, name) == EXPECTED[kind][name], name


async def test_without_ffprobe_what_is_cut_off_is_found_all_the_same(
    media_samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(media_samples["fast.mp4"].read_bytes()[:-1])
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = await look(path)
    assert finding.reason is not None
    assert finding.reason.startswith("truncated: ")
    assert (finding.facts, finding.is_sure) == (None, True)


async def test_damage_at_the_end_is_found_where_that_is_wanted(media_samples: Samples, tmp_path: Path) -> None:
    data = bytearray(media_samples["fast.mp4"].read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = random.Random(1).randbytes(len(data) - start)
    path = tmp_path / "video.mp4"
    path.write_bytes(data)
    assert (await look(path)).reason is None
    wanted = CheckSettings(decode_tail=True)
    found = await look(path, settings=wanted)
    assert found.reason is not None
    assert found.reason.startswith("its end cannot be decoded")
    assert (await look(media_samples["fast.mp4"], "video.mp4", settings=wanted)).reason is None


# --- damaged and hostile ones ----------------------------------------------------------------------------------------


class Variant(NamedTuple):
    """A file that somebody may store."""

    name: str
    data: bytes
    broken: bool | None
    """None: it may be either, as bytes of pictures are no structure."""


CUT_TS = 188


def truncations(samples: Samples) -> Iterator[Variant]:
    """Each kind, cut at twelve places; not where a transport stream or nothing tells it."""
    for kind, path in samples.items():
        data = path.read_bytes()
        for number in range(12):
            at = len(data) * number // 12 + (number * 7) % 11
            if kind == "ts" and at % CUT_TS == 0 and at:
                at += 1
            yield Variant(f"cut-{number}.{kind}", data[:at], True)
        yield Variant(f"last.{kind}", data[:-1], True)


def flips(samples: Samples) -> Iterator[Variant]:
    """One byte of each kind changed, here or there."""
    for kind, path in samples.items():
        for seed in range(2):
            data, dice = bytearray(path.read_bytes()), random.Random(seed)
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            yield Variant(f"flip-{seed}.{kind}", bytes(data), None)


def box(name: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A box of an mp4 (ISO/IEC 14496-12)."""
    return struct.pack(">I", 8 + len(data) if length is None else length) + name + data


def hostile(samples: Samples, port: int, secret: Path) -> Iterator[Variant]:
    """What is not what it says, or says more than it should."""
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
    for number, target in enumerate((f"file://{secret}", f"http://127.0.0.1:{port}/x.ts", "/etc/passwd", f"{secret}")):
        yield Variant(f"playlist-{number}.mp4", playlist.format(target).encode(), True)
        yield Variant(f"playlist-{number}.ts", playlist.format(target).encode(), True)
    yield Variant("concat.mp4", f"ffconcat version 1.0\nfile '{secret}'\n".encode(), True)
    yield Variant("concat.avi", f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/x.ts\n".encode(), True)
    yield Variant("dash.mp4", b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:%d/</BaseURL></MPD>' % port, True)
    yield Variant(
        "session.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", True
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(20_000_000))
    yield Variant("bomb.mp4", packed.getvalue(), True)
    yield Variant("bomb.mp3", packed.getvalue(), True)
    yield Variant("bomb.json", packed.getvalue(), True)
    for kind in samples:
        yield Variant(f"empty.{kind}", b"", True)
        yield Variant(f"text.{kind}", b"this is no recording\n" * 500, True)
        yield Variant(f"zeros.{kind}", bytes(100_000), True)
    huge = struct.pack(">I", 0x7FFFFFFF)
    ftyp = box(b"ftyp", b"isom\0\0\2\0isomiso2")
    yield Variant("gigantic-moov.mp4", ftyp + box(b"moov", b"x" * 100, 0x7FFFFFFF), True)
    yield Variant("long-moov.mp4", ftyp + b"\0\0\0\1moov" + b"\xff" * 8 + bytes(100), True)
    yield Variant("negative.mp4", ftyp + box(b"moov", bytes(100), 3), True)
    entries = box(b"stsz", bytes(8) + huge) + box(b"stts", bytes(4) + huge) + box(b"stco", bytes(4) + huge)
    table = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", entries))))
    yield Variant("gigantic-tables.mp4", ftyp + box(b"moov", table) + box(b"mdat", bytes(64)), True)
    deep = b""
    for _ in range(2000):
        deep = box(b"moov", deep)
    yield Variant("deep.mp4", ftyp + deep + box(b"mdat", bytes(64)), True)
    yield Variant("many.mp4", ftyp + box(b"free") * 50_000, True)
    yield Variant("ebml.mkv", b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + bytes(100), True)
    yield Variant("segment.webm", samples["webm"].read_bytes()[:60] + b"\xff" * 1000, True)
    yield Variant("id3.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(1000), True)
    yield Variant("pages.ogg", b"OggS\0\4" + bytes(20) + b"\xff" * 256, True)
    yield Variant("rate.wav", samples["wav"].read_bytes()[:24] + b"\xff" * 8 + samples["wav"].read_bytes()[32:], None)
    yield Variant("deep.json", b"[" * 200_000, True)
    yield Variant("number.json", b"1" * 60_000, False)


def everything(samples: Samples, port: int, secret: Path) -> list[Variant]:
    """All of them."""
    return [*truncations(samples), *flips(samples), *hostile(samples, port, secret)]


async def test_damaged_and_hostile_files_are_found_out(media_samples: Samples, tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(media_samples["ts"].read_bytes())
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        variants = everything(media_samples, server.getsockname()[1], secret)
        assert len(variants) >= 200
        wrong: list[str] = []
        checks = Checks(Runner(2), CheckSettings())
        limiter = trio.CapacityLimiter(3)

        async def one(variant: Variant) -> None:
            path = tmp_path / variant.name
            path.write_bytes(variant.data)
            kind = kind_of(variant.name.encode())
            assert kind is not None
            async with limiter:
                fd = os.open(path, os.O_RDONLY)
                try:
                    with trio.fail_after(GUARD_S):
                        found = await checks.look(kind, fd, len(variant.data))
                finally:
                    os.close(fd)
            path.unlink()
            if not found.is_sure or (variant.broken is not None and (found.reason is not None) is not variant.broken):
                wrong.append(f"{variant.name}: {found}")
            if found.facts is not None:
                assert json.loads(found.facts.packed()) == found.facts.as_json()

        async with trio.open_nursery() as nursery:
            for variant in variants:
                nursery.start_soon(one, variant)
        assert wrong == []
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()


def test_each_kind_is_asked_for_by_a_name() -> None:
    assert {kind_of(f"sample.{kind}".encode()) for kind in RECIPES} == {Kind.EITHER, Kind.AUDIO}


async def test_a_recording_with_a_comment_as_long_as_a_book_is_whole(media_samples: Samples, tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    told.write_text(";FFMETADATA1\ncomment=" + "x" * (2 << 20) + "\n")
    path = tmp_path / "talk.mp3"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(media_samples["mp3"]), "-i", str(told)]
    subprocess.run([*command, "-map_metadata", "1", "-c", "copy", str(path)], check=True, timeout=60)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = await Checks(Runner(1), CheckSettings()).look(Kind.AUDIO, fd, path.stat().st_size)
    finally:
        os.close(fd)
    assert (found.reason, found.is_sure) == (None, True)
    assert found.facts is not None
    assert (found.facts.audio_codec, found.facts.tags) == ("mp3", {})


def with_sounds(samples: Samples, target: Path, count: int) -> None:
    """Write a recording with so many sounds, and moving pictures after them."""
    maps = [word for _ in range(count) for word in ("-map", "1:a")]
    pictures = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=2")
    command = ["ffmpeg", "-nostdin", "-v", "error", *pictures, "-i", str(samples["mp3"]), *maps, "-map", "0:v"]
    subprocess.run([*command, "-c:v", "mpeg2video", "-c:a", "copy", str(target)], check=True, timeout=60)


async def looked_into(path: Path, kind: Kind = Kind.EITHER) -> Finding:
    fd = os.open(path, os.O_RDONLY)
    try:
        return await Checks(Runner(1), CheckSettings()).look(kind, fd, path.stat().st_size)
    finally:
        os.close(fd)


@pytest.mark.parametrize("container", ["mkv", "ts"])
async def test_a_recording_with_a_hundred_sounds_is_whole(
    media_samples: Samples, tmp_path: Path, container: str
) -> None:
    """Conferences are recorded with one for each who takes part; a demuxer drops what is beyond its bound, or fails."""
    with_sounds(media_samples, tmp_path / f"talk.{container}", 100)
    found = await looked_into(tmp_path / f"talk.{container}", Kind.VIDEO)
    assert (found.reason, found.is_sure) == (None, True)
    assert found.facts is not None
    assert (found.facts.streams, found.facts.video_codec, found.facts.audio_codec) == (101, "mpeg2video", "mp3")
    assert found.facts.duration_s is not None


@pytest.mark.parametrize("kind", ["mp3", "mkv"])
async def test_a_length_that_cannot_be_is_measured(media_samples: Samples, tmp_path: Path, kind: str) -> None:
    """A head may say anything: 650 days of sound in some kilobytes would be cut into chunks, and shown to people."""
    path = tmp_path / f"talk.{kind}"
    with_sounds(media_samples, tmp_path / "talk.mkv", 1)
    data = bytearray((media_samples["mp3"] if kind == "mp3" else path).read_bytes())
    if kind == "mp3":
        at = next(at for word in (b"Xing", b"Info") if (at := data.find(word)) >= 0)
        data[at + 8 : at + 12] = b"\x7f\xff\xff\xff"  # frames
    else:
        at = data.find(b"\x44\x89\x88")  # Duration, a float of 8 bytes, in milliseconds
        data[at + 3 : at + 11] = struct.pack(">d", 5e10)
    path.write_bytes(data)
    found = await looked_into(path)
    assert (found.reason, found.is_sure) == (None, True)
    assert found.facts is not None
    assert found.facts.duration_s == pytest.approx(1.0 if kind == "mp3" else 2.0, abs=0.2)


async def test_a_codec_that_the_program_does_not_know_is_no_fault(media_samples: Samples, tmp_path: Path) -> None:
    """Cameras have newer ones than the ffprobe of a machine; nobody but the operator could mend that."""
    with_sounds(media_samples, tmp_path / "video.mkv", 1)
    data = (tmp_path / "video.mkv").read_bytes()
    assert b"V_MPEG2" in data
    (tmp_path / "video.mkv").write_bytes(data.replace(b"V_MPEG2", b"V_NEWER").replace(b"A_MPEG/L3", b"A_NEWER/9"))
    found = await looked_into(tmp_path / "video.mkv", Kind.VIDEO)
    assert (found.reason, found.is_sure) == (None, True)
    assert found.facts is not None
    assert (found.facts.video_codec, found.facts.width, found.facts.audio_codec) == ("unknown", 64, "unknown")


@pytest.mark.parametrize("container", ["mkv", "ts"])
async def test_of_more_streams_than_are_looked_at_nothing_is_said(
    media_samples: Samples, tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = tuple("20" if word == str(module.MOST_STREAMS) else word for word in module.PROBE)
    monkeypatch.setattr(module, "PROBE", fewer)
    monkeypatch.setattr(module, "MOST_STREAMS", 20)
    with_sounds(media_samples, tmp_path / f"talk.{container}", 30)
    found = await looked_into(tmp_path / f"talk.{container}", Kind.VIDEO)
    assert found == Finding("it has more streams than are looked at", is_sure=False, is_final=True)
