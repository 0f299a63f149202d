"""The suite in several processes: who runs what, what runs alone, and that a dead worker costs one test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 90

CONFTEST = """
from tests.helpers import machine, workers

workers.GRACE_S = 0.1


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: no other test runs meanwhile")
    config.addinivalue_line("markers", "slow: takes long")
    config.pluginmanager.register(machine)
    config.pluginmanager.register(workers)
    workers.configure(config)
"""

LETHAL = """
import os
import signal
import time

import pytest


def test_before():
    pass


@pytest.mark.timeout(0.5)
def test_deaf():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # blocked, it would go to another thread
    while True:
        time.sleep(1)


def test_between():
    pass


def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("number", range(20))
def test_after(number):
    pass
"""

LAST = """
import os
import signal


def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_last():
    pass
"""

TURNS = """
import os
from pathlib import Path

import pytest

BUSY = Path(os.environ["BUSY"])


def busy():
    return list(BUSY.iterdir())


def work():
    mine = BUSY / str(os.getpid())
    mine.touch()
    for _ in range(2000):
        assert os.path.exists(mine)
    mine.unlink()


@pytest.mark.parametrize("number", range(20))
def test_with_others(number):
    work()


@pytest.mark.alone
@pytest.mark.parametrize("number", range(5))
def test_alone(number):
    assert busy() == []
    work()
    assert busy() == []
"""

LONG = """
import os
import time
from pathlib import Path

import pytest

BUSY = Path(os.environ["BUSY"])


@pytest.mark.slow
@pytest.mark.timeout(61)
@pytest.mark.parametrize("number", range(2))
def test_waits_for_the_other(number):
    (BUSY / str(number)).touch()
    end = time.monotonic() + 30
    while len(list(BUSY.iterdir())) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
"""

SKIPS = """
import pytest

from tests.helpers.machine import skip


def test_runs():
    pass


def test_says_so():
    pytest.skip("needs a Tuesday")


def test_asks():
    skip("needs root")


@pytest.mark.skip(reason="not now")
def test_is_marked():
    pass
"""


def run(directory: Path, *arguments: str, env: dict[str, str] | None = None, **modules: str) -> str:
    """What a pytest with workers says of these modules, and its exit code; `busy` is a directory they share."""
    suite = directory / "suite"
    suite.mkdir()
    (directory / "busy").mkdir()
    (suite / "conftest.py").write_text(CONFTEST)
    (suite / "pytest.ini").write_text("[pytest]\ntimeout = 60\n")
    for name, text in modules.items():
        (suite / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
    command += ["--basetemp", str(directory / "basetemp")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    # The others are half of what each of these processes would take to start.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [*command, *arguments, suite],
        cwd=suite,
        env=environment | {"PYTHONPATH": str(ROOT), "BUSY": str(directory / "busy")} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return f"{done.stdout}exit code {done.returncode}"


def summary(said: str) -> str:
    """pytest's last line, and the exit code."""
    return " ".join(said.splitlines()[-2:]).strip("= ")


@pytest.mark.slow
def test_a_test_that_takes_its_worker_with_it_is_reported_once_and_the_run_goes_on(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "2", lethal=LETHAL, other=LETHAL.replace("test_deaf", "test_deaf_too"))
    assert re.fullmatch(r"4 failed, 44 passed in .*exit code 1", summary(said)), said
    for test in ("test_lethal.py::test_deaf", "test_other.py::test_deaf_too", "test_other.py::test_killed"):
        assert len(re.findall(rf"^FAILED {test}\b", said, re.MULTILINE)) == 1, said
    assert "test_deaf still ran" in said
    assert "in test_deaf" in said, "the stacks are shown"


@pytest.mark.slow
def test_what_a_dead_worker_had_done_does_not_keep_the_next_one_from_the_rest(tmp_path: Path) -> None:
    """A worker begins a test when it knows the next one, or that there is none."""
    done = {f"a{number}": "def test_done():\n    pass\n" for number in range(5)}
    said = run(tmp_path, "-n", "1", **done, last=LAST)
    assert re.fullmatch(r"1 failed, 6 passed in .*exit code 1", summary(said)), said


@pytest.mark.slow
def test_what_runs_alone_runs_while_nothing_else_does(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "3", one=TURNS, two=TURNS, three=TURNS)
    assert re.fullmatch(r"75 passed in .*exit code 0", summary(said)), said


@pytest.mark.slow
def test_what_may_take_longer_than_others_waits_for_none_of_its_file(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "2", long=LONG)
    assert re.fullmatch(r"2 passed in .*exit code 0", summary(said)), said


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
def test_in_ci_a_skip_that_the_machine_could_have_run_fails_the_run(tmp_path: Path, processes: str) -> None:
    """However it was skipped; what the machine lacks indeed is excused."""
    root = os.geteuid() == 0
    said = run(tmp_path, "-n", processes, env={"RECFS_TEST_NO_SKIP": "1"}, skips=SKIPS)
    wanted = "1 failed, 1 passed, 2 skipped" if root else "1 passed, 3 skipped"
    assert re.fullmatch(rf"{wanted} in .*exit code 1", summary(said)), said
    for line in ("test_says_so: needs a Tuesday", "test_is_marked: not now"):
        assert f"SKIPPED test_skips.py::{line}" in said, said
    assert ("in CI nothing is skipped that this machine could run: needs root" in said) is root


@pytest.mark.slow
def test_elsewhere_skips_are_no_failures(tmp_path: Path) -> None:
    """Without CI."""
    said = run(tmp_path, "-n", "0", env={"RECFS_TEST_NO_SKIP": ""}, skips=SKIPS)
    assert re.fullmatch(r"1 passed, 3 skipped in .*exit code 0", summary(said)), said
