"""A man page in the language of groff's and mandoc's man(7): paragraphs, tagged ones, and text as it is."""

import re
from collections.abc import Iterator

_CODE = re.compile(r"`([^`]+)`")


def escaped(text: str) -> str:
    """*text*, every character of it meant: no escapes, no requests, no hyphens for minus signs."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    text = text.replace("`", "\\(ga").replace("'", "\\(aq")
    text = re.sub(r"[^\x00-\x7f]", lambda seen: f"\\[u{ord(seen[0]):04X}]", text)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def inline(text: str) -> str:
    """*text* on one line, what stands in backticks bold."""
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(f"\\fB{escaped(each)}\\fR" if odd % 2 else escaped(each) for odd, each in enumerate(pieces))


class Page:
    """One page, written from top to bottom; `text` is what becomes of it."""

    def __init__(self, name: str, section: int, *, date: str, source: str, manual: str) -> None:
        title = " ".join(f'"{each}"' for each in (escaped(name.upper()), section, date, source, manual))
        self._lines = ['.\\" Made by scripts/package: change what it is made of.', f".TH {title}"]

    @property
    def text(self) -> str:
        """The whole page."""
        return "\n".join(self._lines) + "\n"

    def section(self, title: str) -> None:
        """Begin a section; capitals are made of its title, unless that is one of TOML's."""
        self._lines.append(f".SH {escaped(title if title.startswith('[') else title.upper())}")

    def subsection(self, title: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f".SS {escaped(title)}")

    def paragraphs(self, text: str) -> None:
        """Paragraphs; one that begins with \\b (as click has it) is left as it is."""
        for paragraph in filter(str.strip, text.split("\n\n")):
            if paragraph.startswith("\b\n"):
                self.literal(paragraph.removeprefix("\b\n"))
            else:
                self._paragraph()
                self._lines.append(inline(paragraph))

    def _paragraph(self) -> None:
        if not self._lines[-1].startswith((".SH ", ".SS ")):  # those begin one themselves
            self._lines.append(".PP")

    def literal(self, text: str) -> None:
        """Lines that keep their breaks and blanks."""
        self._paragraph()
        self._lines += [".RS 4", ".EX", *map(escaped, text.strip("\n").split("\n")), ".EE", ".RE"]

    def tagged(self, rows: Iterator[tuple[str, str]]) -> None:
        """Words, each with what it means; paragraphs beyond the first are indented like it."""
        for tag, meaning in rows:
            first, *more = meaning.split("\n\n")
            self._lines += [".TP", f"\\fB{escaped(tag)}\\fR", inline(first) or "\\&"]
            for each in more:
                self._lines += [".IP", inline(each)]
