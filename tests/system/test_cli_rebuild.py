"""`recfs rebuild` on a store that nobody has mounted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.fake_daemon import run

REC = "users/5/recordings/142"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A home tree without a catalogue."""
    root = tmp_path / "store"
    (root / REC).mkdir(parents=True)
    (root / REC / "file").write_bytes(b"data")
    (root / "users/5/notes").write_bytes(b"notes")
    return root


@pytest.mark.slow
@pytest.mark.may_log("")
def test_what_it_says(root: Path) -> None:
    done = run("rebuild", "--root", root)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "6 directories, 0 links and 1 file at home (0 of them in S3, too), 0 in S3 only", "1 file hashed, 4 B",
    ]  # fmt: skip
    assert lines[2].startswith("moved to lost+found: users/5/notes: file 'notes' is not allowed here")
    told = json.loads(run("rebuild", "--root", root, "--json", "--checksums", "trust", "--salvage").stdout)
    assert (told["files"], told["trusted"], told["hashed_files"], told["in_place"]) == (1, 1, 0, True)
    assert Path(told["moved_to"]).exists()
    assert told["aside"] == {"count": 0, "some": []}
    assert run("quota", "check", "--root", root).exit_code == 0
    assert json.loads(run("info", "--root", root, f"{REC}/file", "--json").stdout)["state"] == "committed"


@pytest.mark.slow
@pytest.mark.may_log("")
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_salvage_of_which_nothing_came_says_what_is_lost(root: Path, harm: str) -> None:
    assert run("rebuild", "--root", root).exit_code == 1
    whole = run("rebuild", "--root", root, "--salvage")
    assert (whole.exit_code, "nothing of the old catalogue" in whole.stdout) == (0, False)
    catalogue = root / ".recfs/catalogue.db"
    if harm == "missing":
        catalogue.unlink()
    else:
        catalogue.write_bytes(b"\xa5" * 16_384)
    done = run("rebuild", "--root", root, "--salvage")
    [line] = [line for line in done.stdout.splitlines() if "nothing of the old catalogue could be read" in line]
    for lost in ("limits", "keep marks", "notes", "extended attributes"):
        assert lost in line
    assert (done.exit_code, (root / REC / "file").read_bytes()) == (0, b"data")
    assert "nothing of the old catalogue" not in run("rebuild", "--root", root).stdout, "nobody asked for it"


def test_where_nothing_is(tmp_path: Path) -> None:
    done = run("rebuild", "--root", tmp_path / "missing")
    assert done.exit_code == 4
    assert "is its disk mounted" in done.stderr
