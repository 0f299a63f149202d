"""temp/<user>/<job>: swept when its last change is old enough, never while a file in it is open."""

from __future__ import annotations

import errno
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .clients import Peer, recfs, wait_until, xattr
from .harness import BASE_CONFIG, Mount, errno_is

pytestmark = pytest.mark.modeless

# The background sweep would take what the tests look at; they call for the sweep themselves.
NO_BACKGROUND = 'sweep_interval = "1h"\n'


def job(store: Mount, name: str, *, user: str = "5", size: int = 1000) -> Path:
    """Make temp/<user>/<name> with a file and a subdirectory."""
    path = store.path / "temp" / user / name
    (path / "sub").mkdir(parents=True)
    (path / "file").write_bytes(bytes(size))
    (path / "sub" / "deep").write_bytes(bytes(size))
    return path


def is_gone(path: Path) -> bool:
    return not path.exists()


def sweep_all(store: Mount, *, dry_run: bool = False) -> dict[str, dict[str, Any]]:
    """Sweep when every job has reached its age, be it of one millisecond."""
    wait_until(lambda: all(v["action"] == "expired" for v in sweep(store, dry_run=True).values()), "the jobs are old")
    return sweep(store, dry_run=dry_run)


def sweep(store: Mount, *, dry_run: bool = False) -> dict[str, dict[str, Any]]:
    """Sweep and return the verdicts by path."""
    jobs: list[dict[str, Any]] = store.call("sweep_temp", dry_run=dry_run)["jobs"]
    return {j["path"]: j for j in jobs}


@pytest.fixture
def expiring(store: Mount) -> Mount:
    """A store whose jobs are old at once."""
    return store.start(config=f'{BASE_CONFIG}[temp]\nmax_age = "1ms"\n{NO_BACKGROUND}')


def test_a_dry_run_removes_nothing(expiring: Mount) -> None:
    path = job(expiring, "1")
    verdicts = sweep_all(expiring, dry_run=True)
    assert verdicts["temp/5/1"]["action"] == "expired"
    assert (verdicts["temp/5/1"]["rbytes"], verdicts["temp/5/1"]["rfiles"]) == (2000, 2)
    assert (path / "file").read_bytes() == bytes(1000)


def test_expired_jobs_go_and_the_kernel_knows(expiring: Mount) -> None:
    paths = [job(expiring, str(n)) for n in range(3)]
    known = [path / "sub" / "deep" for path in paths]
    for path in known:
        assert path.stat().st_size == 1000  # the kernel has the names in its cache now
    verdicts = sweep_all(expiring)
    assert {v["action"] for v in verdicts.values()} == {"expired"}
    for path in [*known, *paths]:  # the kernel is told asynchronously
        wait_until(partial(is_gone, path), f"the kernel forgets {path}")
        with errno_is(errno.ENOENT):
            path.stat()
        with errno_is(errno.ENOENT):
            os.open(path, os.O_RDONLY)
    expiring.drain()
    assert expiring.quota("5")["used_bytes"] == 0
    assert expiring.leftovers("staging") == expiring.leftovers("trash") == []
    assert not [p for p in (expiring.root / "temp").rglob("*") if p.is_file()], "the bytes are still at home"
    expiring.assert_consistent()
    again = job(expiring, "1")  # the same name can be used again
    assert (again / "file").read_bytes() == bytes(1000)


def test_a_job_with_an_open_file_is_kept(expiring: Mount) -> None:
    busy, idle = job(expiring, "1"), job(expiring, "2")
    for flags in (os.O_RDONLY, os.O_WRONLY):
        with os.fdopen(os.open(busy / "sub" / "deep", flags), "rb" if flags == os.O_RDONLY else "wb"):
            wait_until(lambda: "temp/5/2" not in sweep(expiring), "the other job is gone")
            verdict = sweep(expiring)["temp/5/1"]
            assert verdict["action"] == "kept"
            assert "open" in verdict["reason"], verdict
            assert (busy / "file").exists()
            assert not idle.exists()
    wait_until(lambda: sweep(expiring)["temp/5/1"]["action"] == "expired", "the closed job expires")
    assert not busy.exists()


