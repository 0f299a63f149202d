"""Runs ffprobe and ffmpeg on open files, with bounds on everything: whoever recorded what they read may be hostile.

A run has limits of CPU time, time, memory, of what it says and writes, and its own process group, which is killed as a
whole. Nothing is left of a run that was cancelled: what has been killed and does not end yet, because the disk does not
answer, is reaped later and told. A few run at a time (the limiter `media`); who wants one more waits.
"""

from __future__ import annotations

import logging
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from recfs.errors import MediaUnavailable
from recfs.media.modesty import be_modest
from recfs.media.programs import INPUT, Program, installed, version_of
from recfs.media.sandbox import FAILED, OWN, REPORT, is_alone
from recfs.subprocesses import CHUNK_BYTES, Hanging, end, hear_end

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("recfs.media")

SANDBOX: Final = Path(__file__).with_name("sandbox.py")
SAID_BYTES: Final = 16_000
"""So much of what a program says last on standard error is kept."""
LOOK_S: Final = 60.0
"""How long it counts that a program is there, or is not."""
ALARM_S: Final = 5
"""So long after the time of a run its own alarm ends it, if no daemon is there any more that would."""
MOST_HANGING: Final = 8
"""Where so many were killed and have not ended, nothing more is run until one has."""
ORDINARY_USER: Final = "nobody"
ORDINARY_ID: Final = 65_534
"""The overflow uid (user_namespaces(7)): what "nobody" is where no user of this name is known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take."""

    timeout_s: float = 60.0
    cpu_s: int = 30
    memory_bytes: int = 1 << 30
    """Of address space (RLIMIT_AS, setrlimit(2)): some 300 MB of it are the program's libraries."""
    output_bytes: int = 1 << 20
    """On standard output."""
    file_bytes: int = 0
    """Of each file that it writes."""
    processes: int = 512
    """Threads and processes of that user, on the whole machine (RLIMIT_NPROC)."""
    descriptors: int = 64


class Ended(StrEnum):
    """How a run ended."""

    WELL = "well"
    FAILED = "failed"
    """It said that it failed: of a file, that this cannot be read."""
    OUT_OF_TIME = "out of time"
    OUT_OF_CPU = "out of CPU time"
    TOO_MUCH = "too much output"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    ended: Ended
    output: bytes
    """What it wrote to standard output, up to the limit."""
    said: str
    """The last lines of standard error, for people."""
    code: int | None
    """Exit code; negative: the signal that ended it."""


