"""A recfs daemon in a subprocess, mounted for a test: started, watched, logged, and always taken down.

Nothing here knows the inside of recfs: it uses the command line, the control socket, and the kernel.
Everything has a deadline; `abort_all` is what the watchdog calls when a test hangs on a mount.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.helpers import forkserver
from tests.helpers.descriptor_store import DescriptorStore

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 90.0
KILL_TIMEOUT_S = 10.0
DRAIN_TIMEOUT_S = 90.0
BUSY_TIMEOUT_S = 60.0
"""How long a process that is ending may hold on to a mount."""

# A daemon that logs one of these did something it did not expect. Tests that provoke it say so (expect_log).
_TROUBLE = re.compile(
    r"^Traceback \(most recent call last\)|\b(ERROR|CRITICAL)\b|^Fatal Python error|"
    r"^(Exception ignored|Unraisable)",
    re.MULTILINE,
)

_FOR_EXEC = ("PYTHON", "LD_", "RECFS_TEST_WITHOUT")
"""Beginnings of variables that only a program hears of that is started by exec."""


class Started(NamedTuple):
    """How a daemon was started, apart from `extra` arguments."""

    extra: tuple[str, ...] = ()
    config: str | None = None
    env: Mapping[str, str] = MappingProxyType({})
    prefix: Sequence[str] = ()
    keeper: DescriptorStore | None = None


ROOT_USER = os.geteuid() == 0

# Settle at once and hold back no disk: a test box may have less than the default reserve of 1 GiB.
BASE_CONFIG = 'min_free = "1 MiB"\n'


def mounted(path: Path) -> bool:
    """Tell whether a file system is mounted on `path`, dead ones included (so no stat)."""
    return str(path) in mount_points()


def mount_points() -> list[str]:
    """List the mount points of this namespace, unescaped as proc(5) describes."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in lines]


def sizes_below(top: Path) -> Iterator[tuple[Path, int]]:
    """Each file below a directory of a store, with its size; what a daemon takes away meanwhile is left out."""
    for folder, _, names in os.walk(top):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.lstat().st_size


def lazy_unmount(path: Path) -> None:
    """Take `path` out of the tree even when it is busy or dead."""
    while mounted(path):
        if ROOT_USER:
            command = ["umount", "--lazy", str(path)]
        else:
            command = ["fusermount3", "-uz", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, timeout=10)
        if done.returncode and mounted(path):  # else another worker swept it at the same moment
            raise AssertionError(f"{path} cannot be unmounted: {done.stderr!r}")


def users_of(mount: Path) -> dict[int, str]:
    """Which processes use a mount, by process id, and by what: `descriptor 3: /mnt/file` or `cwd: /mnt`.

    readlink(2) in /proc asks no daemon, so it does not hang on a dead mount.
    """
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended while we looked
            links = [*(process / "fd").iterdir(), *(process / "map_files").iterdir()]
            for link in [process / "cwd", process / "root", process / "exe", *links]:
                with contextlib.suppress(OSError):
                    target = Path(os.readlink(link))
                    if target.is_relative_to(mount):
                        name = (process / "comm").read_text().strip()
                        found[int(process.name)] = f"{name}, {link.relative_to(process)}: {target}"
    return found


