"""The results as a table for people and as a document for programs."""

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

from .measure import median, median_ratio
from .rows import title
from .runner import Results
from .spec import Better, Metric, Sizes, Workload
from .targets import NativeTarget, RecfsTarget

_OURS, _NATIVE = RecfsTarget.name, NativeTarget.name


def file_system(directory: Path) -> str:
    """Type of the file system that holds `directory`: tmpfs, ext4, ..."""
    command = ["findmnt", "--noheadings", "--output=FSTYPE", "--target", str(directory)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    # Mounts over mounts are listed one by one, the one in use last.
    return found[-1]


def machine(directory: Path) -> dict[str, Any]:
    """What a reader must know of where the numbers come from."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "disk": str(directory),
        "file_system": file_system(directory),
    }


def _verdict(metric: Metric, results: Results, sizes: Sizes, where: dict[str, Any]) -> bool | None:
    value = results.of(metric.key, _OURS).median
    if value is None or (metric.full_size_only and not sizes.full):
        return None
    if metric.tmpfs_only and where["file_system"] != "tmpfs":
        return None
    return metric.met(value)


def _ratio(metric: Metric, results: Results, target: str, to: str) -> float | None:
    return median_ratio(
        results.of(metric.key, target).values,
        results.of(metric.key, to).values,
        higher_is_better=metric.better is Better.HIGHER,
    )


def _measured(workloads: Sequence[Workload], results: Results) -> list[Metric]:
    return [metric for workload in workloads for metric in workload.metrics if metric.key in results.series]


def document(workloads: Sequence[Workload], results: Results, sizes: Sizes, where: dict[str, Any]) -> dict[str, Any]:
    """Everything, every round included."""
    rows = []
    for metric in _measured(workloads, results):
        values = {
            name: {"median": series.median, "rounds": series.values, "cpu_s": median(series.cpu_s)}
            for name, series in results.series[metric.key].items()
        }
        rows.append(
            {
                "key": metric.key,
                "title": title(metric, sizes).strip(),
                "unit": metric.unit,
                "better": metric.better.value,
                "bar": metric.bar,
                "met": _verdict(metric, results, sizes, where),
                "values": values,
                "times_native": {
                    name: _ratio(metric, results, name, _NATIVE)
                    for name in results.targets
                    if name != _NATIVE and results.of(metric.key, name).values
                },
            }
        )
    failures = [
        {"workload": workload, "target": target, "message": message} for workload, target, message in results.failures
    ]
    return {
        "machine": where,
        "rounds": results.rounds,
        "full_size": sizes.full,
        "targets": results.targets,
        "rows": rows,
        "failures": failures,
    }


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits}{unit}" if unit.startswith("/") else f"{digits} {unit}".rstrip()


def _times(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2g}×" if value < 10 else f"{value:.0f}×"


def _bar(metric: Metric) -> str:
    if metric.bar is None:
        return ""
    return f"{'≥' if metric.better is Better.HIGHER else '<'} {_amount(metric.bar, metric.unit)}"


def _met(met: bool | None, bar: float | None) -> Text:
    if bar is None:
        return Text("")
    if met is None:
        return Text("not judged", style="dim")
    return Text("met", style="green") if met else Text("NOT MET", style="bold red")


def print_table(
    console: Console, workloads: Sequence[Workload], results: Results, sizes: Sizes, where: dict[str, Any]
) -> None:
    """Print the table, what it means, and what failed."""
    peers = [name for name in results.targets if name not in (_OURS, _NATIVE)]
    disk = f"{where['file_system']} ({where['disk']})"
    heading = f"recfs on {disk}, {where['cpus']} CPUs, Linux {where['kernel']}"
    console.print(heading, style="bold", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("recfs", justify="right", style="bold", no_wrap=True)
    for name in (_NATIVE, *peers):
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("÷", justify="right", no_wrap=True)
    table.add_column("CPU s", justify="right", style="dim", no_wrap=True)
    table.add_column("bar", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for metric in _measured(workloads, results):
        ours = results.of(metric.key, _OURS)
        cells: list[str | Text] = [title(metric, sizes), _amount(ours.median, metric.unit)]
        for name in (_NATIVE, *peers):
            cells += [
                _amount(results.of(metric.key, name).median, metric.unit),
                _times(_ratio(metric, results, _OURS, name)),
            ]
        cells += [
            _amount(median(ours.cpu_s), ""),
            _bar(metric),
            _met(_verdict(metric, results, sizes, where), metric.bar),
        ]
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"Medians of {results.rounds} interleaved rounds. ÷: how many times as fast (or as small) as the one"
        " before it recfs is,\nmedian of the rounds' own ratios. CPU s: of the recfs daemon during the row."
        " GB, MB: 10^9, 10^6 bytes.",
        style="dim",
        highlight=False,
    )
    for workload, target, message in results.failures:
        console.print(f"{workload} failed on {target}: {message}", style="bold red", markup=False)
