"""recfs.client on a mount: what it writes is committed whole, and what it tells is what recfs knows."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
import wave
from pathlib import Path

import pytest

from recfs.client import (
    CommitTimeout,
    StorageBackend,
    StoragePathBuilder,
    Upload,
    atomic_write,
    events,
    facts,
    next_version,
    temp_job,
    wait_committed,
    wait_committed_async,
)
from recfs.client.filesystem import RecfsFileSystem

from .clients import wait_until
from .harness import Mount

pytestmark = pytest.mark.modes("auto")

DATA = b"0123456789" * 50_000


def inside(mount: Mount, path: Path) -> str:
    return str(path.relative_to(mount.path))


@pytest.mark.smoke
def test_what_is_saved_is_committed_with_what_is_known_of_it(mount: Mount, rec: Path) -> None:
    path = f"{inside(mount, rec)}/source.mp4"
    backend = StorageBackend(mount.path, mounted=True)
    saved = asyncio.run(backend.save(path, DATA, upload=Upload("Отчёт.mp4")))
    assert saved == str(mount.path / path)
    found = asyncio.run(wait_committed_async(saved, 30))
    assert (found.state, found.size_bytes) == ("committed", len(DATA))
    assert found.location in ("staging", "local")  # it comes to the home tree soon after
    assert found.sha256 == hashlib.sha256(DATA).hexdigest()
    assert found.md5 == hashlib.md5(DATA).hexdigest()
    assert (found.original_name, found.mime_type) == ("Отчёт.mp4", "video/mp4")
    assert facts(saved).sha256 == found.sha256
    assert mount.info(Path(saved))["xattrs"]["user.original_name"] == "Отчёт.mp4"
    assert os.listdir(rec) == ["source.mp4"]
    assert asyncio.run(backend.load(path)) == DATA
    user, recording = rec.parent.parent.name, rec.name
    paths = StoragePathBuilder(mount.path)
    assert paths.get_recording_size(user, recording) == len(DATA)
    assert paths.delete_recording_files(user, recording) == 1
    assert paths.get_recording_size(user, recording) == 0
    assert not asyncio.run(backend.exists(path))


def test_a_file_that_is_being_written_is_waited_for(rec: Path) -> None:
    path = rec / "video.mp4"
    with path.open("wb") as file:
        file.write(b"half")
        file.flush()
        with pytest.raises(CommitTimeout, match="still writing"):
            wait_committed(path, 0.05)
        assert facts(path).sha256 is None
        assert not facts(path).whole
        found: list[str | None] = []
        waiting = threading.Thread(target=lambda: found.append(wait_committed(path, 30).sha256))
        waiting.start()
        file.write(b" and all")
    waiting.join()
    assert found == [hashlib.sha256(b"half and all").hexdigest()]


@pytest.mark.needs("ffprobe")
def test_what_is_in_a_recording_is_told(rec: Path, tmp_path: Path) -> None:
    path, cut, plain = rec / "talk.wav", rec / "cut.wav", tmp_path / "talk.wav"
    with wave.open(str(plain), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16_000))
    with path.open("wb") as file:
        file.write(plain.read_bytes())
        assert (facts(path).verdict, facts(path).status) == (None, None)
    cut.write_bytes(plain.read_bytes()[:9000])
    (rec / "notes.txt").write_bytes(b"x")
    for each in (path, cut):
        wait_committed(each, 30)
        wait_until(lambda each=each: facts(each).verdict != "pending", "it was looked into")  # type: ignore[misc]
    told = {each: (found.verdict, found.status) for each in (path, cut) if (found := facts(each))}
    assert told == {path: ("whole", "completed"), cut: ("broken", "failed")}
    assert dict(facts(path).media) == {
        "container": "wav", "mime": "audio/wav", "duration_s": 1.0, "bitrate": 128_352, "audio_codec": "pcm_s16le",
        "sample_rate": 8000, "channels": 1,
    }  # fmt: skip
    assert {**facts(plain).media, "mime": "audio/wav"} == dict(facts(path).media)
    assert facts(path).mime_type == "audio/wav"
    assert not facts(path, media=False).media
    found = wait_committed(rec / "notes.txt", 30)
    assert (found.verdict, found.status, dict(found.media), dict(found.tags)) == (None, "completed", {}, {})


def test_a_file_that_is_written_again_and_again_is_not_waited_for_long(rec: Path) -> None:
    """Its commit is put off, for up to 30 s here: who waits for it has it now."""
    path = rec / "log.txt"
    for _ in range(12):
        with path.open("ab") as file:
            file.write(b"line\n")
    assert wait_committed(path, 10).size_bytes == 60


def test_writers_at_once_get_a_version_each(rec: Path) -> None:
    numbers: list[int] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(5):
            with next_version(rec, "topics") as version:
                version.file.write(b"%d" % threading.get_ident())
            numbers.append(version.number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 21))
    assert sorted(os.listdir(rec)) == sorted(f"topics_v{number}.json" for number in numbers)


def test_a_limit_leaves_nothing_and_the_old_file(mount: Mount, rec: Path) -> None:
    path = rec / "a.bin"
    with atomic_write(path) as file:
        file.write(b"old")
    os.setxattr(rec.parent.parent, "user.recfs.quota.max_bytes", b"100000")
    with pytest.raises(OSError, match="quota"), atomic_write(path) as file:
        file.write(DATA)
    assert path.read_bytes() == b"old"
    assert os.listdir(rec) == ["a.bin"]


def test_jobs_and_fsspec_on_a_mount(mount: Mount, user: Path, rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with temp_job(user.name, root=mount.path) as job:
        (job / "a").write_bytes(b"x")
    assert not job.exists()
    monkeypatch.setenv("RECFS_MOUNTPOINT", str(mount.path))
    fs = RecfsFileSystem()
    fs.pipe_file(f"{inside(mount, rec)}/assets/a.csv", b"a,b")
    fs.mv(f"{inside(mount, rec)}/assets", f"{inside(mount, rec)}/moved")
    assert fs.find(inside(mount, rec)) == [f"{inside(mount, rec)}/moved/a.csv"]
    assert wait_committed(rec / "moved" / "a.csv", 30).size_bytes == 3


def test_events_are_heard_by_the_mount(mount: Mount, rec: Path) -> None:
    stream = events(mount.path, since="now", kinds=["committed"], user=rec.parent.parent.name)
    heard: list[str] = []
    listening = threading.Thread(target=lambda: heard.extend(each.path for each in itertools.islice(stream, 1)))
    first = events(rec, since="now", follow=False)
    assert list(first) == []
    stream.cursor = first.cursor  # what comes from now on, however late it begins to listen
    listening.start()
    with atomic_write(rec / "a.mp4") as file:
        file.write(b"x")
    wait_committed(rec / "a.mp4", 30)
    listening.join(60)
    assert len(heard) == 1
    assert heard[0].startswith(f"{inside(mount, rec)}/")
