"""The man page recfs.conf(5), from recfs.conf.example."""

import re
from pathlib import Path

from recfs import __version__
from scripts.package_lib.roff import Page

_HEADER = re.compile(r"#?\[+(\w+)\]+$")
_SETTING = re.compile(r"#?(\w+ *=.*)$")
_PARAGRAPH = re.compile(r"(Default|Sizes|Durations|Paths): ")
"""What a line of a comment begins with that begins a paragraph."""


def page(example: Path, date: str) -> str:
    """The whole page."""
    page = Page("recfs.conf", 5, date=date, source=f"recfs {__version__}", manual="recfs")
    head, *blocks = _blocks(example.read_text("utf-8"))
    page.section("Name")
    page.paragraphs("recfs.conf - the settings of one recfs store")
    page.section("Description")
    page.paragraphs(_prose(head))
    page.section("Settings above the first section")
    for block in blocks:
        prose = _prose(block)
        # Prose has a blank after the #, a setting that is off has none.
        written = [line for line in block if not line.startswith("# ") and line != "#"]
        if written and (title := _HEADER.match(written[0])):
            page.section(f"[{title[1]}]")
            page.paragraphs(prose)
            written, prose = written[1:], ""
        if not written:
            page.paragraphs(prose)
            continue
        first = _SETTING.match(written[0])
        if first is None:
            raise ValueError(f"{example.name}: {written[0]!r} is neither a section nor a setting")
        page.tagged(iter([(first[1], prose)]))
        if more := [line.removeprefix("#") for line in written[1:]]:
            page.literal("\n".join(more))
    page.section("Files")
    page.tagged(iter([("/etc/recfs/recfs.conf", "Used where no other is named.")]))
    page.section("See also")
    page.paragraphs("`recfs`(1), `recfs-config`(1)")
    return page.text


def _blocks(text: str) -> list[list[str]]:
    """The lines between blank ones."""
    return [block.split("\n") for block in re.split(r"\n\n+", text.strip("\n"))]


def _prose(block: list[str]) -> str:
    """The comment of a block, without the marks of one."""
    lines = [line.removeprefix("#").strip() for line in block if line.startswith("# ") or line == "#"]
    return "\n".join(f"\n{line}" if _PARAGRAPH.match(line) else line for line in lines)
