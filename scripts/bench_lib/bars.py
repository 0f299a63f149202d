"""What is promised for a row, and whether it is kept.

Four promises: an absolute value (Metric.bar), a part of the native speed (Metric.of_native), being ahead of every
peer, and for metadata being at least level with those two peers that people use for this. All are judged by medians
of per-round ratios, and about recfs as it comes (passthrough "auto").
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .fleet import PEERS, RECFS
from .peers import MergerfsTarget, RcloneTarget
from .runner import Results
from .spec import Better, Group, Metric, Sizes

LEVEL = 0.95
"""From this ratio on two are level: the medians of two equal targets differ by as much."""
LEVEL_PEERS = (RcloneTarget.name, MergerfsTarget.name)


class Judgement(enum.Enum):
    """How a bar came out."""

    KEPT = "kept"
    LEVEL = "level"
    """Not ahead, and not behind by more than chance."""
    MISSED = "missed"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise for one row: its kind, in words, and how it came out; `by` says what decided."""

    kind: str
    bar: str
    judgement: Judgement
    by: str = ""


def amount(value: float | None, unit: str) -> str:
    """A number with three digits and its unit."""
    if value is None:
        return "–"
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{unit}" if unit.startswith("/") or unit == "×" else f"{digits} {unit}".rstrip()


def times(value: float | None) -> str:
    """A ratio."""
    if value is None:
        return "–"
    digits = 0 if value >= 10 else 2 if value >= 0.095 else 3 if value >= 0.0095 else 4
    return f"{value:.{digits}f}×"


def peers_of(results: Results) -> list[str]:
    """The targets that are neither recfs nor the reference."""
    return [name for name in results.targets if name in PEERS]


def best_mount(metric: Metric, results: Results) -> str | None:
    """The fastest of the targets that are FUSE mounts; None for a row that is not to be compared."""
    if metric.group is Group.OWN:
        return None
    reference = results.reference
    ratios = {name: results.ratio(metric, name, reference) for name in results.targets if name != reference}
    measured = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    return max(measured, key=measured.__getitem__) if measured else None


def verdicts(metric: Metric, results: Results, sizes: Sizes, where: dict[str, Any]) -> list[Verdict]:
    """All promises for the row."""
    return list(_verdicts(metric, results, sizes, where))


def _verdicts(metric: Metric, results: Results, sizes: Sizes, where: dict[str, Any]) -> Iterator[Verdict]:
    if metric.bar is not None:
        yield _absolute(metric, metric.bar, results, sizes, where)
    if metric.of_native is not None:
        ratio = results.ratio(metric, RECFS, results.reference)
        bar = f"≥ {metric.of_native:g} of {results.reference}"
        yield Verdict("native", bar, _at_least(ratio, metric.of_native), times(ratio))
    if metric.group is Group.OWN:
        return
    if peers := peers_of(results):
        yield _against(metric, results, "ahead", "ahead of every peer", peers, ahead=True)
    if metric.group is Group.METADATA and (peers := [name for name in LEVEL_PEERS if name in results.targets]):
        yield _against(metric, results, "level", f"level with {', '.join(peers)}", peers, ahead=False)


def _at_least(value: float | None, bar: float) -> Judgement:
    if value is None:
        return Judgement.NOT_JUDGED
    return Judgement.KEPT if value >= bar else Judgement.MISSED


def _absolute(metric: Metric, bar: float, results: Results, sizes: Sizes, where: dict[str, Any]) -> Verdict:
    sign = "≥" if metric.better is Better.HIGHER else "<"
    shown = f"{sign} {amount(bar, metric.unit)}"
    value = results.of(metric.key, RECFS).median
    if value is None or (metric.full_size_only and not sizes.full):
        return Verdict("absolute", shown, Judgement.NOT_JUDGED)
    if metric.tmpfs_only and where["file_system"] != "tmpfs":
        return Verdict("absolute", shown, Judgement.NOT_JUDGED)
    judgement = Judgement.KEPT if metric.met(value) else Judgement.MISSED
    return Verdict("absolute", shown, judgement, amount(value, metric.unit))


def _against(metric: Metric, results: Results, kind: str, bar: str, peers: list[str], *, ahead: bool) -> Verdict:
    ratios = {peer: results.ratio(metric, RECFS, peer) for peer in peers}
    measured = {peer: ratio for peer, ratio in ratios.items() if ratio is not None}
    if not measured:
        return Verdict(kind, bar, Judgement.NOT_JUDGED)
    worst = min(measured, key=measured.__getitem__)
    ratio = measured[worst]
    if ratio > 1.0:
        judgement = Judgement.KEPT
    elif ratio >= LEVEL:
        judgement = Judgement.LEVEL if ahead else Judgement.KEPT
    else:
        judgement = Judgement.MISSED
    return Verdict(kind, bar, judgement, f"{times(ratio)} {worst}")
