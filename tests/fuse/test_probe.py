"""Looks into files on a mount: they go on in the next daemon, whether it was handed the mount or found it dead."""

from __future__ import annotations

import os
import shutil
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from .clients import wait_until, xattr
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.slow, pytest.mark.modes("auto"), pytest.mark.needs("ffprobe")]

LONG, SHORT = 'timeout = "1m"', 'timeout = "3s"'
SLEEP = f"{1_000_000 + os.getpid()}"
"""Seconds: a word by which the process is found."""


@pytest.fixture
def held() -> Iterator[Path]:
    """A directory for PATH in which ffprobe never ends by itself."""
    folder = Path(tempfile.mkdtemp(prefix="recfs-programs-"))
    folder.chmod(0o755)
    program = folder / "ffprobe"
    program.write_text(
        '#!/bin/sh\nif [ "$1" = -protocols ]; then echo ffprobe version 7.1 >&2; echo fd; exit; fi\n'
        f"exec /bin/sleep {SLEEP}\n"
    )
    program.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def probes() -> set[int]:
    """Those that run now."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"/bin/sleep", SLEEP.encode()]:
            found.add(int(entry.name))
    return found


def test_a_look_goes_on_in_the_next_daemon_and_no_program_outlives_its_own(store: Mount, held: Path) -> None:
    path = {"PATH": f"{held}:{os.environ['PATH']}"}
    store.start(config=f"{BASE_CONFIG}[media]\n{LONG}\n", env=path)
    audio = store.recording() / "audio.wav"
    with wave.open(str(audio), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    (first,) = wait_until(probes, "the file is looked into")

    conf = store.base / "recfs.conf"
    conf.write_text(conf.read_text().replace(LONG, SHORT))  # the successor's alarm is to ring soon
    store.upgrade()
    assert first not in probes()
    (second,) = wait_until(probes, "the successor looks into it")
    store.kill()
    assert second in probes()  # nobody has told it yet

    store.start(config=f"{BASE_CONFIG}[media]\n{LONG}\n")
    wait_until(lambda: xattr(audio, "media") != "pending", "the file is looked into after the death")
    assert (xattr(audio, "media"), xattr(audio, "duration")) == ("whole", "1")
    assert store.status()["media"]["looks"] == {"whole": 1}
    wait_until(lambda: not probes(), "the program of the dead daemon has ended by itself", 30.0)
