"""scripts/quickstart on a real mount: the first thing a newcomer runs must work, and work again."""

import os
import re
import signal
import subprocess
import tempfile
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
    assert result.stdout == "usage: scripts/quickstart [--stop | --s3]\n"
    assert not demo.mount.exists()


# --- with S3 -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FarDemo:
    """The directory of a demo with S3, and the one below which its server's is."""

    home: Path
    servers: Path

    def start(self) -> subprocess.Popen[str]:
        """Begin; what it says comes line by line."""
        return subprocess.Popen(
            [QUICKSTART, "--s3"],
            env={**os.environ, "DEMO_DIR": str(self.home), "TMPDIR": str(self.servers)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def is_gone(self) -> bool:
        """Whether nothing of it is left: neither files nor processes."""
        words = [os.fsencode(self.home), os.fsencode(self.servers)]
        return not self.home.exists() and not list(self.servers.iterdir()) and not processes_with(words)


def processes_with(words: list[bytes]) -> list[str]:
    """Command lines that have one of these words."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes()
        except OSError:
            continue
        if any(word in line for word in words):
            found.append(line.decode("utf-8", "replace"))
    return found


def read_until(script: subprocess.Popen[str], word: str) -> str:
    """What it says up to the line with *word*."""
    assert script.stdout is not None
    said = ""
    for line in script.stdout:
        said += line
        if word in line:
            return said
    pytest.fail(f"it ended before it said {word!r}: {said}", pytrace=False)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarDemo]:
    # The server's sockets have names of 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="recfs-q-") as servers:
        yield FarDemo(tmp_path / "far", Path(servers))


def test_a_video_leaves_for_s3_and_comes_back_and_everything_is_gone_at_the_end(far: FarDemo) -> None:
    """Also what an earlier run has left that was killed."""
    killed = far.start()
    read_until(killed, "is mounted on")
    killed.kill()
    killed.communicate(timeout=60)
    assert (far.home / "recordings").is_mount()
    assert processes_with([os.fsencode(far.servers)])

    again = far.start()
    said = again.communicate(timeout=TIMEOUT_S)[0]
    assert again.returncode == 0, said
    assert re.search(r"^ +\d+  s3://media/studio/users/5/recordings/142/source\.mp4$", said, re.MULTILINE)
    assert "poster.png" not in said.split("in the bucket:", 1)[1].split("==", 1)[0]
    assert "1 evicted, 1 committed" in said
    first, second = re.findall(r"^  (?:sha256sum|user\.recfs\.sha256) +([0-9a-f]{64})$", said, re.MULTILINE)
    assert first == second
    assert re.search(r"^stored .+source\.mp4$", said.split("Come back:", 1)[1], re.MULTILINE)
    assert far.is_gone()


def test_a_demo_with_s3_that_is_ended_leaves_nothing(far: FarDemo) -> None:
    script = far.start()
    said = read_until(script, "is mounted on")
    script.send_signal(signal.SIGTERM)
    said += script.communicate(timeout=TIMEOUT_S)[0]
    assert script.returncode == 128 + signal.SIGTERM, said
    assert far.is_gone()


def test_a_directory_that_is_not_the_demos_is_left_alone(far: FarDemo) -> None:
    far.home.mkdir()
    (far.home / "mine").touch()
    script = far.start()
    said = script.communicate(timeout=TIMEOUT_S)[0]
    assert (script.returncode, "not of this script" in said) == (1, True)
    assert [each.name for each in far.home.iterdir()] == ["mine"]
