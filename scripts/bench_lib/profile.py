"""Looks inside the daemon while one small operation is repeated: where do its microseconds go?

py-spy samples the daemon's threads from outside; the clock and /proc give the frame around that: what a
caller waits, and how much of it the daemon computes.
"""

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .measure import CpuTime, Meter, cpu_time
from .recfs_target import RecfsTarget
from .small import create_files
from .spec import Context, Sizes
from .streams import MIB, write_stream
from .target import TargetError

SAMPLES_PER_S = 500
_SHOWN = 25
_FRAME_LIMIT = 78
_CHUNK = 32 * 1024


@dataclass(frozen=True, slots=True)
class Operation:
    """`prepare` runs unobserved, `repeat` is what is profiled; both get the number of operations."""

    count: int
    prepare: Callable[[Context, int], None]
    repeat: Callable[[Context, int], None]


def _directory(context: Context) -> Path:
    return context.recording(9, 1)


def _nothing(context: Context, count: int) -> None:
    _directory(context)


def _create(context: Context, count: int) -> None:
    create_files(_directory(context), count)


def _create_cold(context: Context, count: int) -> None:
    _create(context, count)
    context.target.go_cold()


def _stat(context: Context, count: int) -> None:
    prefix = os.fspath(_directory(context)) + "/f"
    for number in range(count):
        os.stat(f"{prefix}{number}")


def _list(context: Context, count: int) -> None:
    with os.scandir(_directory(context)) as entries:
        for entry in entries:
            entry.stat()


def _read(context: Context, count: int) -> None:
    prefix = os.fspath(_directory(context)) + "/f"
    for number in range(count):
        fd = os.open(f"{prefix}{number}", os.O_RDONLY)
        os.read(fd, 2048)
        os.close(fd)


def _rename(context: Context, count: int) -> None:
    prefix = os.fspath(_directory(context)) + "/f"
    for number in range(count):
        os.rename(f"{prefix}{number}", f"{prefix}{number}.r")


def _unlink(context: Context, count: int) -> None:
    prefix = os.fspath(_directory(context)) + "/f"
    for number in range(count):
        os.unlink(f"{prefix}{number}")


def _write(context: Context, count: int) -> None:
    write_stream(_directory(context) / "source.mp4", max(count * _CHUNK // MIB, 1), bytes(_CHUNK))


OPERATIONS: dict[str, Operation] = {
    "create": Operation(20_000, _nothing, _create),
    "stat": Operation(20_000, _create_cold, _stat),
    "list": Operation(20_000, _create_cold, _list),
    "read": Operation(20_000, _create, _read),
    "rename": Operation(20_000, _create, _rename),
    "unlink": Operation(20_000, _create, _unlink),
    "write": Operation(64_000, _nothing, _write),
}


def profile(name: str, home: Path, output: Path, console: Console, *, native_frames: bool) -> None:
    """Repeat operation `name` on a fresh recfs under `home` and print where the time went.

    The sampled stacks stay in `output`. Raises TargetError when py-spy is missing or does not attach.
    """
    operation = OPERATIONS[name]
    target = RecfsTarget(home / RecfsTarget.name)
    target.home.mkdir(parents=True)
    target.start()
    try:
        context = Context(target, sizes=Sizes(), scratch=home, round_index=0)
        operation.prepare(context, operation.count)
        target.settle()
        sampler = _Sampler(target.pids()[0], output, native_frames=native_frames)
        daemon_before, client_before = cpu_time(target.pids()), cpu_time([os.getpid()])
        with Meter(()) as meter:
            operation.repeat(context, operation.count)
        daemon = cpu_time(target.pids()) - daemon_before
        client = cpu_time([os.getpid()]) - client_before
        sampler.stop()
        target.settle()
    finally:
        target.stop()
    _print_frame(console, name, operation.count, meter.wall_s, daemon, client)
    _print_stacks(console, name, operation.count, output)


class _Sampler:
    """A running `py-spy record` on one process."""

    def __init__(self, pid: int, output: Path, *, native_frames: bool) -> None:
        beside_python = Path(sys.executable).with_name("py-spy")
        command = str(beside_python) if beside_python.exists() else shutil.which("py-spy")
        if command is None:
            raise TargetError("py-spy is not installed; .venv/bin/pip install py-spy")
        options = [
            "--function",
            "--threads",
            "--nonblocking",
            "--format",
            "raw",
            "--rate",
            str(SAMPLES_PER_S),
        ]
        if native_frames:
            # Unwinding native stacks needs the process to hold still.
            options = [*(option for option in options if option != "--nonblocking"), "--native"]
        self._process = subprocess.Popen(
            [command, "record", "--pid", str(pid), "--output", str(output), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if "Sampling process" in line:
                return
        raise TargetError(f"py-spy did not attach to the daemon: {said.strip()}")

    def stop(self) -> None:
        """End the recording; the output file is complete afterwards."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=60)
        if self._process.returncode != 0:
            raise TargetError(f"py-spy failed: {said.strip()}")


def _print_frame(console: Console, name: str, count: int, wall_s: float, daemon: CpuTime, client: CpuTime) -> None:
    def micros(seconds: float) -> str:
        return f"{seconds / count * 1e6:.1f}"

    title = f"one {name}, mean of {count:,} ({count / wall_s:,.0f}/s while sampled)"
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("µs", justify="right")
    table.add_row("the caller waits", micros(wall_s), style="bold")
    table.add_row("daemon, user code (all threads)", micros(daemon.user_s))
    table.add_row("daemon, in the kernel (its own file I/O, /dev/fuse)", micros(daemon.system_s))
    table.add_row("caller, user code and kernel", micros(client.total_s))
    console.print(table)


def _print_stacks(console: Console, name: str, count: int, output: Path) -> None:
    own: collections.Counter[str] = collections.Counter()
    inclusive: collections.Counter[str] = collections.Counter()
    threads: collections.Counter[str] = collections.Counter()
    for line in output.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        thread, frames = frames[0], frames[1:] or frames[:1]
        threads[thread] += int(samples)
        own[frames[-1]] += int(samples)
        for frame in set(frames):
            inclusive[frame] += int(samples)
    total = sum(own.values())
    for title, counter in (
        ("busy threads", threads),
        ("in the function itself", own),
        ("with all it calls", inclusive),
    ):
        table = Table(title=f"daemon: {title}", title_justify="left")
        table.add_column("function" if counter is not threads else "thread", no_wrap=True)
        table.add_column(f"µs per {name}", justify="right")
        table.add_column("share", justify="right")
        for frame, hits in counter.most_common(_SHOWN):
            micros = hits / SAMPLES_PER_S / count * 1e6
            table.add_row(frame, f"{micros:.1f}", f"{hits / max(total, 1):.0%}")
        console.print(table)
    console.print(f"{total:,} samples; stacks in {output} (for speedscope or flamegraph.pl)")


def _short(frame: str) -> str:
    """'handler (/long/site-packages/trio/_core/_run.py)' → 'handler (trio/_core/_run.py)'."""
    shortened = re.sub(r"\(/[^()]*?((?:[^/()]+/){0,2}[^/()]+)\)$", r"(\1)", frame)
    shortened = re.sub(r"^thread \((0x)?[0-9A-Fa-f]+\): ", "", shortened)
    return shortened[:_FRAME_LIMIT]
