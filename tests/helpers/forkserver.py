"""Processes of recfs without the second that Python takes to import it: forked from one that has imported it before.

`spawn` and `run` are for tests that start the same program again and again. What matters to them is as after exec: a
session of its own, an environment, a working directory and descriptors as told, and an end with Python's own cleaning
up. The server is a process by itself with one thread, so that fork(2) is safe, and ends when the process that uses it
does.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PRELOADED = ("recfs.daemon", "recfs.offline", "recfs.stores.s3.store", "rich.console", "rich.table")
"""Beside the commands."""
_PASSED = 64
"""More descriptors that a process may be given."""
_START_S = 60.0


class Forked:
    """A process of recfs: as much of subprocess.Popen as the tests use. Only `spawn` makes one."""

    def __init__(self, pid: int, ended: int, args: Sequence[str]) -> None:
        self.pid = pid
        self.args = args
        self.returncode: int | None = None
        self._ended = ended
        self._lock = threading.Lock()
        # A process id may be another's as soon as the server has reaped its process.
        self._descriptor = os.pidfd_open(pid) if ended >= 0 else -1

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal, once it has ended. Raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        with self._lock:
            if self.returncode is None:
                try:
                    signal.pidfd_send_signal(self._descriptor, number)
                except ProcessLookupError:
                    pass

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            with self._lock:
                if self.returncode is None:
                    told = os.read(self._ended, 64)
                    self.returncode = int(told) if told else -signal.SIGKILL  # nobody is left to tell
                    os.close(self._ended)
                    os.close(self._descriptor)
        return self.returncode


def spawn(
    args: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: int, stderr: int, passed: Sequence[int] = ()
) -> Forked:
    """Run `recfs ARGS` in a new session; its standard input is empty. Raises what keeps the server from answering.

    *passed*: what its descriptors 3, 4 and so on are. With $LISTEN_FDS in *env* it gets $LISTEN_PID as well.
    """
    return _server().spawn(args, env=env, cwd=cwd, descriptors=(stdout, stderr, *passed))


def run(args: Sequence[str], *, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run `recfs ARGS` in the checkout to its end; what it said is all its own, whatever it has left running.

    Raises subprocess.TimeoutExpired, after it has been killed.
    """
    with open(os.memfd_create("stdout"), "rb") as stdout, open(os.memfd_create("stderr"), "rb") as stderr:
        process = spawn(args, env=os.environ, cwd=ROOT, stdout=stdout.fileno(), stderr=stderr.fileno())
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_START_S)
            raise
        for stream in (stdout, stderr):
            stream.seek(0)
        return subprocess.CompletedProcess(process.args, code, stdout.read(), stderr.read())


class _Server:
    """The process that has imported recfs, as seen from here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_START_S)
        with theirs:
            command = [sys.executable, "-m", "tests.helpers.forkserver", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"LC_ALL": "C.UTF-8"},  # as Python finds it when it starts
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.stop)

    def spawn(self, args: Sequence[str], *, env: Mapping[str, str], cwd: Path, descriptors: Sequence[int]) -> Forked:
        told = json.dumps({"args": list(args), "env": dict(env), "cwd": str(cwd)}).encode()
        read, write = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [told], [write, *descriptors])
                answer = self._socket.recv(64)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        if not answer:
            os.close(read)
            raise RuntimeError(f"the fork server ended with exit code {self._process.wait(_START_S)}")
        return Forked(int(answer), read, ["recfs", *args])

    def stop(self) -> None:
        self._socket.close()
        self._process.wait(_START_S)


@functools.cache
def _server() -> _Server:
    return _Server()


# --- in the server -------------------------------------------------------------------------------------------------


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns None when nobody asks any more; in a child, what it has been forked for."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != connection.fileno():
                poll.unregister(ready)
                pid, told = running.pop(ready)
                _, status = os.waitpid(pid, 0)
                os.close(ready)
                _tell(told, os.waitstatus_to_exitcode(status))
                continue
            data, given, _, _ = socket.recv_fds(connection, 1 << 20, 3 + _PASSED)
            if not data:
                return None
            told, *descriptors = given
            pid = os.fork()
            if not pid:
                _place(descriptors)
                request: dict[str, Any] = json.loads(data)
                return request
            for descriptor in descriptors:
                os.close(descriptor)
            descriptor = os.pidfd_open(pid)
            running[descriptor] = (pid, told)
            poll.register(descriptor, select.POLLIN)
            connection.send(str(pid).encode())


def _place(descriptors: Sequence[int]) -> None:
    """Have these as 1, 2 and so on, and no others but 0."""
    beyond = 1 + max(*descriptors, len(descriptors))
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, beyond) for descriptor in descriptors]
    for number, descriptor in enumerate(aside, start=1):
        os.dup2(descriptor, number)
    os.closerange(len(descriptors) + 1, 1 << 20)


def _tell(pipe: int, code: int) -> None:
    try:
        os.write(pipe, str(code).encode())
    except BrokenPipeError:
        pass  # nobody waits for it any more
    os.close(pipe)


def _become(request: dict[str, Any]) -> None:
    """Run what was asked for. Ends with SystemExit, as the program does."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    sys.argv = [str(ROOT / "recfs/__main__.py"), *request["args"]]
    importlib.import_module("recfs.cli.main").main()


def main() -> None:
    """The server: `python -m tests.helpers.forkserver DESCRIPTOR`."""
    for name in _PRELOADED:
        importlib.import_module(name)
    list(importlib.import_module("recfs.cli.main").cli.commands.values())
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    gc.collect()
    gc.freeze()  # else every collection of a child would copy what it shares
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()
