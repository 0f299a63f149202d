"""The suite in several processes: who runs what, what runs alone, and that a dead worker costs one test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100

CONFTEST = """
from tests.helpers import workers

workers.GRACE_S = 0.1


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: no other test runs meanwhile")
    config.addinivalue_line("markers", "slow: takes long")
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
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
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


def run(directory: Path, *arguments: str, **modules: str) -> str:
    """What a pytest with workers says of these modules; `busy` is a directory they share."""
    suite = directory / "suite"
    suite.mkdir()
    (directory / "busy").mkdir()
    (suite / "conftest.py").write_text(CONFTEST)
    (suite / "pytest.ini").write_text("[pytest]\ntimeout = 60\n")
    for name, text in modules.items():
        (suite / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", directory / "basetemp"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [*command, *arguments, suite],
        cwd=suite,
        env=environment | {"PYTHONPATH": str(ROOT), "BUSY": str(directory / "busy")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout


@pytest.mark.slow
def test_a_test_that_takes_its_worker_with_it_is_reported_once_and_the_run_goes_on(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "2", lethal=LETHAL, other=LETHAL.replace("test_deaf", "test_deaf_too"))
    assert re.search(r"^=+ 4 failed, 44 passed in ", said.splitlines()[-1]), said
    for test in ("test_lethal.py::test_deaf", "test_other.py::test_deaf_too", "test_other.py::test_killed"):
        assert len(re.findall(rf"^FAILED {test}\b", said, re.MULTILINE)) == 1, said
    assert "test_deaf still ran" in said
    assert "in test_deaf" in said, "the stacks are shown"


@pytest.mark.slow
def test_what_runs_alone_runs_while_nothing_else_does(tmp_path: Path) -> None:
    said = run(tmp_path, "-n", "3", one=TURNS, two=TURNS, three=TURNS)
    assert re.search(r"^=+ 75 passed in ", said.splitlines()[-1]), said
