"""recfs.client: StorageBackend over a plain directory; builder's removal and sizes; facts of a plain directory."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from recfs.client import (
    InvalidName,
    NotAMount,
    StorageBackend,
    StoragePathBuilder,
    Upload,
    UploadRefused,
    VerifyFailed,
    events,
    facts,
    facts_async,
    note_upload,
    noted_upload,
    places,
    wait_committed,
    wait_committed_async,
)
from recfs.client.media import _found, told_media
from recfs.core.media.facts import _mime, facts_of
from tests.helpers.media import Samples

from .client import LOOPS, REC, all_below, run

PATH = f"{REC}/assets/a.bin"
DATA = b"0123456789" * 300_000


@pytest.fixture
def tree(scratch: Path) -> Path:
    root = scratch / "tree"
    root.mkdir()
    return root


class Slow(io.RawIOBase):
    """A file that gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._rest.read(min(size, 700_001))


async def blocks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1_000_000):
        yield data[at : at + 1_000_000]


def pieces(data: bytes) -> Iterator[bytes]:
    yield from (data[:10], b"", data[10:])


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_saved_is_loaded_whatever_it_came_as(tree: Path, scratch: Path, loop: str) -> None:
    source = scratch / "source"
    source.write_bytes(DATA)
    backend = StorageBackend(tree)

    async def main() -> None:
        for data in (
            DATA, bytearray(DATA), memoryview(DATA), source, io.BytesIO(DATA), Slow(DATA), blocks(DATA), pieces(DATA),
            [DATA[:5], DATA[5:]],
        ):  # fmt: skip
            assert not await backend.exists(PATH)
            assert await backend.save(PATH, data) == str(tree / PATH)
            assert await backend.exists(PATH)
            assert await backend.load(PATH) == DATA
            assert all_below(tree) == [PATH]
            assert await backend.delete(PATH)
            assert not await backend.delete(PATH)
        assert await backend.save(PATH, b"") == str(tree / PATH)
        assert await backend.load(PATH) == b""

    run(loop, main)


def test_a_file_is_streamed_and_may_be_left_in_the_middle(tree: Path) -> None:
    backend = StorageBackend(tree)

    async def main() -> None:
        await backend.save(PATH, DATA)
        assert b"".join([block async for block in backend.stream(PATH, 65_536)]) == DATA
        async with aclosing(backend.stream(PATH, 10)) as stream:
            assert await anext(stream) == b"0123456789"

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == before


def test_urls_are_those_of_the_bucket_where_one_is_named(tree: Path) -> None:
    backend = StorageBackend(tree, s3_url="s3://media/prod/")
    assert asyncio.run(backend.save(PATH, b"x")) == f"s3://media/prod/{PATH}"
    assert backend.url(PATH) == f"s3://media/prod/{PATH}"
    assert (tree / PATH).read_bytes() == b"x"
    with pytest.raises(ValueError, match="s3://"):
        StorageBackend(tree, s3_url="https://x")


