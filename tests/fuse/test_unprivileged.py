"""The same tests without CAP_SYS_ADMIN: recfs says that it goes without passthrough, and does all else as ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import userns

from .clients import need_root, skip
from .harness import REPOSITORY

HERE = Path(__file__).parent
FILES = [
    *(path.name for path in HERE.glob("test_posix_*.py")), "test_xattr.py",
    "test_passthrough.py", "test_passthrough_programs.py",
    "test_quota.py", "test_fallback.py", "test_crash.py", "test_temp.py",
]  # fmt: skip
"""Programs like ffmpeg meet the same daemon where it goes without passthrough because it was told to (`off`)."""
ENOUGH = 250
LIMIT_S = 600.0


@pytest.mark.slow
@pytest.mark.modeless
@pytest.mark.timeout(660)
def test_the_suite_without_sys_admin(workspace: Path) -> None:
    need_root()
    if not userns.has_sys_admin():
        skip("runs in a user namespace already")
    argv = [sys.executable, userns.__file__, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    nested = subprocess.Popen(
        [*argv, "--basetemp", str(workspace / "basetemp"), *sorted(str(HERE / name) for name in FILES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "RECFS_TEST_MODES": "auto", "RECFS_TEST_DIR": str(workspace)},
        start_new_session=True,
    )
    try:
        said, _ = nested.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(nested.pid, signal.SIGINT)  # pytest takes its mounts down
        try:
            said, _ = nested.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(nested.pid, signal.SIGKILL)
            said, _ = nested.communicate()
        pytest.fail(f"not done after {LIMIT_S:.0f} s:\n{said[-8000:]}")
    if nested.returncode == userns.REFUSED:
        skip(f"needs user namespaces: {said.strip()}")
    summary = said[said.rfind("short test summary") :] if "short test summary" in said else said[-8000:]
    assert nested.returncode == 0, f"without CAP_SYS_ADMIN:\n{said[:20_000]}\n…\n{summary}"
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None, said[-8000:]
    assert int(passed[1]) >= ENOUGH, said[-8000:]
