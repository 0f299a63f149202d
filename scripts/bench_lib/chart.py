"""The result of a run as a picture: for each row one bar per target, as long as its part of the native speed.

Two panels side by side. Bytes are on a linear scale, for there a tenth more or less matters; names and small files
on a logarithmic one, for there targets differ tenfold. Plain SVG with its own style sheet, which follows the
reader's light or dark mode.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree as ET

import click

from .bars import times
from .fleet import NATIVE, RECFS, RECFS_OFF
from .spec import Group

WIDTH, PANEL_WIDTH, MARGIN = 1000, 470, 20
AXIS_WIDTH = PANEL_WIDTH - 50
"""The rest is for the number behind the longest bar."""
BAR, BAR_STEP, ROW_GAP, TITLE_HEIGHT = 8, 9.5, 10, 16
HEADER_HEIGHT, PANEL_HEADER_HEIGHT, FOOTER_HEIGHT = 66, 42, 14

_COLOURS = {
    RECFS: "#2f6fde",
    RECFS_OFF: "#86b0f2",
    "bindfs": "#b9a58c",
    "mergerfs": "#8a9a86",
    "rclone": "#a487a8",
    "s3fs": "#8d99a8",
}
_OTHER_COLOUR = "#999999"
_NAMES = {RECFS_OFF: "recfs, passthrough off"}

_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.panel { font-size: 13px; font-weight: 600 }
.quiet, .tick { fill: #656d76 }
.tick, .value { font-size: 9.5px }
.value { fill: #656d76 }
.ours { font-weight: 600; fill: #24292f }
.grid { stroke: #d0d7de; stroke-width: 1 }
.native { stroke: #656d76; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text, .ours { fill: #e6edf3 }
  .quiet, .tick, .value { fill: #8d96a0 }
  .grid { stroke: #30363d }
  .native { stroke: #8d96a0 }
}
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a ratio lies on the axis (0 to 1), and the ratios that are marked."""

    position: Callable[[float], float]
    ticks: Sequence[float]


def linear_scale(ratios: Sequence[float]) -> Scale:
    """From 0 to the largest ratio, native included, but not beyond twice native: longer bars are cut."""
    top = min(max(1.1, *ratios), 2.0)
    ticks = [step / 4 for step in range(int(top * 4) + 1)]
    return Scale(lambda ratio: min(ratio / top, 1.0), ticks)


def logarithmic_scale(ratios: Sequence[float]) -> Scale:
    """From the power of ten below the smallest ratio to the largest, native included."""
    low = math.floor(math.log10(min(1.0, *ratios) * 0.999))
    high = math.log10(max(1.2, *ratios))
    powers = [10.0**power for power in range(low, math.floor(high) + 1)]
    ticks = sorted([*powers, *(3 * power for power in powers if math.log10(3 * power) < high)])
    return Scale(lambda ratio: (math.log10(ratio) - low) / (high - low), ticks)


_PANELS: tuple[tuple[Group, str, Callable[[Sequence[float]], Scale]], ...] = (
    (Group.DATA, "Bytes", linear_scale),
    (Group.METADATA, "Names and small files (logarithmic)", logarithmic_scale),
)


def draw(result: Mapping[str, Any]) -> str:
    """The SVG for a document of `scripts/bench --json`. Raises ValueError when no row compares with native."""
    mounts = [name for name in result["targets"] if name != NATIVE]
    svg = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    ET.SubElement(svg, "title").text = "recfs and its peers: speed as a part of native speed"
    ET.SubElement(svg, "style").text = _STYLE
    _text(svg, MARGIN, 24, "How many times as fast as the disk itself (1× = native; longer is better)", "title")
    where = result["machine"]
    conditions = f"{where['file_system']}, {where['cpus']} CPUs, Linux {where['kernel']}"
    sizes = "" if result["full_size"] else ", quick sizes"
    conditions += f", medians of {result['rounds']} interleaved rounds{sizes}"
    _text(svg, MARGIN, 43, conditions, "quiet")
    _legend(svg, mounts)
    height = 0.0
    drawn = 0
    for group, title, scale in _PANELS:
        rows = [row for row in result["rows"] if row["group"] == group.value and _ratios(row, mounts)]
        if not rows:
            continue
        left = MARGIN + drawn * (PANEL_WIDTH + MARGIN)
        height = max(height, _panel(svg, left, title, rows, mounts, scale))
        drawn += 1
    if not drawn:
        raise ValueError("no row of the result compares with native")
    total = math.ceil(height + FOOTER_HEIGHT)
    svg.set("viewBox", f"0 0 {WIDTH} {total}")
    svg.set("width", str(WIDTH))
    svg.set("height", str(total))
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _ratios(row: Mapping[str, Any], mounts: Sequence[str]) -> dict[str, float]:
    return {name: row["times_native"][name] for name in mounts if row["times_native"].get(name)}


