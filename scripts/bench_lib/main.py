"""The command line of scripts/bench."""

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from . import report, rows
from .profile import OPERATIONS, profile
from .runner import Runner, running_targets
from .spec import QUICK, Sizes
from .targets import PEERS, NativeTarget, RecfsTarget, TargetError, installed_peers

_REPOSITORY = Path(__file__).resolve().parents[2]
_DEFAULT_DISK = Path("/dev/shm")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "disk",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=_DEFAULT_DISK,
    show_default=True,
    help="Measure on the disk that holds this directory.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Interleaved rounds per row.")
@click.option("--quick", is_flag=True, help="Less work per round and 2 rounds: a first impression in a minute.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY",
    help="Only these rows or groups (shell pattern, repeatable); see --list.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice([*PEERS, "none"]),
    help="Compare with these; default: all that are installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option("--list", "list_rows", is_flag=True, help="List groups and rows, measure nothing.")
@click.option(
    "--profile",
    "profiled",
    type=click.Choice(list(OPERATIONS)),
    help="Sample the daemon during one operation.",
)
@click.option("--native-frames", is_flag=True, help="With --profile: C functions too (slower).")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --profile: where the sampled stacks go.  [default: build/profile-OPERATION.txt]",
)
@click.option(
    "--recfs",
    "command",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_REPOSITORY / ".venv" / "bin" / "recfs",
    help="The recfs to measure.  [default: .venv/bin/recfs]",
)
@click.pass_context
def main(
    context: click.Context,
    disk: Path,
    rounds: int,
    quick: bool,
    only: tuple[str, ...],
    peers: tuple[str, ...],
    as_json: bool,
    list_rows: bool,
    profiled: str | None,
    native_frames: bool,
    output: Path | None,
    command: Path,
) -> None:
    """Measure recfs against a plain directory on the same disk, and against its peers, in one run.

    Every round does the same work on every target in turn; the table shows medians of the rounds.

    Exit codes: 0 measured (bars met or not), 1 a row could not be measured, 2 usage error.
    """
    sizes = QUICK if quick else Sizes()
    if quick and context.get_parameter_source("rounds") is click.core.ParameterSource.DEFAULT:
        rounds = 2
    try:
        workloads = rows.select(only)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = Console(stderr=as_json)
    if not console.is_terminal:
        # A file or a pipe has no width: rather long lines than cut numbers.
        console = Console(stderr=as_json, width=130)
    if list_rows:
        for workload in workloads:
            for metric in workload.metrics:
                title = rows.title(metric, sizes)
                console.print(f"{workload.key:10} {metric.key:16} {title.strip()} ({metric.unit})", highlight=False)
        return

    if not command.exists():
        raise click.UsageError(f"{command} is missing; run scripts/setup first")
    RecfsTarget.command = command.absolute()
    # A SIGTERM must unmount as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    base = Path(tempfile.mkdtemp(prefix="recfs-bench-", dir=disk))
    try:
        if profiled is not None:
            output = output or _REPOSITORY / "build" / f"profile-{profiled}.txt"
            output.parent.mkdir(parents=True, exist_ok=True)
            profile(profiled, base, output, console, native_frames=native_frames)
            return
        chosen = [name for name in peers if name != "none"] if peers else installed_peers()
        warm_dir = base / "warm"
        warm_dir.mkdir()
        where = report.machine(disk)
        with (
            _progress() as tell,
            running_targets(base, [NativeTarget.name, RecfsTarget.name, *chosen]) as targets,
        ):
            results = Runner(targets, sizes, rounds, warm_dir, tell).run(workloads)
    except TargetError as error:
        raise click.ClickException(str(error)) from error
    finally:
        _remove(base)
    if as_json:
        click.echo(json.dumps(report.document(workloads, results, sizes, where), indent=2))
    else:
        report.print_table(console, workloads, results, sizes, where)
    if results.failures:
        context.exit(1)


@contextmanager
def _progress() -> Iterator[Any]:
    """A function that shows what runs now: one changing line on a terminal, nothing elsewhere."""
    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(escape(text))


def _remove(base: Path) -> None:
    """Delete the working directory, unless something in it is still mounted: that would be emptied too."""
    mounts = Path("/proc/self/mounts").read_bytes().decode(errors="replace")
    if f" {base}/" in mounts:
        click.echo(f"bench: still mounted below {base}; left as it is", err=True)
        return
    shutil.rmtree(base, ignore_errors=True)