def test_a_job_counts_from_its_last_change(store: Mount) -> None:
    store.start(config=f'{BASE_CONFIG}[temp]\nmax_age = "10m"\n{NO_BACKGROUND}')
    path = job(store, "1")
    os.utime(path, (0, 0))  # an old time stamp is not an old change
    os.utime(path / "file", (0, 0))
    verdict = sweep(store)["temp/5/1"]
    assert verdict["action"] == "kept"
    assert verdict["age_s"] < 60
    assert (path / "file").exists()


def test_jobs_of_every_user_and_uuid_are_swept(expiring: Mount) -> None:
    uuid = "0f8fad5b-d9cb-469f-a165-70867728950e"
    paths = [job(expiring, "1"), job(expiring, uuid, user="6"), job(expiring, "7", user=uuid)]
    recording = expiring.recording(5, 1)
    (recording / "file").write_bytes(b"stays")
    assert set(sweep_all(expiring)) == {"temp/5/1", f"temp/6/{uuid}", f"temp/{uuid}/7"}
    wait_until(lambda: not any(path.exists() for path in paths), "the kernel forgets them")
    assert (recording / "file").read_bytes() == b"stays"


def test_the_command(expiring: Mount) -> None:
    path = job(expiring, "1")
    sweep_all(expiring, dry_run=True)
    dry = json.loads(recfs("sweep", "temp", "--dry-run", "--json", "--root", expiring.root).stdout)
    assert [j["action"] for j in dry["jobs"]] == ["expired"]
    assert path.exists()
    assert b"temp/5/1" in recfs("sweep", "temp", "--root", expiring.root).stdout
    assert not path.exists()


def test_the_background_sweep(store: Mount) -> None:
    store.start(config=f'{BASE_CONFIG}[temp]\nmax_age = "1ms"\nsweep_interval = "100ms"\n')
    path = store.path / "temp" / "5" / "1"
    path.mkdir(parents=True)
    with (path / "file").open("wb") as stream:
        stream.write(b"x")
        assert xattr(path, "rfiles") == "1"
    wait_until(lambda: not path.exists(), "the job is swept")
    store.drain()
    assert store.quota("5")["used_files"] == 0


def test_sweeping_without_a_daemon(expiring: Mount) -> None:
    path = job(expiring, "1")
    sweep_all(expiring, dry_run=True)
    expiring.umount()
    conf = expiring.base / "recfs.conf"
    dry = json.loads(recfs("sweep", "temp", "--dry-run", "--json", "--config", conf).stdout)
    assert [j["action"] for j in dry["jobs"]] == ["expired"]
    recfs("sweep", "temp", "--config", conf)
    expiring.remount()
    assert not path.exists()
    assert expiring.quota("5")["used_bytes"] == 0
    expiring.assert_consistent()


def test_a_file_that_is_still_mapped_keeps_its_job(expiring: Mount) -> None:
    """Its descriptor is closed, and the program goes on writing to it."""
    path = job(expiring, "7")
    with Peer() as writer:
        writer(f"fd = os.open({str(path / 'file')!r}, os.O_RDWR)")
        writer("view = map_shared(fd, 1000)")
        writer("view[0] = b'x'")
        writer("os.close(fd)")
        wait_until(
            lambda: "open" in sweep(expiring, dry_run=True)["temp/5/7"]["reason"], "it is found out that it is mapped"
        )
        assert sweep(expiring)["temp/5/7"]["action"] == "kept"
        writer("view[999] = b'y'")
        writer("unmap(view)")
    wait_until(lambda: sweep(expiring, dry_run=True)["temp/5/7"]["action"] == "expired", "nobody has it any more")
    assert (path / "file").read_bytes() == b"x" + bytes(998) + b"y"