def failing(data: bytes) -> Iterator[bytes]:
    yield data
    raise RuntimeError("the source broke off")


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (failing(b"x"), {}, RuntimeError),
        (iter([b"x" * 11]), {"max_bytes": 10}, UploadRefused),
        (b"x" * 11, {"max_bytes": 10}, UploadRefused),
        (b"x", {"sha256": hashlib.sha256(b"y").hexdigest()}, VerifyFailed),
        (b"x", {"upload": Upload("a", "no mime")}, InvalidName),
        ("text", {}, TypeError),
        (["text"], {}, TypeError),
        (5, {}, TypeError),
        (None, {}, TypeError),
        (Path("/nonexistent"), {}, FileNotFoundError),
    ],
)
def test_what_fails_leaves_the_old_file_and_nothing_else(
    tree: Path, data: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    backend = StorageBackend(tree)
    asyncio.run(backend.save(PATH, b"old"))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        asyncio.run(backend.save(PATH, data, **options))
    assert asyncio.run(backend.load(PATH)) == b"old"
    assert all_below(tree) == [PATH]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("loop", LOOPS[1:])
def test_a_cancelled_save_leaves_nothing(tree: Path, loop: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"half"
        scope.cancel()
        await anyio.sleep(60)

    async def main() -> None:
        nonlocal scope
        with anyio.CancelScope() as scope:
            await StorageBackend(tree).save(PATH, endless())
        assert scope.cancelled_caught

    scope: anyio.CancelScope
    run(loop, main)
    assert all_below(tree) == []


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", f"{REC}/../../../6/recordings/1/a", f"{REC}/a\0b", f"{REC}/", f"{REC}//a", "a", "",
     "users/x/a", f"{REC}/{'n' * 256}", f"{REC}/\ud800", "users/5/recordings/142", "shared", "other/5/a", b"bytes"],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(tree: Path, path: str) -> None:
    backend = StorageBackend(tree)
    for call in (
        lambda: backend.save(path, b"x"), lambda: backend.load(path), lambda: backend.delete(path),
        lambda: backend.exists(path),
    ):  # fmt: skip
        with pytest.raises(InvalidName):
            asyncio.run(call())
    assert all_below(tree) == []


@pytest.mark.parametrize("name", ["a\nb", "\u202egpj.exe", "\udcff", "\x1b[2J"])
def test_odd_names_are_loaded_and_deleted_but_not_made(tree: Path, name: str) -> None:
    backend, path = StorageBackend(tree), f"{REC}/{name}"
    (tree / REC).mkdir(parents=True)
    with pytest.raises(InvalidName):
        asyncio.run(backend.save(path, b"x"))
    (tree / path).write_bytes(b"old tool")
    assert asyncio.run(backend.load(path)) == b"old tool"
    assert asyncio.run(backend.delete(path))


def test_links_are_not_followed_out_of_the_tree(tree: Path, scratch: Path) -> None:
    outside = scratch / "outside"
    (outside / "assets").mkdir(parents=True)
    (outside / "assets" / "secret").write_bytes(b"secret")
    (tree / "users/5/recordings").mkdir(parents=True)
    (tree / REC).symlink_to(outside)
    backend = StorageBackend(tree)
    for path in (f"{REC}/assets/secret", f"{REC}/assets/new"):
        assert not asyncio.run(backend.exists(path))
        for called in (backend.load(path), backend.save(path, b"x"), backend.delete(path)):
            with pytest.raises(NotADirectoryError):
                asyncio.run(called)
    (tree / REC).unlink()
    (tree / REC).mkdir()
    (tree / REC / "link").symlink_to(outside / "assets" / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        asyncio.run(backend.load(f"{REC}/link"))
    asyncio.run(backend.save(f"{REC}/link", b"own"))
    assert (outside / "assets" / "secret").read_bytes() == b"secret"
    assert all_below(outside) == ["assets/secret"]


def test_what_is_no_file_is_neither_loaded_nor_waited_for(tree: Path) -> None:
    backend = StorageBackend(tree)
    (tree / PATH).mkdir(parents=True)
    os.mkfifo(tree / REC / "fifo")
    for path in (PATH, f"{REC}/fifo"):
        assert not asyncio.run(backend.exists(path))
        with pytest.raises(OSError, match=r"directory|Invalid"):
            asyncio.run(backend.load(path))
    with pytest.raises(FileNotFoundError):
        asyncio.run(backend.load(f"{REC}/missing"))
    with pytest.raises(OSError, match="directory"):
        asyncio.run(backend.delete(PATH))


def test_a_tree_that_is_away_is_no_file_that_is_not_there(scratch: Path) -> None:
    backend = StorageBackend(scratch / "away")
    for call in (lambda: backend.exists(PATH), lambda: backend.delete(PATH), lambda: backend.save(PATH, b"")):
        with pytest.raises(FileNotFoundError):
            asyncio.run(call())
    assert not (scratch / "away").exists()


def test_where_a_mount_is_meant_nothing_is_written_below_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = StorageBackend(tree, mounted=True)
    for call in (
        lambda: backend.save(PATH, b"x"), lambda: backend.load(PATH), lambda: backend.exists(PATH),
        lambda: backend.delete(PATH),
    ):  # fmt: skip
        with pytest.raises(NotAMount, match="there is no recfs mount"):
            asyncio.run(call())
    assert os.listdir(tree) == []
    monkeypatch.setattr(places, "store_root", lambda path: Path("/srv/recfs"))
    asyncio.run(backend.save(PATH, b"x"))
    assert asyncio.run(backend.load(PATH)) == b"x"


# --- removal and sizes -------------------------------------------------------------------------------------------


def test_a_recordings_size_and_its_removal(tree: Path, scratch: Path) -> None:
    paths = StoragePathBuilder(tree)
    assert (paths.get_recording_size(5, 142), paths.delete_recording_files(5, 142)) == (0, 0)
    (scratch / "outside").mkdir()
    (scratch / "outside" / "kept").write_bytes(b"x" * 1000)
    (tree / REC / "assets").mkdir(parents=True)
    (tree / REC / "source.mp4").write_bytes(b"x" * 100)
    (tree / REC / "assets" / "a").write_bytes(b"x" * 11)
    (tree / REC / "assets" / "link").symlink_to(scratch / "outside")
    other = tree / "users/5/recordings/143"
    other.mkdir()
    assert paths.get_recording_size(5, 142) == 111
    assert paths.delete_recording_files(5, 142) == 3
    assert not (tree / REC).exists()
    assert other.is_dir()
    assert all_below(scratch / "outside") == ["kept"]


# --- facts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_facts_of_a_plain_directory_are_computed(tree: Path, loop: str) -> None:
    file = tree / "talk.mp4"
    file.write_bytes(DATA)
    found = facts(file, media=False)
    assert (found.sha256, found.md5) == (hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest())
    assert (found.state, found.whole, found.location) == ("committed", True, "local")
    assert (found.size_bytes, found.mtime_ns) == (len(DATA), file.stat().st_mtime_ns)
    assert (found.mime_type, found.original_name, found.uploaded_at) == ("video/mp4", None, None)
    assert wait_committed(file, 0.0, media=False) == found

    async def main() -> None:
        assert await facts_async(file, media=False) == found
        assert await wait_committed_async(file, 0.0, media=False) == found

    run(loop, main)


@pytest.mark.needs("ffmpeg", "ffprobe")
def test_facts_of_a_plain_directory_have_the_mime_type_of_the_content(tree: Path, media_samples: Samples) -> None:
    told = {}
    for kind, sample in media_samples.items():
        file = tree / f"talk.{kind}"
        file.write_bytes(sample.read_bytes())
        found = facts(file)
        told[kind] = found.mime_type
        assert found.media["mime"] == found.mime_type
        assert found.mime_type == _mime(str(found.media["container"]), is_video="video_codec" in found.media), kind
    assert (told["mp4"], told["mkv"], told["opus"], told["ts"]) == (
        "video/mp4", "video/x-matroska", "audio/ogg", "video/mp2t",
    )  # fmt: skip
    lying = tree / "lying.mp3"
    lying.write_bytes(media_samples["mkv"].read_bytes())
    assert facts(lying).mime_type == "video/x-matroska"


def test_what_is_no_file_has_no_facts(tree: Path) -> None:
    with pytest.raises(IsADirectoryError):
        facts(tree)
    with pytest.raises(FileNotFoundError):
        wait_committed(tree / "missing")
    with pytest.raises(NotAMount):
        next(iter(events(tree)))


def test_what_is_kept_of_an_upload_is_told(tree: Path) -> None:
    at = datetime(2026, 11, 29, 16, 42, 42, tzinfo=UTC)
    upload = Upload("Отчёт\n\u202e.mov", "video/x-odd", at)
    backend = StorageBackend(tree)
    asyncio.run(backend.save(PATH, b"x", upload=upload))
    assert noted_upload(tree / PATH) == upload
    found = facts(tree / PATH)
    assert (found.original_name, found.mime_type, found.uploaded_at) == ("Отчёт\n\u202e.mov", "video/x-odd", at)
    plain = tree / REC / "plain.mp3"
    plain.write_bytes(b"")
    assert noted_upload(plain) is None
    note_upload(plain, Upload("later.mp3"))
    assert facts(plain).mime_type == "audio/mpeg"
    os.setxattr(plain, "user.upload_time", b"yesterday \xff")
    assert facts(plain).uploaded_at is None


@pytest.mark.needs("ffmpeg", "ffprobe")
def test_what_is_in_a_recording_is_found_by_ffprobe(tree: Path) -> None:
    video = tree / "a.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1", "-f", "lavfi", "-i",
         "sine=frequency=440:sample_rate=16000:duration=1", "-c:v", "mpeg4", "-c:a", "aac", "-ac", "1", str(video)],
        check=True, timeout=60,
    )  # fmt: skip
    media = facts(video).media
    assert media["container"] == "mp4"
    assert {key: media[key] for key in ("width", "height", "frame_rate", "video_codec", "audio_codec", "channels")} == {
        "width": 64, "height": 48, "frame_rate": 10.0, "video_codec": "mpeg4", "audio_codec": "aac", "channels": 1,
    }  # fmt: skip
    assert media["duration_s"] == pytest.approx(1.0, abs=0.2)
    assert media["sample_rate"] == 16000
    secret = tree / "secret"
    secret.write_bytes(b"secret")
    for told in (
        f"ffconcat version 1.0\nfile {video}\n",
        f"#EXTM3U\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n",
        "x" * 5000,
    ):
        fake = tree / "fake.mp4"
        fake.write_text(told)
        assert facts(fake).media == {}


