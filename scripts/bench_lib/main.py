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

from . import images, report, rows
from .fleet import DIRECT, NATIVE, OPTIONAL, RECFS, available, running, running_far
from .peers import Bucket, S3fsTarget
from .profile import OPERATIONS, profile
from .recfs_target import RecfsTarget
from .runner import Results, Runner
from .s3_peers import WeedTarget
from .s3_targets import Place
from .spec import QUICK, Sizes, Workload
from .target import TargetError

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
@click.option(
    "--ext4",
    "image_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Then measure the same on ext4: an image made in this directory, as large as its free space allows (up to"
    f" {images.SIZE >> 30} GiB, sparse). Wants root.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Interleaved rounds per row.")
@click.option("--quick", is_flag=True, help="Less work per round and 2 rounds: a first impression in a few minutes.")
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
    type=click.Choice([*OPTIONAL, "none"]),
    help="Compare with these (repeatable); default: all that can be measured here.",
)
@click.option(
    "--s3",
    metavar="URL",
    envvar="RECFS_BENCH_S3",
    help="http://HOST:PORT/BUCKET: measure the S3 tier (rows s3_*) there, too, and s3fs in all rows. The keys come"
    " from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.  [env: RECFS_BENCH_S3]",
)
@click.option(
    "--filer",
    metavar="HOST:PORT.GRPC_PORT",
    envvar="RECFS_BENCH_FILER",
    help="SeaweedFS's filer of the same server: measure weed mount, too.  [env: RECFS_BENCH_FILER]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, the tables on stderr.")
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
    image_dir: Path | None,
    rounds: int,
    quick: bool,
    only: tuple[str, ...],
    peers: tuple[str, ...],
    s3: str | None,
    filer: str | None,
    as_json: bool,
    list_rows: bool,
    profiled: str | None,
    native_frames: bool,
    output: Path | None,
    command: Path,
) -> None:
    """Measure recfs against a plain directory on the same disk, and against its peers, in one run.

    Every round does the same work on every target in turn; the tables show medians of the rounds, and of the
    rounds' own ratios. recfs is measured as it comes; recfs-off is the same without kernel passthrough. The rows
    about S3 compare it with the S3 library by itself, and with other mounts of the same server: rclone, s3fs, weed
    mount, JuiceFS.

    Exit codes: 0 measured (bars met or not), 1 a row could not be measured, 2 usage error.
    """
    sizes = QUICK if quick else Sizes()
    if quick and context.get_parameter_source("rounds") is click.core.ParameterSource.DEFAULT:
        rounds = 2
    try:
        workloads = rows.select(only)
        S3fsTarget.bucket = bucket = Bucket.parse(s3) if s3 else None
        WeedTarget.filer = filer
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = Console(stderr=as_json)
    if not console.is_terminal:
        # A file or a pipe has no width: rather long lines than cut numbers.
        console = Console(stderr=as_json, width=150)
    if list_rows:
        for workload in workloads:
            for metric in workload.metrics:
                title = rows.title(metric, sizes)
                console.print(f"{workload.key:10} {metric.key:16} {title.strip()} ({metric.unit})", highlight=False)
        return

    if not command.exists():
        raise click.UsageError(f"{command} is missing; run scripts/setup first")
    RecfsTarget.command = command.absolute()
    near, far = ([workload for workload in workloads if workload.far is is_far] for is_far in (False, True))
    if bucket is None:
        if not near:
            raise click.UsageError("these rows need a server: --s3 http://HOST:PORT/BUCKET")
        far = []
    chosen, absent = available([name for name in peers if name != "none"] or ([] if peers else list(OPTIONAL)))
    if peers and absent:
        raise click.UsageError("; ".join(f"--peer {name}: {reason}" for name, reason in absent.items()))
    # A SIGTERM and a closed terminal must unmount as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    parts: list[tuple[str, list[Workload], Results, dict[str, Any]]] = []
    try:
        with _working(disk) as base:
            if profiled is not None:
                output = output or _REPOSITORY / "build" / f"profile-{profiled}.txt"
                output.parent.mkdir(parents=True, exist_ok=True)
                profile(profiled, base, output, console, native_frames=native_frames)
                return
            scratch = base / "scratch"
            scratch.mkdir()
            where = report.machine(disk)
            with _progress() as tell:
                if near:
                    with running(base, [NATIVE, RECFS, *chosen]) as targets:
                        parts.append(("", near, Runner(targets, sizes, rounds, scratch, tell).run(near), where))
                if far and bucket is not None:
                    with running_far(base, Place(bucket, base.name), chosen) as targets:
                        results = Runner(targets, sizes, rounds, scratch, tell, DIRECT).run(far)
                    parts.append(("s3", far, results, {**where, "s3": bucket.endpoint}))
                if near and image_dir is not None:
                    with images.ext4(image_dir) as top, _working(top) as other:
                        with running(other, [NATIVE, RECFS, *chosen]) as targets:
                            results = Runner(targets, sizes, rounds, scratch, tell).run(near)
                        parts.append(("ext4", near, results, report.machine(top)))
    except TargetError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        documents = {kind: report.document(part, found, sizes, there, absent) for kind, part, found, there in parts}
        # What was measured against S3, or on ext4 besides, is a document of its own inside the first.
        first = next(iter(documents))
        click.echo(json.dumps(documents.pop(first) | documents, indent=2))
    for _, part, found, there in parts:
        report.print_tables(console, part, found, sizes, there, absent)
    if any(found.failures for _, _, found, _ in parts):
        context.exit(1)


@contextmanager
def _working(disk: Path) -> Iterator[Path]:
    """A directory to work in, deleted in the end."""
    base = Path(tempfile.mkdtemp(prefix="recfs-bench-", dir=disk))
    try:
        yield base
    finally:
        _remove(base)


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
