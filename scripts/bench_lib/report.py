"""The results as tables for people and as a document for programs."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .bars import Judgement, Verdict, amount, best_mount, times, verdicts
from .fleet import RECFS
from .measure import median
from .peers import MergerfsTarget
from .rows import title
from .runner import Note, Results, Usage
from .spec import Group, Metric, Sizes, Workload

_QUIET_LOAD = 0.5
YARDSTICK = MergerfsTarget.name
"""The peer that all are compared with besides: it does the same work in C++, and keeps no books."""
_STYLE = {
    Judgement.KEPT: "green",
    Judgement.LEVEL: "yellow",
    Judgement.MISSED: "bold red",
    Judgement.NOT_JUDGED: "dim",
}


def file_system(directory: Path) -> str:
    """Type of the file system that holds `directory`: tmpfs, ext4, ..."""
    # By device number: in a chroot the directory may lie below no mount point.
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    # btrfs gives its subvolumes numbers that the table does not know.
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return found.strip().replace("ext2/ext3", "ext4")


def machine(directory: Path) -> dict[str, Any]:
    """What a reader must know of where the numbers come from."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "disk": str(directory),
        "file_system": file_system(directory),
        "load": os.getloadavg()[0],
    }


def _measured(workloads: Sequence[Workload], results: Results) -> list[Metric]:
    return [metric for workload in workloads for metric in workload.metrics if metric.key in results.series]


def document(
    workloads: Sequence[Workload],
    results: Results,
    sizes: Sizes,
    where: dict[str, Any],
    absent: dict[str, str],
) -> dict[str, Any]:
    """Everything, every round included; `absent` are targets that could not take part, with the reason."""
    return {
        "machine": where,
        "rounds": results.rounds,
        "full_size": sizes.full,
        "targets": results.targets,
        "absent": absent,
        "rows": [_row(metric, results, sizes, where) for metric in _measured(workloads, results)],
        "daemons": {
            name: {"cpu_s_per_round": used.cpu_s, "peak_rss_mb": used.peak_rss_mb}
            for name, used in _daemons(results).items()
        },
        "daemons_measured_in": results.shared_workloads(),
        "took_s": {key: round(seconds, 1) for key, seconds in results.took_s.items()},
        "left_out": [_noted(note) for note in results.left_out],
        "failures": [_noted(note) for note in results.failures],
    }


def _daemons(results: Results) -> dict[str, Usage]:
    return {name: results.daemon_use(name) for name in results.targets if name != results.reference}


def _noted(note: Note) -> dict[str, str]:
    return {"workload": note.workload, "target": note.target, "message": note.message}


def _row(metric: Metric, results: Results, sizes: Sizes, where: dict[str, Any]) -> dict[str, Any]:
    values = {
        name: {"median": series.median, "rounds": series.values, "cpu_s": median(series.cpu_s)}
        for name, series in results.series[metric.key].items()
    }
    return {
        "key": metric.key,
        "title": title(metric, sizes).strip(),
        "unit": metric.unit,
        "better": metric.better.value,
        "group": metric.group.value,
        "values": values,
        **{
            f"times_{one}": _times(metric, results, one)
            for one in (results.reference, YARDSTICK)
            if one in results.targets
        },
        "best": best_mount(metric, results),
        "bars": [
            {"kind": verdict.kind, "bar": verdict.bar, "judgement": verdict.judgement.value, "by": verdict.by}
            for verdict in verdicts(metric, results, sizes, where)
        ],
    }


def _times(metric: Metric, results: Results, one: str) -> dict[str, float | None]:
    """How many times as fast as *one* the others were."""
    others = (name for name in results.targets if name not in (one, results.reference))
    return {name: results.ratio(metric, name, one) for name in others if results.of(metric.key, name).values}


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    return table


def _values_table(metrics: Sequence[Metric], results: Results, sizes: Sizes) -> Table:
    table = _table()
    for name in results.targets:
        table.add_column(name, justify="right", no_wrap=True, style="bold" if name == RECFS else None)
    table.add_column("", no_wrap=True)
    table.add_column("CPU s", justify="right", style="dim", no_wrap=True)
    for metric in metrics:
        cells = [amount(results.of(metric.key, name).median, "") for name in results.targets]
        cpu = amount(median(results.of(metric.key, RECFS).cpu_s), "")
        table.add_row(title(metric, sizes), *cells, metric.unit, cpu)
    return table


def _judged(verdict: Verdict) -> Text:
    text = f"{verdict.bar}: {verdict.judgement.value}"
    return Text(f"{text} ({verdict.by})" if verdict.by else text, style=_STYLE[verdict.judgement])