def _text(parent: ET.Element, x: float, y: float, content: str, kind: str = "", *, centred: bool = False) -> None:
    element = ET.SubElement(parent, "text", x=f"{x:g}", y=f"{y:g}")
    if kind:
        element.set("class", kind)
    if centred:
        element.set("text-anchor", "middle")
    element.text = content


def _line(parent: ET.Element, x: float, top: float, bottom: float, kind: str) -> None:
    ET.SubElement(
        parent, "line", {"x1": f"{x:g}", "x2": f"{x:g}", "y1": f"{top:g}", "y2": f"{bottom:g}", "class": kind}
    )


def _bar(parent: ET.Element, x: float, y: float, width: float, name: str) -> None:
    ET.SubElement(
        parent,
        "rect",
        x=f"{x:g}",
        y=f"{y:g}",
        width=f"{max(width, 1):.1f}",
        height=f"{BAR}",
        rx="1",
        fill=_COLOURS.get(name, _OTHER_COLOUR),
    )


def _legend(svg: ET.Element, mounts: Sequence[str]) -> None:
    x = float(MARGIN)
    for name in mounts:
        shown = _NAMES.get(name, name)
        _bar(svg, x, HEADER_HEIGHT - 9, 14, name)
        _text(svg, x + 19, HEADER_HEIGHT - 1, shown)
        x += 19 + 6.4 * len(shown) + 18


def _panel(
    svg: ET.Element,
    left: float,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    mounts: Sequence[str],
    make_scale: Callable[[Sequence[float]], Scale],
) -> float:
    """Draw one panel from `left`; returns the height it reaches down to."""
    scale = make_scale([ratio for row in rows for ratio in _ratios(row, mounts).values()])
    top = HEADER_HEIGHT + PANEL_HEADER_HEIGHT
    row_height = [TITLE_HEIGHT + len(_ratios(row, mounts)) * BAR_STEP + ROW_GAP for row in rows]
    bottom = top + sum(row_height) - ROW_GAP
    _text(svg, left, HEADER_HEIGHT + 22, title, "panel")
    for tick in scale.ticks:
        x = left + scale.position(tick) * AXIS_WIDTH
        _text(svg, x, top - 5, f"{tick:g}×", "tick", centred=x > left)
    y = float(top)
    for row, height in zip(rows, row_height, strict=True):
        _text(svg, left, y + 12, row["title"])
        for tick in scale.ticks:
            x = left + scale.position(tick) * AXIS_WIDTH
            _line(svg, x, y + TITLE_HEIGHT - 1, y + height - ROW_GAP, "native" if tick == 1 else "grid")
        for index, (name, ratio) in enumerate(_ratios(row, mounts).items()):
            bar_top = y + TITLE_HEIGHT + index * BAR_STEP
            width = scale.position(ratio) * AXIS_WIDTH
            _bar(svg, left, bar_top, width, name)
            _text(
                svg, left + max(width, 1) + 4, bar_top + BAR, times(ratio), "value ours" if name == RECFS else "value"
            )
        y += height
    return bottom


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("result", type=click.File(encoding="utf-8"))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Where the SVG goes.",
)
def main(result: TextIO, output: Path) -> None:
    """Draw RESULT, the document that `scripts/bench --json` wrote (- is standard input), as an SVG."""
    try:
        picture = draw(json.load(result))
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{result.name}: not a result of scripts/bench --json: {error}") from error
    output.write_text(picture, encoding="utf-8")
