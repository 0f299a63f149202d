"""scripts/quickstart on a real mount: the first thing a newcomer runs must work, and work again."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "scripts/quickstart"
TIMEOUT_S = 300

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.needs("ffmpeg", "getfattr")]


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's two directories, and how to run the script on them."""

    mount: Path
    store: Path

    def quickstart(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DEMO_DIR": str(self.mount), "DEMO_STORE": str(self.store)}
        return subprocess.run(
            [QUICKSTART, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path / "demo", tmp_path / "demo-store")
    yield made
    if os.path.ismount(made.mount):
        made.quickstart("--stop")


def test_quickstart_records_runs_again_and_stops(demo: Demo) -> None:
    first = demo.quickstart()
    assert first.returncode == 0, first.stdout
    assert demo.mount.is_mount()
    source = demo.mount / "users/5/recordings/142/source.mp4"
    sha256 = os.getxattr(source, "user.recfs.sha256").decode()
    assert f"user.recfs.sha256  {sha256}" in first.stdout
    assert f"sha256sum          {sha256}" in first.stdout

    again = demo.quickstart()
    assert again.returncode == 0, again.stdout
    assert "is mounted already" in again.stdout

    stopped = demo.quickstart("--stop")
    assert stopped.returncode == 0, stopped.stdout
    assert not demo.mount.is_mount()
    assert (demo.store / "users/5/recordings/142/audio.mp3").stat().st_size > 0


def test_quickstart_says_so_when_there_is_nothing_to_stop(demo: Demo) -> None:
    result = demo.quickstart("--stop")
    assert result.returncode == 1
    assert "nothing is mounted on" in result.stdout


def test_quickstart_refuses_what_it_does_not_know(demo: Demo) -> None:
    result = demo.quickstart("--sotp")
    assert result.returncode == 2
    assert result.stdout == "usage: scripts/quickstart [--stop]\n"
    assert not demo.mount.exists()