@pytest.mark.parametrize(
    ("name", "codecs", "container"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", ("h264", "aac"), "mp4"),
        ("matroska,webm", ("vp9", "opus"), "webm"),
        ("matroska,webm", ("h264", "opus"), "matroska"),
        ("matroska,webm", ("vp8", None), "webm"),
        ("ogg", (None, "opus"), "ogg"),
    ],
)
def test_a_container_is_called_as_recfs_calls_it(
    name: str, codecs: tuple[str | None, str | None], container: str
) -> None:
    kinds = zip(("video", "audio"), codecs, strict=True)
    streams = [{"codec_type": kind, "codec_name": codec} for kind, codec in kinds if codec is not None]
    told = {"format": {"format_name": name}, "streams": streams}
    known = facts_of(json.dumps(told).encode())
    assert known is not None
    assert _found(told["format"], streams)["container"] == known.container == container  # type: ignore[arg-type]


def test_what_recfs_tells_of_a_recording_is_taken_as_far_as_it_is_right() -> None:
    told = {
        "container": "mp4", "mime": "video/mp4", "duration_s": 1.5, "width": 64, "height": "48", "frame_rate": -1,
        "channels": "many", "video_codec": 5, "tags": {"title": "Talk"}, "later": 1,
    }  # fmt: skip
    assert told_media(json.dumps(told)) == (
        {"container": "mp4", "mime": "video/mp4", "duration_s": 1.5, "width": 64, "height": 48}, {"title": "Talk"},
    )  # fmt: skip
    for wrong in (None, "", "{", "[]", "5", '{"tags": 5}', '"x"'):
        assert told_media(wrong) == ({}, {})
