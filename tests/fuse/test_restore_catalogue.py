"""A backup of the catalogue made while programs write, put back by the commands after a kill -9, on a real mount."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .clients import pattern, recfs, sha256, sha256_of, state
from .harness import BASE_CONFIG, Mount

pytestmark = pytest.mark.modeless

KEEPS = f'{BASE_CONFIG}[trash]\nretention = "1d"\n'


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A program that goes on making files."""
    script = 'i=0; while :; do i=$((i+1)); echo "$i" > "$0/w$i"; done'
    with subprocess.Popen(["sh", "-c", script, str(folder)]) as program:
        try:
            yield
        finally:
            program.kill()


@pytest.mark.slow
def test_a_catalogue_is_put_back_after_a_death(store: Mount) -> None:
    store.start(config=KEEPS)
    rec, other = store.recording(), store.recording(1, 2)
    names = ("same", "renamed", "deleted", "changed")
    for number, name in enumerate(names):
        (rec / name).write_bytes(pattern(200_000, number))
    os.setxattr(rec / "renamed", "user.note", b"kept")
    store.drain()
    with writing(other):
        made = store.call("backup_now")
    assert made["rows"]["node"] > len(names)
    os.rename(rec / "renamed", other / "other-name")
    (rec / "deleted").unlink()
    (rec / "changed").write_bytes(pattern(300_000, 9))
    (rec / "new").write_bytes(pattern(50_000, 10))
    store.drain()
    listed = {name: sorted(os.listdir(folder)) for name, folder in (("rec", rec), ("other", other))}
    store.kill()
    store.expect_log("older than the home tree|differ from|have another name|lie in the trash|were not in the")
    done = recfs("restore-catalogue", "--root", store.root, "--json")
    found = json.loads(done.stdout)
    assert found["backup"] == made["name"]
    inside = rec.relative_to(store.path), other.relative_to(store.path)
    assert found["moved"] == [f"{inside[0]}/renamed -> {inside[1]}/other-name"]
    assert found["gone"] == found["set_aside"] == []
    assert f"{inside[0]}/deleted" in found["trashed"]
    store.start(config=KEEPS)
    assert {name: sorted(os.listdir(folder)) for name, folder in (("rec", rec), ("other", other))} == listed
    expected = {rec / "same": 0, other / "other-name": 1}
    for path, number in expected.items():
        assert path.read_bytes() == pattern(200_000, number)
    assert (rec / "changed").read_bytes() == pattern(300_000, 9)
    assert (rec / "new").read_bytes() == pattern(50_000, 10)
    assert os.getxattr(other / "other-name", "user.note") == b"kept"
    store.drain()
    for path in (rec / "same", rec / "changed", rec / "new", other / "other-name"):
        assert state(path) == "committed"
        assert sha256_of(path) == sha256(path.read_bytes())
    store.assert_consistent()
