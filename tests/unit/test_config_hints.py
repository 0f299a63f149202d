"""Settings that are allowed, and hardly meant."""

from pathlib import Path

import pytest

from recfs.config import load_config
from recfs.config.hints import hints


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[[retention]]\nretention = 90", ["retention[1].retention"]),
        ('[[retention]]\nretention = "3650"\ngrace = 14', ["retention[1].retention", "retention[1].grace"]),
        ('[[retention]]\nuser = "5"\n[[retention]]\nretention = "30"', ["retention[2].retention"]),
        ("[recordings]\ngrace = 14\n[trash]\nretention = 7", ["recordings.grace", "trash.retention"]),
        ('[recordings]\ngrace = "0s"\n[trash]\nretention = 0\n[[retention]]\nretention = "2h"\ngrace = "2h"', []),
        ("", []),
    ],
)
def test_lifetimes_that_are_hardly_meant_are_named(tmp_path: Path, text: str, keys: list[str]) -> None:
    file = tmp_path / "recfs.conf"
    file.write_text(f'root = "/srv/recfs"\n{text}\n')
    assert [each.split()[0] for each in hints(load_config(file))] == keys


def test_a_hint_says_what_holds_and_what_to_write(tmp_path: Path) -> None:
    file = tmp_path / "recfs.conf"
    file.write_text('root = "/srv/recfs"\n[[retention]]\nretention = 90\n')
    assert hints(load_config(file)) == [
        'retention[1].retention is 1m 30s: a number without a unit is seconds; days are written as in "90d"'
    ]
