"""A few lives in CI; scripts/crash has as many as one likes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import checks
from tests.crash.life import Kind, Lives, lives
from tests.helpers.machine import skip
from tests.helpers.userns import has_sys_admin

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 840
"""Some twenty times as long as it takes here: what a life waits for has bounds of its own."""
pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("mode", "kind", "seed"),
    [
        ("auto", ["--no-s3", "--trash", "--watch"], 1),
        ("off", ["--no-s3", "--no-trash", "--no-watch"], 2),
        ("read", ["--s3", "--trash", "--no-watch"], 3),
    ],
    ids=["auto", "off", "S3"],
)
def test_promises_survive_deaths_of_the_daemon(mode: str, kind: list[str], seed: int, tmp_path: Path) -> None:
    """Two lives of a store each, with an operator."""
    if not has_sys_admin():
        skip("needs CAP_SYS_ADMIN")
    command = [
        sys.executable,
        ROOT / "scripts/crash",
        "--mode",
        mode,
        *kind,
        "--disk",
        "tmpfs",
        "--no-tight",
        "--no-rough",
    ]
    more = ["--seed", str(seed), "--lives", "2", "--longest", "1", "--least-calls", "10", "--keep", str(tmp_path)]
    done = subprocess.run(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all is right\n")
    assert len(re.findall(r"^seed \d+, life", done.stdout, re.MULTILINE)) == 2, done.stdout
    for count in ("calls", "files compared"):
        found = re.search(rf"^ *(\d+) {count}", done.stdout, re.MULTILINE)
        assert found is not None, done.stdout
        assert int(found[1]) > 10, done.stdout
    assert len(re.findall(r"^ *\d+ .* \(operator\)$", done.stdout, re.MULTILINE)) > 2, done.stdout


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that other users can walk through, too."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix=f"recfs-fuse-{os.getpid()}-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_somebody_does_to_the_store_meanwhile_is_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tester is not blind: a committed file is taken away while the daemon is dead, and a stranger's one comes."""
    if not has_sys_admin():
        skip("needs CAP_SYS_ADMIN")
    with lives(base, Kind("off", "tmpfs", s3=False, watch=False, longest_s=0.1), 4, None) as made:
        made.begin()
        (made.store.path / "shared/kept").write_bytes(b"kept")
        made.store.drain()
        home = made.store.home(made.store.path / "shared/kept")

        def meanwhile(lives: Lives) -> None:
            home.unlink()
            (lives.store.root / ".recfs/lost+found/what").write_bytes(b"is this")

        monkeypatch.setattr(Lives, "_keep_a_copy", meanwhile)
        monkeypatch.setattr(checks, "SETTLED_S", 0.5)
        wrong = made.live()
    assert any("shared/kept: it is committed, and cannot be read" in each for each in wrong), wrong
    assert any(each.startswith("rows and disk:") for each in wrong), wrong
    assert any(each.startswith("lost+found has what") for each in wrong), wrong