def _ratios_table(metrics: Sequence[Metric], results: Results, sizes: Sizes, where: dict[str, Any]) -> Table:
    table = _table()
    mounts = [name for name in results.targets if name != results.reference]
    for name in mounts:
        table.add_column(name, justify="right", no_wrap=True, style="bold" if name == RECFS else None)
    table.add_column("best mount", no_wrap=True)
    table.add_column("bars")
    for metric in metrics:
        judged = verdicts(metric, results, sizes, where)
        if metric.group is Group.OWN and not judged:
            continue
        compared = metric.group is not Group.OWN
        cells = [times(results.ratio(metric, name, results.reference)) if compared else "" for name in mounts]
        best = best_mount(metric, results) or ""
        ahead = any(verdict.kind == "ahead" and verdict.judgement is Judgement.KEPT for verdict in judged)
        # Who is ahead is level too.
        bars = Text("\n").join(_judged(verdict) for verdict in judged if not (ahead and verdict.kind == "level"))
        table.add_row(title(metric, sizes), *cells, Text(best, style="bold" if best == RECFS else ""), bars)
    return table


def _yardstick_table(metrics: Sequence[Metric], results: Results, sizes: Sizes) -> Table:
    table = _table()
    mounts = [name for name in results.targets if name not in (results.reference, YARDSTICK)]
    for name in mounts:
        table.add_column(name, justify="right", no_wrap=True, style="bold" if name == RECFS else None)
    for metric in metrics:
        if metric.group is not Group.OWN:
            cells = [times(results.ratio(metric, name, YARDSTICK)) for name in mounts]
            table.add_row(title(metric, sizes), *cells)
    return table


def _daemons_table(results: Results) -> Table:
    table = _table()
    daemons = _daemons(results)
    for name in daemons:
        table.add_column(name, justify="right", no_wrap=True, style="bold" if name == RECFS else None)
    table.add_row("CPU seconds per round", *(amount(used.cpu_s, "") for used in daemons.values()))
    table.add_row("peak RSS, MB", *(amount(used.peak_rss_mb, "") for used in daemons.values()))
    return table


def print_tables(
    console: Console,
    workloads: Sequence[Workload],
    results: Results,
    sizes: Sizes,
    where: dict[str, Any],
    absent: dict[str, str],
) -> None:
    """Print the tables, what they mean, and what is not in them."""
    disk = f"{where['file_system']} ({where['disk']})"
    size = "" if sizes.full else ", quick: small sizes"
    far = f" with S3 at {where['s3']}" if "s3" in where else ""
    console.print(
        f"recfs on {disk}{far}, {where['cpus']} CPUs, Linux {where['kernel']}{size}", style="bold", highlight=False
    )
    metrics = _measured(workloads, results)
    console.print(_values_table(metrics, results, sizes))
    console.print(
        f"Medians of {results.rounds} interleaved rounds. CPU s: of the recfs daemon during the row."
        " GB, MB: 10^9, 10^6 bytes.\n",
        style="dim",
        highlight=False,
    )
    console.print(f"How many times as fast as {results.reference}", style="bold", highlight=False)
    console.print(_ratios_table(metrics, results, sizes, where))
    console.print(
        "Medians of the rounds' own ratios; bars speak of recfs, with its passthrough as it comes.\n",
        style="dim",
        highlight=False,
    )
    if YARDSTICK in results.targets:
        console.print(f"How many times as fast as {YARDSTICK}", style="bold", highlight=False)
        console.print(_yardstick_table(metrics, results, sizes))
        console.print("Medians of the rounds' own ratios.\n", style="dim", highlight=False)
    if shared := results.shared_workloads():
        console.print("The daemons", style="bold", highlight=False)
        console.print(_daemons_table(results))
        console.print(
            f"In the workloads that all took part in ({' '.join(shared)}), background work included.\n",
            style="dim",
            highlight=False,
        )
    if where["load"] > _QUIET_LOAD:
        console.print(
            f"The machine was not quiet (load {where['load']:.1f} at the start): expect noise.", style="yellow"
        )
    for name, reason in absent.items():
        console.print(f"{name} is not in it: {reason}", style="yellow", markup=False)
    for note in results.left_out:
        console.print(f"{note.workload} left out on {note.target}: {note.message}", style="yellow", markup=False)
    for note in results.failures:
        console.print(f"{note.workload} FAILED on {note.target}: {note.message}", style="bold red", markup=False)
