"""Another daemon goes on with a mount while FFmpeg records into it: `recfs upgrade`, kill -9, and a restart by systemd.

16 recorders copy a clip in real time: single files, files of a second each (a create a second), and HLS (a rename a
second, too). Beside them somebody looks, makes, renames and removes without a break. It is required that nobody sees
an error, and that each file is committed with the checksums of its bytes; measured is the longest wait of anybody.
"""

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar

from tests.helpers.descriptor_store import DescriptorStore

from .measure import Sample
from .recfs_target import RecfsTarget, is_recfs
from .remux import ffmpeg
from .spec import Better, Context, Metric, Workload
from .target import START_TIMEOUT_S, TargetError

UPGRADED = Metric(
    "restart_upgrade", "{restarts} upgrades, {writers} recorders: longest wait", "s", Better.LOWER, bar=2.0
)
KILLED = Metric("restart_kill", "{restarts} kill -9, {writers} recorders: longest wait", "s", Better.LOWER, bar=2.0)
LEFT = Metric(
    "restart_leave", "{restarts} restarts by systemd, {writers} recorders: longest wait", "s", Better.LOWER, bar=2.0
)

BOTH = Metric(
    "restart_both", "{restarts} restarts by systemd and kill -9 each, in turns: longest wait", "s", Better.LOWER,
    bar=2.0,
)  # fmt: skip

BETWEEN_S = 1.5
"""From one restart to the next."""
RESTART_S = 0.1
"""RestartSec of systemd/recfs@.service."""
STATS_S = 0.1
"""A recorder tells so often how far it is; it cannot be seen to wait for less."""
ROUND_TIMEOUT_S = 60.0
CLIP_S = 900
END_S = 60.0

_LOOKS = """
import json, os, sys, time
folder, end = sys.argv[1:]
worst, rounds, failed, last = 0.0, 0, [], time.monotonic()
while not os.path.exists(end):
    rounds += 1
    try:
        os.statvfs(folder)
        made, other = f"{folder}/look{rounds}", f"{folder}/other"
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, b"%d" % rounds)
            assert os.pread(fd, 100, 0) == b"%d" % rounds
        finally:
            os.close(fd)
        assert f"look{rounds}" in os.listdir(folder)
        os.rename(made, other)
        assert not os.path.exists(made)
        assert os.stat(other).st_size == len(b"%d" % rounds)
        os.unlink(other)
    except (OSError, AssertionError) as error:
        failed.append(repr(error))
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    print(rounds, flush=True)
    time.sleep(0.005)
    last = time.monotonic()
print(json.dumps({"worst_s": worst, "failed": failed}), flush=True)
"""


class _Kept(RecfsTarget):
    """A daemon in the foreground, whose descriptors are kept should it die: the test's service manager starts it."""

    name = "recfs-kept"
    _SHELL: ClassVar[str] = 'LISTEN_PID=$$ exec "$@"'

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        keeping = home / "kept"
        keeping.mkdir(parents=True)
        self._keeper = DescriptorStore(keeping)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home / "daemon.log"

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if self._process is None:
            self.tree.mkdir(exist_ok=True)
        told = self.home / "ready"
        told.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(told))
            env, kept = self._keeper.hand_over(str(told))
            # As sd_listen_fds(3) has it: from 3 on.
            moved = "".join(f"exec {3 + index}<&{fd}; " for index, fd in enumerate(kept))
            self._process = subprocess.Popen(
                ["bash", "-c", moved + self._SHELL, "recfs", self.command, "mount", "--root", self.root, self.tree],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | env, pass_fds=kept,
                start_new_session=True,
            )  # fmt: skip
            self._pid = self._process.pid
            deadline = time.monotonic() + START_TIMEOUT_S
            while not (select.select([ready], [], [], 0.05)[0] and b"READY=1" in ready.recv(4096)):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise TargetError(f"recfs mount is not ready: {self.log.read_text(errors='replace')[-2000:]}")

    def leave(self) -> None:
        """End it as `systemctl restart` does, but for the start of `ExecStop`, and have the next one go on."""
        assert self._process is not None
        self.call("leave")
        if self._process.wait(END_S) != 0:
            raise TargetError(f"recfs mount ended with {self._process.returncode}")
        self.start()

    def kill(self) -> None:
        """End it as nobody can expect, and have the next one go on."""
        assert self._process is not None
        if len(self._keeper.kept) < 2:
            raise TargetError("the mount is not kept")
        self._process.kill()
        self._process.wait()
        time.sleep(RESTART_S)
        self.start()

    def stop(self) -> None:
        try:
            if self._process is not None:
                super().stop()
                self._process.wait(END_S)
                self._process = None
        finally:
            self._keeper.close()


