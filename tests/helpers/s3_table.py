"""The table of the S3 guide that says what each server offers, and how it is held to what is found by trying.

`RECFS_TEST_WRITE_TABLE=1 scripts/test tests/contract/test_s3_features.py` writes what is found into it, of the servers
that it ran against. The column of AWS is by its documentation, and written by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from recfs.stores.s3.features.model import Finding, Outcome
from recfs.stores.s3.features.run import FEATURES

GUIDE = Path(__file__).parents[2] / "docs/s3.md"
BEGIN, END = "<!-- what servers offer -->\n", "<!-- end -->\n"
SERVERS = ("AWS", "SeaweedFS", "Ceph RGW", "moto")
WORDS = {Outcome.OFFERED: "yes", Outcome.ABSENT: "no", Outcome.WRONG: "wrong", Outcome.UNTRIED: "?"}
_WRITES = "RECFS_TEST_WRITE_TABLE"


def table() -> dict[str, dict[str, str]]:
    """The cells of the guide: feature → server → word."""
    inside = GUIDE.read_text("utf-8").split(BEGIN, 1)[1].split(END, 1)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in inside.splitlines()[2:]]
    return {row[0]: dict(zip(SERVERS, row[1:], strict=False)) for row in rows}


def written(cells: Mapping[str, Mapping[str, str]]) -> str:
    """The table with these cells."""
    lines = [f"| | {' | '.join(SERVERS)} | without it |", "|---" * (len(SERVERS) + 2) + "|"]
    for feature in FEATURES:
        words = [cells.get(feature.name, {}).get(server, "?") for server in SERVERS]
        lines.append(f"| {feature.name} | {' | '.join(words)} | {feature.without} |")
    return "\n".join(lines) + "\n"


def hold_to(server: str, findings: Sequence[Finding]) -> None:
    """Fail where the guide says something else of *server* than was found; or write it, where that is asked for."""
    found = {each.feature.name: WORDS[each.outcome] for each in findings}
    cells = table()
    if os.environ.get(_WRITES):
        for name, word in found.items():
            cells.setdefault(name, {})[server] = word
        text = GUIDE.read_text("utf-8")
        head, rest = text.split(BEGIN, 1)
        tail = rest.split(END, 1)[1]
        GUIDE.write_text(f"{head}{BEGIN}{written(cells)}{END}{tail}", "utf-8")
        return
    told = {name: row.get(server, "") for name, row in cells.items() if name in found}
    seen = {each.feature.name: each.detail for each in findings}
    differ = {name: (told.get(name), word, seen[name]) for name, word in found.items() if told.get(name) != word}
    assert differ == {}, f"docs/s3.md says something else of {server}; {_WRITES}=1 writes what was found"


__all__ = ["BEGIN", "END", "GUIDE", "SERVERS", "WORDS", "hold_to", "table", "written"]