class Successor:
    """A daemon that was started by another one, to go on with its mount: as much of Popen as the harness uses.

    It is nobody's child here, so its exit code is not known: 0 stands for an end, whatever it was.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(["recfs"], timeout or 0.0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._descriptor], [], [], timeout)[0]:
            self.returncode = 0
            os.close(self._descriptor)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Mount:
    """One store and its mount point, with the daemon that serves them (or not, after umount).

    `path` is the mount point, `root` the store. A daemon that dies without being told to, or
    logs trouble that was not announced by `expect_log`, fails the test in `check`.
    """

    passthrough = "auto"
    """Value of the config key of that name for daemons started from now on; a config that has the key wins."""
    alive: list[Mount] = []  # noqa: RUF012  (the one registry the watchdog and the log guard go through)

    def __init__(self, base: Path, *, root: Path | None = None) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.base = base
        self.path = base / "mnt"
        self.root = root if root is not None else base / "root"
        self.path.mkdir(exist_ok=True)
        self.root.mkdir(exist_ok=True)
        self.log_path = base / "daemon.log"
        self.log_path.touch()
        self.process: subprocess.Popen[bytes] | forkserver.Forked | Successor | None = None
        self.aborted = False
        self._log = b""
        self._log_seen = 0
        self._expected: list[re.Pattern[str]] = []
        self.started = Started()

    # -- starting ---

    def start(
        self,
        *extra: str,
        config: str | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        keeper: DescriptorStore | None = None,
    ) -> Mount:
        """Start the daemon and return when it answers. `config` is the text of recfs.conf without `root`.

        `env`: more environment of the daemon. `prefix`: a command that execs the daemon ("prlimit", "--nofile=400").
        `keeper`: keeps descriptors for it from one start to the next, as a service manager.
        """
        self.started = Started(extra, config, env or {}, prefix, keeper)
        notify_path = self.base / "notify"
        notify_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(notify_path))
            notify_path.chmod(0o666)
            self.process = self.spawn(self.started, notify_path)
            Mount.alive.append(self)
            self._await_ready(notify)
        return self

    def try_start(self, *extra: str, config: str | None = None, path: Path | None = None) -> tuple[int, str]:
        """Start a daemon that should refuse; return its exit code and what it said."""
        offset = self.log_path.stat().st_size
        process = self.spawn(Started(extra, config), None, path=path, debug=False)
        try:
            code = process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            lazy_unmount(path or self.path)
            pytest.fail(f"a start that should be refused went on:\n{self._log_from(offset)}")
        said = self._log_from(offset)
        assert "Traceback" not in said, f"a refusal is a message, not a traceback:\n{said}"
        self._log_seen = max(self._log_seen, self.log_path.stat().st_size)
        return code, said

    def spawn(
        self, how: Started, notify: Path | None, *, path: Path | None = None, debug: bool = True
    ) -> subprocess.Popen[bytes] | forkserver.Forked:
        """Have a daemon begin; it says on the socket *notify* that it is ready. For `start` and its like."""
        if how.config is None and Mount.passthrough == "auto":
            where = ["--root", str(self.root)]
        else:
            conf = self.base / "recfs.conf"
            text = f'root = "{self.root}"\n{how.config or ""}'
            if "passthrough =" not in text and Mount.passthrough != "auto":
                text = f'passthrough = "{Mount.passthrough}"\n{text}'
            conf.write_text(text)
            where = ["--config", str(conf)]
        # --debug: a daemon that dies of a bug shows its traceback
        args = ["mount", *where, *(["--debug"] if debug else []), *how.extra, str(path or self.path)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("RECFS_") and k != "NOTIFY_SOCKET"}
        # faulthandler lets the watchdog learn where a hanging daemon stands: SIGABRT prints every stack.
        env |= {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | dict(how.env)
        passed: Sequence[int] = ()
        if notify is not None:
            env["NOTIFY_SOCKET"] = str(notify)
            if how.keeper is not None:
                told, passed = how.keeper.hand_over(str(notify))
                env |= told
        with self.log_path.open("ab") as log:
            if not how.prefix and not any(name.startswith(_FOR_EXEC) for name in how.env):
                fd = log.fileno()
                return forkserver.spawn(args, env=env, cwd=REPOSITORY, stdout=fd, stderr=fd, passed=passed)
            # As sd_listen_fds(3) has it: from 3 on.
            moved = "".join(f"exec {3 + index}<&{fd}; " for index, fd in enumerate(passed))
            handed = ["bash", "-c", f'{moved}LISTEN_PID=$$ exec "$@"', "recfs"] if passed else []
            return subprocess.Popen(
                [*handed, *how.prefix, sys.executable, "-m", "recfs", *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                pass_fds=passed,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def _await_ready(self, notify: socket.socket) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        assert self.process is not None
        while time.monotonic() < deadline:
            if select.select([notify], [], [], 0.05)[0] and b"READY=1" in notify.recv(4096):
                return
            if self.process.poll() is not None:
                code = self.process.returncode
                self._gone()
                pytest.fail(f"the daemon exited with {code} before it was ready:\n{self.log()}")
        self.abort("not ready in time")
        pytest.fail(f"the daemon did not say READY=1 within {START_TIMEOUT_S:.0f} s:\n{self.log()}")

    def upgrade(self) -> str:
        """Have another process go on with the mount (`recfs upgrade`); what the command said."""
        before = self.process
        assert before is not None
        done = forkserver.run(["upgrade", "--root", str(self.root)], timeout_s=START_TIMEOUT_S)
        if done.returncode != 0:
            return done.stderr.decode()
        assert before.wait(STOP_TIMEOUT_S) == 0
        self.process = Successor(int(self.call("upgraded")["pid"]))
        return done.stdout.decode()

    # -- stopping ---

    def umount(self) -> None:
        """Unmount the way an administrator does, and wait until the daemon has finished its work."""
        assert self.process is not None
        command = ["umount", str(self.path)] if ROOT_USER else ["fusermount3", "-u", str(self.path)]
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False)
            if done.returncode == 0 or not mounted(self.path):
                break
            # A client that was killed is waited for before its last file is let go: exit_files comes after the signal.
            holders = users_of(self.path)
            if os.getpid() in holders or time.monotonic() > deadline:
                names = "; ".join(f"{pid}: {why}" for pid, why in holders.items()) or "no process that /proc shows"
                pytest.fail(f"cannot unmount {self.path}: {done.stderr.strip()}. It is used by {names}")
            time.sleep(0.05)
        self.wait()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the daemon to end by itself; return its exit code, which must be 0."""
        assert self.process is not None
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.abort("did not stop")
            pytest.fail(f"the daemon still ran {STOP_TIMEOUT_S:.0f} s after it was told to stop:\n{self.log()}")
        self._gone()
        assert code == 0, f"the daemon stopped with exit code {code}:\n{self.log()}"
        assert not mounted(self.path), "the daemon stopped cleanly but left its mount behind"
        return code

    def kill(self, *, unmount: bool = True) -> None:
        """Kill the daemon at once (SIGKILL); with `unmount` also clear the dead mount it leaves.

        One that the kernel keeps (test_stuck.py) is freed as its next start would.
        """
        assert self.process is not None
        self.process.kill()
        try:
            self.process.wait(KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "--force", str(self.path)], check=False, capture_output=True, timeout=20)
            self.process.wait(KILL_TIMEOUT_S)
        self._gone()
        if unmount:
            self.clear()

    def forsake(self) -> None:
        """Care no more for a daemon that was killed, though it may not have ended, nor for its mount."""
        self._gone()

    def clear(self) -> None:
        """Take away what a killed daemon left on the mount point."""
        lazy_unmount(self.path)

    def remount(self) -> Mount:
        """Start again with the arguments of the last start, after an orderly umount if it still runs."""
        if self.process is not None:
            self.umount()
        how = self.started
        return self.start(*how.extra, config=how.config, env=how.env, prefix=how.prefix, keeper=how.keeper)

    def cut_off_start(self, after_s: float) -> None:
        """Start again like `remount`, and kill the daemon (SIGKILL) so many seconds later, wherever it is by then."""
        self.process = self.spawn(self.started, None)
        Mount.alive.append(self)
        try:
            code = self.process.wait(after_s)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._gone()
            pytest.fail(f"a start ended by itself with exit code {code}:\n{self.log()}")

    def abort(self, why: str) -> None:
        """Make the daemon print its stacks and die, so that whoever waits for the mount gets an error."""
        self.aborted = True
        process = self.process
        if process is not None and process.poll() is None:
            with self.log_path.open("a") as log:
                log.write(f"\n[test harness] SIGABRT: {why}\n")
            process.send_signal(signal.SIGABRT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self) -> None:
        """End everything, whatever state it is in. Errors are for `check`, not for here."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._gone()
        lazy_unmount(self.path)

    def revive(self) -> None:
        """Start again if the daemon died, so that one failure does not become that of all tests to come."""
        if self.process is not None and self.process.poll() is not None:
            self.close()
            self.aborted = False
            self.remount()

    def drop_descriptors(self) -> None:
        """Close what a failed test left open on the mount, so that it can be unmounted in order."""
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{self.path}/"):
                    os.close(int(fd))

    def _gone(self) -> None:
        self.process = None
        if self in Mount.alive:
            Mount.alive.remove(self)

    # -- asking ---

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the daemon over its control socket."""
        from recfs.api.client import ControlClient

        return ControlClient(self.root / ".recfs" / "control.sock", timeout_s=60.0).call(method, **params)

    def status(self) -> dict[str, Any]:
        """Return what `recfs status --json` shows."""
        result: dict[str, Any] = self.call("status")
        return result

    def drain(self) -> None:
        """Wait until every closed file is committed and the catalogue is on disk."""
        pending = self.call("drain", timeout_s=DRAIN_TIMEOUT_S)["pending"]
        assert pending == 0, f"{pending} files still in the pipeline after {DRAIN_TIMEOUT_S:.0f} s: {self.status()}"

    def info(self, path: Path) -> dict[str, Any]:
        """Return what recfs knows of a file or directory, given by its path under the mount point."""
        result: dict[str, Any] = self.call("info", path=self.inner(path))
        return result

    def inner(self, path: Path) -> str:
        """Return the path inside the mount ("users/5/...")."""
        return str(path.relative_to(self.path))

    def home(self, path: Path) -> Path:
        """Return where the committed bytes of a path under the mount point lie."""
        return self.root / path.relative_to(self.path)

    def leftovers(self, area: str) -> list[Path]:
        """List the files with bytes in <root>/.recfs/<area> ("staging", "trash").

        Empty ones do not count: a running daemon makes staging files ahead.
        """
        top = self.root / ".recfs" / area
        return sorted(path for path, size in sizes_below(top) if size > 0)

    def quota(self, user: str) -> dict[str, Any]:
        """Return one user's usage and limits as `recfs quota show --json` does."""
        rows: list[dict[str, Any]] = self.call("quota_show", user=user)
        assert len(rows) == 1, f"quota_show of user {user} answered {rows}"
        return rows[0]

    def recording(self, user: int | str = 1, recording: int | str = 1) -> Path:
        """Make users/<user>/recordings/<recording> and return its path."""
        path = self.path / "users" / str(user) / "recordings" / str(recording)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def assert_consistent(self) -> None:
        """Prove the counters against the rows (`recfs quota check`)."""
        self.drain()
        found = self.call("quota_check", repair=False)
        assert found["differences"] == [], "the quota counters differ from the rows"

    # -- judging ---

    def log(self) -> str:
        """Return what the daemon wrote so far."""
        return self._log_from(0)

    def _log_from(self, offset: int) -> str:
        try:
            self._log = self.log_path.read_bytes()
        except FileNotFoundError:  # asked after the teardown: what was read last is all there was
            pass
        return self._log[offset:].decode(errors="replace")

    def ended(self) -> int:
        """Wait for a daemon to end in disorder; return its exit code. What it said until now is not judged."""
        assert self.process is not None
        code = self.process.wait(STOP_TIMEOUT_S)
        self._gone()
        self._log_seen = self.log_path.stat().st_size
        return code

    def expect_log(self, pattern: str) -> None:
        """Announce that a line matching `pattern` is no reason to fail the test."""
        self._expected.append(re.compile(pattern))

    def check(self) -> None:
        """Fail when the daemon died by itself or logged trouble since the last check."""
        fresh = self._log_from(self._log_seen)
        self._log_seen = self.log_path.stat().st_size
        died = self.process is not None and self.process.poll() is not None
        kept = [line for line in fresh.splitlines() if not any(p.search(line) for p in self._expected)]
        if self.aborted:
            pytest.fail(f"the watchdog had to end the daemon; its stacks are in the log:\n{fresh}")
        if died:
            assert self.process is not None
            pytest.fail(f"the daemon died with exit code {self.process.returncode}:\n{fresh}")
        if _TROUBLE.search("\n".join(kept)):
            pytest.fail(f"the daemon logged trouble:\n{fresh}")


def abort_all(why: str) -> None:
    """End every daemon of this process: requests that hang on a mount then fail instead."""
    for mount in list(Mount.alive):
        mount.abort(why)


@contextlib.contextmanager
def errno_is(*wanted: int) -> Iterator[None]:
    """Assert that the body fails with one of these errno values."""
    names = " or ".join(errno.errorcode[w] for w in wanted)
    failure: OSError | None = None
    try:
        yield
    except OSError as error:
        failure = error
    if failure is None:
        pytest.fail(f"wanted {names}, but it succeeded")
    got = errno.errorcode.get(failure.errno or 0, str(failure.errno))
    assert failure.errno in wanted, f"wanted {names}, got {got}: {failure}"


def remove_tree(path: Path) -> None:
    """Delete a directory of a finished test, mounts inside it first."""
    for point in sorted(mount_points(), reverse=True):
        if point.startswith(f"{path}/"):
            lazy_unmount(Path(point))
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and shutil.which("chattr"):  # a daemon was killed that had stopped a writer
        subprocess.run(["chattr", "-R", "-i", str(path)], check=False, capture_output=True, timeout=60)
        shutil.rmtree(path, ignore_errors=True)
