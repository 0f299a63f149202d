"""The report as one page of HTML that needs nothing else: styles and the chart of before and after are in it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.migration.plan import LEFT, Action
from recfs.core.units import format_size
from recfs.migration.run.report import Sum

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recfs.migration.run.report import Named, Report

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .25rem .75rem .25rem 0; text-align: left;
 border-bottom: 1px solid #8884; vertical-align: top; overflow-wrap: anywhere } td.n, th.n { text-align: right;
 white-space: nowrap; font-variant-numeric: tabular-nums }
.ok { color: #1a7f37 } .bad { color: #cf222e } svg { width: 100%; height: auto } svg text { fill: currentColor;
 font: 13px system-ui, sans-serif }
"""
_WIDTH: Final = 800
_LEFT: Final = 90
_BAR: Final = 34
_ROW: Final = 58
_LEGEND: Final = 24


class _Part(NamedTuple):
    name: str
    colour: str
    found: Sum


def page(report: Report, plan: str, made: str) -> str:
    """The whole page. *plan*: the name of the plan's file; *made*: when the report was made, for people."""
    state = '<b class="ok">clean</b>' if report.is_clean else '<b class="bad">not clean</b>'
    body = [
        f"<h1>Migration: {escape(plan)}</h1>",
        f"<p>After <code>recfs migrate {escape(report.command)}</code>, {escape(made)}: {state}</p>",
        *(f'<p class="bad">{escape(_stop(user))} stopped: {escape(why)}; {escape(help_)}</p>'
          for user, why, help_ in report.stopped),
        "<h2>Before and after</h2>",
        chart(report),
        _sums(report),
        *_names("Problems", report.problems, report.problem_files),
        *_names("Left alone", report.left, report.left_files),
    ]  # fmt: skip
    if report.recordings:
        rows = [(path, why) for path, why in report.recordings]
        body += ["<h2>Expiry not carried over</h2>", _table(("Recording", "Reason"), rows)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Migration: {escape(plan)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def chart(report: Report) -> str:
    """Two bars of bytes, to one scale: the old tree by what becomes of it, and what lies at the targets."""
    before = [
        _Part("to be migrated", "#4078c0", _added(report, (Action.COPY, Action.ASIDE))),
        _Part("duplicates", "#d4a72c", _added(report, (Action.DUPLICATE,))),
        _Part("left out", "#8c959f", _added(report, (Action.SKIP,))),
        _Part("unmatched, ambiguous, unreadable", "#cf222e", _added(report, LEFT)),
    ]
    after = [_Part("at its target", "#2da44e", report.after)]
    most = max(sum(part.found.size for part in parts) for parts in (before, after)) or 1
    height = 2 * _ROW + _LEGEND * 5
    lines = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="bytes before and after the migration">',
    ]
    for row, (name, parts) in enumerate((("before", before), ("after", after))):
        lines += _bar(row * _ROW, name, parts, most)
    for number, part in enumerate(part for part in (*before, *after)):
        y = 2 * _ROW + number * _LEGEND
        told = f"{part.name}: {part.found.files:,} files, {format_size(part.found.size)}"
        lines.append(f'<rect x="{_LEFT}" y="{y}" width="14" height="14" fill="{part.colour}"/>')
        lines.append(f'<text x="{_LEFT + 22}" y="{y + 12}">{escape(told)}</text>')
    return "\n".join([*lines, "</svg>"])


def _bar(top: int, name: str, parts: Sequence[_Part], most: int) -> Iterable[str]:
    total = sum(part.found.size for part in parts)
    yield f'<text x="0" y="{top + 22}">{name}</text>'
    x = float(_LEFT)
    for part in parts:
        width = (_WIDTH - _LEFT) * part.found.size / most
        if width:
            yield (
                f'<rect x="{x:.2f}" y="{top}" width="{width:.2f}" height="{_BAR}" fill="{part.colour}">'
                f"<title>{escape(part.name)}: {escape(format_size(part.found.size))}</title></rect>"
            )
        x += width
    yield f'<text x="{_LEFT}" y="{top + _BAR + 15}">{escape(format_size(total))}</text>'


def _added(report: Report, actions: Iterable[Action]) -> Sum:
    found = [report.actions[action] for action in actions if action in report.actions]
    return Sum(sum(each.files for each in found), sum(each.size for each in found))


def _sums(report: Report) -> str:
    rows = [("the old tree, as planned", report.before)]
    rows += [(f"plan: {action}", found) for action, found in report.actions.items()]
    rows += [(f"state: {step}", found) for step, found in report.steps.items()]
    rows += [("at its target", report.after), ("of these, there before", report.there_before)]
    rows += [("duplicates saved", report.saved)]
    return _table(
        ("", "Files", "Bytes"),
        [(name, f"{found.files:,}", format_size(found.size)) for name, found in rows],
        numbers=(1, 2),
    )


def _names(title: str, named: Sequence[Named], count: int) -> Iterable[str]:
    if not count:
        return
    yield f"<h2>{title}: {count:,}</h2>"
    rows = [(each.source, each.target, each.kind, each.reason) for each in named]
    yield _table(("Source", "Target", "", "Reason"), rows)
    if count > len(named):
        yield f"<p>and {count - len(named):,} more</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        marks = (' class="n"' if index in numbers else "" for index in range(len(values)))
        return "".join(f"<{tag}{mark}>{_shown(value)}</{tag}>" for mark, value in zip(marks, values, strict=True))

    lines = [f"<tr>{cells('th', head)}</tr>", *(f"<tr>{cells('td', row)}</tr>" for row in rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _shown(text: str) -> str:
    return escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _stop(user: str) -> str:
    return f"user {user}" if user else "it"


__all__ = ["chart", "page"]
