"""How far a long command is."""

from __future__ import annotations

import sys

import pytest

from recfs.cli.common import progress
from recfs.cli.common.progress import ProgressLine, to_go


@pytest.mark.parametrize(
    ("done", "total", "took_s", "expected"),
    [
        (25, 100, 60.0, ", 3m to go"),
        (99, 100, 99.0, ", 1s to go"),
        (0, 100, 60.0, ""),
        (100, 100, 60.0, ""),
        (120, 100, 60.0, ""),
        (50, None, 60.0, ""),
        (50, 100, 0.5, ""),
    ],
)
def test_what_is_left_is_told_where_somebody_can_tell(
    done: int, total: int | None, took_s: float, expected: str
) -> None:
    assert to_go(done, total, took_s) == expected


def test_a_terminal_has_one_line_that_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = ProgressLine()
    line.show("10 of 20 files")
    line.show("9 of 9")
    line.clear()
    line.clear()
    assert capsys.readouterr().err == "\r10 of 20 files\r9 of 9        \r" + " " * len("9 of 9") + "\r"


def test_elsewhere_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    line = ProgressLine()
    for step in range(100):
        line.show(f"{step} files")
        now_s[0] += 1.0
    line.clear()
    assert capsys.readouterr().err == "recfs: 30 files\nrecfs: 60 files\nrecfs: 90 files\n"