class _Upgraded(RecfsTarget):
    """A daemon that leaves its mount to another one."""

    name = "recfs-upgraded"

    def upgrade(self) -> None:
        """As `recfs upgrade` does it."""
        before = self._pid
        subprocess.run([self.command, "upgrade", "--root", self.root], check=True, capture_output=True, timeout=180)
        self._pid = int(self.call("status")["pid"])
        if self._pid == before:
            raise TargetError("recfs upgrade: the same process goes on")


# --- recorders ---------------------------------------------------------------------------------------------------


def _clip(context: Context) -> Path:
    """Video and sound, longer than anybody records here: what FFmpeg repeats has gaps, of which it complains."""
    path = context.scratch / "recorded.ts"
    if not path.exists():
        picture, sound = f"testsrc2=size=320x180:rate=10:duration={CLIP_S}", f"sine=duration={CLIP_S}"
        codecs = ("-c:v", "mpeg4", "-b:v", "500k", "-g", "10", "-c:a", "aac")
        ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *codecs, path)
    return path


def _outputs(folder: Path, number: int) -> list[str]:
    """What FFmpeg is told of where it records to."""
    hls = ["-f", "hls", "-hls_time", "1", "-hls_list_size", "0", f"{folder}/index.m3u8"]
    kinds = (
        ["-f", "mpegts", f"{folder}/source.ts"],
        ["-f", "mp4", "-movflags", "+frag_keyframe+empty_moov", "-bsf:a", "aac_adtstoasc", f"{folder}/source.mp4"],
        ["-f", "segment", "-segment_time", "1", "-segment_format", "mpegts", f"{folder}/part%05d.ts"],
        hls,
    )
    return kinds[number % len(kinds)]


class _Recorders:
    """FFmpeg, so many times; keeps how long each was seen to get no further."""

    def __init__(self, clip: Path, top: Path, count: int) -> None:
        self.folders = [top / "users" / str(number + 2) / "recordings" / "1" for number in range(count)]
        self._running: list[subprocess.Popen[bytes]] = []
        self._said: list[IO[bytes]] = []
        self.worst_s = 0.0
        self.told = [0] * count
        """How often each said that it is further."""
        for number, folder in enumerate(self.folders):
            folder.mkdir(parents=True)
            command = ["ffmpeg", "-loglevel", "error", "-nostats", "-progress", "pipe:1", "-stats_period", str(STATS_S)]
            command += ["-re", "-i", str(clip), "-c", "copy", "-flush_packets", "1"]
            self._said.append(tempfile.TemporaryFile())  # noqa: SIM115  (open as long as its recorder)
            self._running.append(
                subprocess.Popen(
                    command + _outputs(folder, number),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said[-1],
                    start_new_session=True,
                )
            )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        """Whoever writes more than it had is not waiting: FFmpeg tells so itself (total_size, out_time)."""
        poll = select.poll()
        by_fd = {}
        for number, each in enumerate(self._running):
            assert each.stdout is not None
            os.set_blocking(each.stdout.fileno(), False)
            poll.register(each.stdout, select.POLLIN)
            by_fd[each.stdout.fileno()] = number
        last: dict[int, float] = {}
        while not self._over.is_set():
            for fd, _ in poll.poll(100):
                data = os.read(fd, 1 << 16)
                if not data:
                    poll.unregister(fd)
                elif b"progress=continue" in data:
                    now, number = time.monotonic(), by_fd[fd]
                    self.worst_s = max(self.worst_s, now - last.get(number, now))
                    last[number] = now
                    self.told[number] += 1

    def end(self) -> None:
        """Have each end as its user does. Raises AssertionError for one that saw an error."""
        self._over.set()
        self._thread.join()
        for each in self._running:
            assert each.stdin is not None
            each.stdin.write(b"q")
            each.stdin.close()
        for number, (each, log) in enumerate(zip(self._running, self._said, strict=True)):
            assert each.stdout is not None
            os.set_blocking(each.stdout.fileno(), True)
            each.stdout.read()
            code = each.wait(END_S)
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
            if code or said:
                raise AssertionError(f"recorder {number} ended with {each.returncode}: {said}")

    def kill(self) -> None:
        """Whatever still runs."""
        self._over.set()
        self._thread.join()
        for each in self._running:
            each.kill()
            each.wait()