class Runner:
    """Runs programs; one for the daemon."""

    def __init__(self, workers: int, user: str = ORDINARY_USER) -> None:
        """*user*: whom programs run as where the daemon is root."""
        self.limiter = trio.CapacityLimiter(workers)
        """Runs at a time."""
        self._threads = trio.CapacityLimiter(2)
        self._user = user
        self._hanging = Hanging(log, "a program that reads media")
        self._known: dict[str, tuple[float, tuple[str, int, int] | None, Program | str]] = {}

    @property
    def identity(self) -> tuple[int, int] | None:
        """uid and gid of the programs: who owns the directories that they write to. None: those of the daemon."""
        if os.geteuid() != 0:
            return None
        ordinary = self._ordinary()
        return None if is_alone(*ordinary) else ordinary

    def _ordinary(self) -> tuple[int, int]:
        try:
            found = pwd.getpwnam(self._user)
        except KeyError:
            return ORDINARY_ID, ORDINARY_ID
        return (found.pw_uid, found.pw_gid) if found.pw_uid and found.pw_gid else (ORDINARY_ID, ORDINARY_ID)

    async def program(self, name: str) -> Program:
        """ffprobe or ffmpeg, as it is installed by now. Raises MediaUnavailable, with what to do."""
        known = self._known.get(name)
        now = trio.current_time()
        if known is None or now >= known[0]:
            there = await trio.to_thread.run_sync(installed, name, limiter=self._threads)
            if known is None or there is None or known[1] != there or isinstance(known[2], str):
                found = await self._look(name, there)
            else:
                found = known[2]
            self._known[name] = known = (now + LOOK_S, there, found)
        if isinstance(known[2], str):
            raise MediaUnavailable(known[2])
        return known[2]

    async def absent(self, name: str) -> str | None:
        """Why there is no such program; None: there is one. Whether it can be run is known once it was (`program`)."""
        there = await trio.to_thread.run_sync(installed, name, limiter=self._threads)
        return _absent(name) if there is None else None

    def look_again(self) -> None:
        """Find out anew which programs there are, for the next run."""
        self._known.clear()

    async def _look(self, name: str, there: tuple[str, int, int] | None) -> Program | str:
        if there is None:
            return _absent(name)
        path = there[0]
        try:
            outcome = await self._caged([path, "-protocols"], -1, Limits(timeout_s=20.0), reopen=False)
        except MediaUnavailable as error:
            return str(error)
        if outcome.ended is not Ended.WELL:
            return f"{path} cannot be run ({outcome.ended}): {outcome.said[-200:]}"
        report, _, banner = outcome.said.partition("\n")
        caged_by = frozenset(report.removeprefix(REPORT).split())
        seeks = "fd" in outcome.output.decode("ascii", "replace").split()
        program = Program(name, path, version_of(banner), seeks, caged_by)
        if not seeks and "user" in caged_by and "landlock" not in caged_by:
            return (
                f"{path} {program.version} cannot read a file that it is given, and this kernel cannot confine it to"
                f" one: ffmpeg 6 or newer, or a Linux with Landlock (5.13) is needed"
            )
        return program

    async def run(
        self, name: str, arguments: Sequence[str], input_fd: int, limits: Limits, *, workspace_fd: int = -1
    ) -> Outcome:
        """Run *name* (ffprobe, ffmpeg) on the file open under *input_fd*, which stays the caller's.

        *arguments*: without the program; `INPUT` in them becomes what it reads. *workspace_fd*: a directory, owned by
        `identity`, which is its working directory, and the only place where it can write. Raises MediaUnavailable.
        """
        async with self.limiter:
            await self._room()
            program = await self.program(name)
            command = [program.path, *(word.replace(INPUT, program.input_name) for word in arguments)]
            return _told(await self._caged(command, input_fd, limits, workspace_fd, reopen=not program.seeks))

    async def run_own(self, code: str, words: Sequence[str], input_fd: int, limits: Limits) -> Outcome:
        """Run the `main` of Python text of recfs's own, which reads standard input. Raises MediaUnavailable."""
        async with self.limiter:
            await self._room()
            return _told(await self._caged([OWN, code, *words], input_fd, limits, reopen=False))

    async def _room(self) -> None:
        while self._hanging.reap() >= MOST_HANGING:  # noqa: ASYNC110  # they tell nobody
            await trio.sleep(1.0)

    async def _caged(
        self, command: Sequence[str], input_fd: int, limits: Limits, workspace_fd: int = -1, *, reopen: bool
    ) -> Outcome:
        """Run *command* in the cage; what it said begins with the cage's report. Raises MediaUnavailable."""
        words = self._settings(limits, workspace_fd, reopen=reopen)
        with _its_own(input_fd) as stdin:
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-I", "-S", "-B", str(SANDBOX), *words, "--", *command],
                    stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd="/",
                    env={}, pass_fds=(workspace_fd,) if workspace_fd >= 0 else (),
                )  # fmt: skip
            except OSError as error:
                raise MediaUnavailable(f"no program can be run: {error}") from error
        be_modest(process.pid)
        assert process.stdout is not None
        assert process.stderr is not None
        output, said, ended = bytearray(), bytearray(), Ended.OUT_OF_TIME
        try:
            with trio.move_on_after(limits.timeout_s):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(hear_end, process.stderr, said, SAID_BYTES)
                    is_within = await _take(process.stdout, output, limits.output_bytes)
                    if not is_within:
                        nursery.cancel_scope.cancel()
                    await process.wait()
                ended = _how(process.returncode) if is_within else Ended.TOO_MUCH
        finally:
            await end(process, self._hanging)
        text = bytes(said).decode("utf-8", "backslashreplace")
        if ended is Ended.FAILED and process.returncode == FAILED and text.startswith(REPORT):
            raise MediaUnavailable(f"{command[0]} cannot be confined: {text.removeprefix(REPORT).strip()}")
        return Outcome(ended, bytes(output), text, process.returncode)

    def _settings(self, limits: Limits, workspace_fd: int, *, reopen: bool) -> list[str]:
        uid, gid = self._ordinary() if os.geteuid() == 0 else (0, 0)
        settings = {
            "uid": uid, "gid": gid, "cpu": limits.cpu_s, "alarm": round(limits.timeout_s) + ALARM_S,
            "memory": limits.memory_bytes, "file": limits.file_bytes, "descriptors": limits.descriptors,
            "processes": limits.processes, "reopen": int(reopen), "workspace": workspace_fd,
        }  # fmt: skip
        return [f"{name}={value}" for name, value in settings.items()]


@contextmanager
def _its_own(input_fd: int) -> Iterator[int]:
    """The file once more, with a position of its own: programs seek, and others may read by the same descriptor."""
    if input_fd < 0:
        yield subprocess.DEVNULL
        return
    try:
        fd = os.open(f"/proc/self/fd/{input_fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MediaUnavailable(f"the file cannot be opened for a program: {error}") from error
    try:
        yield fd
    finally:
        os.close(fd)


async def _take(stream: trio.abc.ReceiveStream, output: bytearray, most_bytes: int) -> bool:
    """Take what a program writes; whether that was all of it."""
    while chunk := await stream.receive_some(CHUNK_BYTES):
        output += chunk[: most_bytes - len(output)]
        if len(output) >= most_bytes:
            return False
    return True


def _how(code: int | None) -> Ended:
    if code == 0:
        return Ended.WELL
    if code == -signal.SIGXCPU:
        return Ended.OUT_OF_CPU
    if code == -signal.SIGALRM:
        return Ended.OUT_OF_TIME
    if code == -signal.SIGXFSZ:
        return Ended.TOO_MUCH
    return Ended.CRASHED if code is None or code < 0 else Ended.FAILED


def _absent(name: str) -> str:
    return f"{name} is not on the daemon's PATH: install ffmpeg"


def _told(outcome: Outcome) -> Outcome:
    """The same without the cage's report."""
    return Outcome(outcome.ended, outcome.output, _without_report(outcome.said), outcome.code)


def _without_report(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if not line.startswith(REPORT))


__all__ = ["INPUT", "Ended", "Limits", "Outcome", "Runner"]
