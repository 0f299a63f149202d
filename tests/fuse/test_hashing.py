"""Files that take minutes to be hashed, beside everybody else's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .clients import state, wait_until, xattr
from .harness import Mount

pytestmark = pytest.mark.modes("auto")

HUGE = 300 << 30


def huge(path: Path) -> Path:
    """A closed sparse file, with a byte in front so that no other one says what it hashes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.truncate(path, HUGE)
    return path


def hashed(mount: Mount) -> list[str]:
    """Paths of what is being hashed."""
    return [file["path"] for file in mount.status()["pipeline"]["files"]]


@pytest.mark.slow
def test_huge_sparse_files_hold_nobody_up(mount: Mount, rec: Path, user: Path) -> None:
    other = mount.recording("999")
    images = [huge(rec / f"img{n}") for n in range(3)]
    wait_until(lambda: len(hashed(mount)) == 2, "two are hashed")
    small, large = other / "source.mp4", other / "large.mp4"
    small.write_bytes(b"take")
    large.write_bytes(os.urandom(70 << 20))
    wait_until(lambda: (state(small), state(large)) == ("committed", "committed"), "both are committed")
    assert xattr(small, "sha256")
    assert {state(image) for image in images} == {"sealing"}
    for image in images:
        image.unlink()
    wait_until(lambda: hashed(mount) == [], "nothing is hashed")
    mount.drain()


@pytest.mark.modes("auto", "off")
@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
def test_a_recording_beside_huge_files(mount: Mount, rec: Path) -> None:
    images = [huge(rec / f"img{n}") for n in range(2)]
    video = mount.recording("998") / "source.mkv"
    command = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-nostdin",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x180:rate=25:duration=4",
    ]
    subprocess.run([*command, "-threads", "1", str(video)], check=True, timeout=50)
    wait_until(lambda: state(video) == "committed", "it is committed")
    for image in images:
        image.unlink()
    mount.drain()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncate", "write", "replace", "rmtree"])
def test_hashing_ends_with_what_it_was_for(mount: Mount, rec: Path, how: str) -> None:
    image = huge(rec / "dir" / "img")
    wait_until(lambda: len(hashed(mount)) == 1, "it is hashed")
    if how == "truncate":
        os.truncate(image, 1)
    elif how == "write":
        image.write_bytes(b"new")
    elif how == "replace":
        (rec / "new").write_bytes(b"new")
        (rec / "new").rename(image)
    else:
        shutil.rmtree(image.parent)
    wait_until(lambda: hashed(mount) == [], "nothing is hashed")
    mount.drain()


@pytest.mark.slow
def test_an_unmount_does_not_wait_for_a_huge_file(store: Mount) -> None:
    image = huge(store.start().recording() / "img")
    wait_until(lambda: len(hashed(store)) == 1, "it is hashed")
    small = image.with_name("small")
    small.write_bytes(b"bytes")
    began = time.monotonic()
    store.terminate()
    assert time.monotonic() - began < 20  # of the 300 s that hashing it would take at the least
    assert re.search("stopping: hashing would take too long .*1 still `sealing`: users/1/recordings/1/img", store.log())
    store.start()
    assert (state(small), state(image)) == ("committed", "sealing")
    wait_until(lambda: len(hashed(store)) == 1, "it is hashed")
    store.umount()
    store.start()
    image.unlink()
    store.drain()


@pytest.mark.slow
def test_a_daemon_that_was_killed_while_it_hashed_hashes_again(store: Mount) -> None:
    image = huge(store.start().recording() / "img")
    wait_until(lambda: len(hashed(store)) == 1, "it is hashed")
    store.kill()
    store.start()
    assert state(image) == "sealing"
    wait_until(lambda: len(hashed(store)) == 1, "it is hashed")
    image.unlink()
    store.drain()


@pytest.mark.slow
@pytest.mark.needs("getfattr")
def test_who_asks_for_its_checksum_can_be_killed(mount: Mount, rec: Path) -> None:
    image = huge(rec / "img")
    wait_until(lambda: len(hashed(mount)) == 1, "it is hashed")
    with subprocess.Popen(["getfattr", "-n", "user.recfs.sha256", str(image)], stderr=subprocess.DEVNULL) as asking:
        wait_until(lambda: Path(f"/proc/{asking.pid}/wchan").read_text() not in ("", "0"), "it waits")
        asking.send_signal(signal.SIGKILL)
        asking.wait(40)
    image.unlink()
    mount.drain()
