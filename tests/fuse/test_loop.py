"""The request loop over real mounts: requests flow, everything else gets its turn, and every end is clean."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.modeless, pytest.mark.fuse, pytest.mark.timeout(60)]

LOOP_FS = Path(__file__).resolve().parents[1] / "helpers" / "loop_fs.py"
END_S = 20
STUCK_S = 30


class Served:
    """A mounted `loop_fs` in its own process, with one file on it."""

    def __init__(self, mountpoint: Path, mode: str) -> None:
        self.mountpoint = mountpoint
        mountpoint.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, str(LOOP_FS), str(mountpoint), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.process.communicate(timeout=END_S)
        # A caller stuck in a request that nobody answers cannot be interrupted; without a daemon it gets an error.
        self.watchdog = threading.Timer(STUCK_S, self.process.kill)
        self.watchdog.start()
        self.file = mountpoint / "file"
        self.file.write_bytes(b"x")

    def pull(self, lever: str) -> int:
        return int(os.getxattr(self.file, f"user.{lever}"))

    def stat(self, times: int) -> None:
        for _ in range(times):
            os.stat(self.file)

    def result(self) -> tuple[dict[str, Any], str]:
        """Wait for the end; what the process said of itself, and its log."""
        out, err = self.process.communicate(timeout=END_S)
        assert self.process.returncode == 0, err
        assert not os.path.ismount(self.mountpoint)
        said: dict[str, Any] = json.loads(out)
        return said, err

    def umount(self) -> None:
        subprocess.run(["fusermount3", "-u", self.mountpoint], check=True, timeout=END_S)

    def close(self) -> None:
        self.watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
            subprocess.run(["fusermount3", "-uz", self.mountpoint], check=False, timeout=END_S)
            self.process.communicate(timeout=END_S)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    running: list[Served] = []

    def start(mode: str) -> Served:
        running.append(Served(tmp_path / f"mnt{len(running)}", mode))
        return running[-1]

    yield start
    for served in running:
        served.close()


@pytest.fixture
def greedy(serve: Callable[[str], Served]) -> Served:
    """Served by a loop that never sleeps while requests come: nothing but the pacer lets others run."""
    return serve("greedy")


@pytest.fixture
def fs(serve: Callable[[str], Served]) -> Served:
    return serve("fast")


@pytest.fixture
def busy(fs: Served) -> Iterator[None]:
    """Keep requests coming from four threads, so that the loop has no reason of its own to pause."""
    stop = threading.Event()

    def keep_on() -> None:
        while not stop.is_set():
            fs.stat(50)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(keep_on) for _ in range(4)]
        yield
        stop.set()
    for future in futures:
        future.exception()  # what became of them is the test's business: it may have ended the file system


# --- requests flow ----------------------------------------------------------------------------------


def test_requests_are_served_by_the_fast_loop_and_pyfuse3_is_restored(fs: Served) -> None:
    fs.stat(1000)
    data = os.urandom(300_000)
    (fs.mountpoint / "other").write_bytes(data)
    assert (fs.mountpoint / "other").read_bytes() == data
    fs.umount()
    said, _ = fs.result()
    assert said["restored"]
    stats = said["stats"]
    assert stats["ready"] + stats["epoll_waits"] >= 1000
    assert stats["ready"] > 0


@pytest.mark.parametrize("suspended", [1, 50])
def test_suspended_handlers_stop_nobody(fs: Served, suspended: int) -> None:
    with ThreadPoolExecutor(suspended) as pool:
        waiting = [pool.submit(fs.pull, "wait") for _ in range(suspended)]
        while fs.pull("waiting") < suspended:
            pass
        fs.stat(1000)
        assert not any(future.done() for future in waiting)
        fs.pull("open")
        assert [future.result(timeout=END_S) for future in waiting] == [0] * suspended
    fs.stat(100)
    assert fs.pull("waiting") == 0


def test_timers_run_while_requests_keep_coming(greedy: Served) -> None:
    for _ in range(20_000):
        if greedy.pull("timer") >= 20:
            return
    pytest.fail("20 timers of 2 ms did not fire within 20000 requests")


def test_threads_report_back_while_requests_keep_coming(greedy: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: [greedy.pull("thread") for _ in range(20)])
        while not work.done():
            greedy.stat(10)
    assert len(work.result()) == 20


# --- ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("end", ["umount", "terminate", "cancel", "signal"])
def test_every_end_is_clean(request: pytest.FixtureRequest, fs: Served, end: str, load: bool) -> None:
    if load:
        request.getfixturevalue("busy")
    if end == "umount":
        # lazily under load, where the mount is busy: the session ends when its last user has gone
        subprocess.run(["fusermount3", "-uz" if load else "-u", fs.mountpoint], check=True, timeout=END_S)
    elif end == "signal":
        fs.process.send_signal(signal.SIGTERM)
    else:
        try:
            fs.pull(end)
        except OSError:
            pass  # the end may overtake the answer
    said, _ = fs.result()
    assert said["restored"]


def test_it_sleeps_when_idle(serve: Callable[[str], Served]) -> None:
    fs = serve("idle")
    fs.stat(100)

    def cpu_ns() -> int:
        return int(Path(f"/proc/{fs.process.pid}/schedstat").read_text().split()[0])

    before = cpu_ns()
    time.sleep(0.5)  # the span that is measured
    assert cpu_ns() - before < 10_000_000


def test_an_unexpected_pyfuse3_is_run_as_it_is(serve: Callable[[str], Served]) -> None:
    fs = serve("foreign")
    fs.stat(100)
    fs.umount()
    said, log = fs.result()
    assert log.count("using its own request loop") == 1
    assert said["restored"]
    assert said["stats"]["ready"] == said["stats"]["epoll_waits"] == 0