class _Looks:
    """The process that looks, makes, renames and removes."""

    def __init__(self, folder: Path, end: Path) -> None:
        folder.mkdir(parents=True)
        self._end = end
        end.unlink(missing_ok=True)
        command = [sys.executable, "-S", "-E", "-c", _LOOKS, str(folder), str(end)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        self.rounds = 0
        self._told: dict[str, float | list[str]] = {}
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                self._told = json.loads(line)
            else:
                self.rounds = int(line)

    def end(self) -> float:
        """The longest round, in seconds. Raises AssertionError when one failed."""
        self._end.touch()
        self._thread.join(END_S)
        if self._process.wait(END_S) or self._told.get("failed", [""]):
            raise AssertionError(f"who looks beside the recorders saw {self._told or 'no end'}")
        worst = self._told["worst_s"]
        assert isinstance(worst, float)
        return worst

    def kill(self) -> None:
        """Whatever it does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._thread.join(END_S)


@contextmanager
def _busy(context: Context, store: RecfsTarget) -> Iterator[tuple[_Recorders, _Looks]]:
    recorders = _Recorders(_clip(context), store.tree, context.sizes.writers)
    try:
        looks = _Looks(store.tree / "users" / "1" / "recordings" / "1", context.scratch / "over")
        try:
            yield recorders, looks
        finally:
            looks.kill()
    finally:
        recorders.kill()


def _wait_further(recorders: _Recorders, looks: _Looks) -> None:
    """Until each recorder has told twice that it is further, and who looks has come round."""
    told, rounds = list(recorders.told), looks.rounds
    deadline = time.monotonic() + ROUND_TIMEOUT_S
    while looks.rounds < rounds + 3 or any(now < then + 2 for now, then in zip(recorders.told, told, strict=True)):
        if time.monotonic() > deadline:
            stuck = [
                number for number, (now, then) in enumerate(zip(recorders.told, told, strict=True)) if now < then + 2
            ]
            raise AssertionError(f"recorders that get no further: {stuck}; looks: {looks.rounds - rounds}")
        time.sleep(0.05)


def _judge_files(store: RecfsTarget, folders: list[Path]) -> None:
    """Each file is committed, with the checksum of its bytes, and plays. Raises AssertionError."""
    for folder in folders:
        files = [each for each in folder.iterdir() if each.is_file()]
        if not files:
            raise AssertionError(f"{folder} is empty")
        for file in files:
            state = os.getxattr(file, "user.recfs.state").decode()
            known, found = os.getxattr(file, "user.recfs.sha256").decode(), hashlib.sha256(file.read_bytes())
            if state != "committed" or known != found.hexdigest():
                raise AssertionError(f"{file} is {state}, sha256 {known}, and has {found.hexdigest()}")
        for whole in folder.glob("source.*"):
            ffmpeg("-i", whole, "-c", "copy", "-f", "null", "-")
    found = store.call("quota_check", repair=False)
    if found["differences"]:
        raise AssertionError(f"counters differ: {found}")
    if set(states := store.call("status")["states"]) - {"committed"}:
        raise AssertionError(f"not all is committed: {states}")


def _measure(context: Context, store: RecfsTarget, metric: Metric, *ways: Callable[[], None]) -> None:
    """Restart in each of these ways, in turns."""
    try:
        store.start()
        with _busy(context, store) as (recorders, looks):
            _wait_further(recorders, looks)
            for _ in range(context.sizes.restarts):
                for again in ways:
                    again()
                    _wait_further(recorders, looks)
                    time.sleep(BETWEEN_S)
            waited = looks.end()
            recorders.end()
            context.put(metric.key, Sample(max(waited, recorders.worst_s - STATS_S), None))
            store.settle()
            _judge_files(store, recorders.folders)
    finally:
        store.stop()


def _upgrade(context: Context) -> None:
    store = _Upgraded(context.target.home / f"upgraded-{context.round_index}")
    _measure(context, store, UPGRADED, store.upgrade)


def _kill(context: Context) -> None:
    store = _Kept(context.target.home / f"kept-{context.round_index}")
    _measure(context, store, KILLED, store.kill)


def _leave(context: Context) -> None:
    store = _Kept(context.target.home / f"left-{context.round_index}")
    _measure(context, store, LEFT, store.leave)


def _both(context: Context) -> None:
    store = _Kept(context.target.home / f"both-{context.round_index}")
    _measure(context, store, BOTH, store.leave, store.kill)


WORKLOADS = (
    Workload("restart-upgrade", (UPGRADED,), _upgrade, applies=is_recfs, warm_up=False),
    Workload("restart-kill", (KILLED,), _kill, applies=is_recfs, warm_up=False),
    Workload("restart-leave", (LEFT,), _leave, applies=is_recfs, warm_up=False),
    Workload("restart-both", (BOTH,), _both, applies=is_recfs, warm_up=False),
)
