"""A real daemon whose wall clock is put ahead and back, by a library that stands between it and the kernel's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .clients import wait_until
from .harness import BASE_CONFIG, Mount
from .s3 import S3, s3  # noqa: F401

pytestmark = [pytest.mark.modeless, pytest.mark.slow, pytest.mark.needs("gcc")]

DAYS = 86_400
CONFIG = f'{BASE_CONFIG}[temp]\nmax_age = "24h"\nsweep_interval = "1h"\n'
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, which, now);
    if (result == 0 && which == CLOCK_REALTIME) {
        char text[32] = {0};
        int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (read(fd, text, sizeof text - 1) > 0)
                now->tv_sec += atol(text);
            close(fd);
        }
    }
    return result;
}
"""
Put = Callable[[int], None]


@pytest.fixture
def wall(tmp_path: Path) -> tuple[dict[str, str], Put]:
    """Environment of a daemon with a clock of its own, and what puts that ahead of the machine's by some seconds."""
    (tmp_path / "clock.c").write_text(SHIM)
    library = tmp_path / "clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "clock.c"], check=True, timeout=60)
    offset = tmp_path / "offset"

    def put(seconds: int) -> None:
        aside = offset.with_suffix(".new")
        aside.write_text(str(seconds))
        aside.rename(offset)

    put(0)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}, put


def kept(store: Mount) -> bool:
    (job,) = store.call("sweep_temp", dry_run=False)["jobs"]
    return bool(job["action"] == "kept")


@pytest.mark.parametrize("ahead_s", [3 * DAYS, -3 * DAYS])
def test_a_fresh_job_stays_whatever_the_clock_says(
    store: Mount, wall: tuple[dict[str, str], Put], ahead_s: int
) -> None:
    env, put = wall
    store.expect_log("the clock was put")
    store.start(config=CONFIG, env=env)
    (store.path / "temp/5/1").mkdir(parents=True)
    (store.path / "temp/5/1/file").write_bytes(b"fresh")
    store.drain()
    put(ahead_s)
    assert kept(store)
    assert store.status()["clock"] == f"put {'ahead' if ahead_s > 0 else 'back'} by 3d"
    store.umount()
    put(0)
    store.remount()
    assert kept(store)
    store.umount()
    put(ahead_s)
    store.remount()
    assert kept(store)
    assert (store.path / "temp/5/1/file").read_bytes() == b"fresh"


@pytest.mark.parametrize("restarts", [False, True])
def test_an_upload_does_not_wait_for_the_clock(
    s3: S3,  # noqa: F811
    store: Mount,
    wall: tuple[dict[str, str], Put],
    restarts: bool,
) -> None:
    """Begun two hours ahead, and put right while the file settles."""
    env, put = wall
    store.expect_log("the clock was put")
    put(7200)
    store.start(config=s3.config(upload={"settle": "2s"}), env=env)
    recording = store.path / "users/5/recordings/1"
    recording.mkdir(parents=True)
    (recording / "source.bin").write_bytes(b"the take")
    put(0)
    if restarts:
        wait_until(lambda: not store.status()["states"].get("writing"), "it is closed")
        store.kill()
        store.remount()
    wait_until(lambda: s3.paths() == {"users/5/recordings/1/source.bin"}, "the file is in S3")
