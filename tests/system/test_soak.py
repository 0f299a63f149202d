"""scripts/soak for some seconds: that it works, and that recfs is right after it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.machine import skip
from tests.helpers.userns import has_sys_admin

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
pytestmark = [
    pytest.mark.fuse,
    pytest.mark.slow,
    pytest.mark.needs("ffmpeg", "rsync"),
    pytest.mark.timeout(330),
]


def test_a_short_soak_leaves_everything_right() -> None:
    """With a daemon that is killed now and then."""
    if not has_sys_admin():
        skip("needs CAP_SYS_ADMIN")
    command = [sys.executable, ROOT / "scripts/soak", "--minutes", "0.25", "--kill-daemon"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all is right\n")
    assert re.search(r"\bkill_daemon [1-9]", done.stdout), done.stdout
    compared = re.search(r"^(\d+) files compared", done.stdout, re.MULTILINE)
    assert compared is not None
    assert int(compared[1]) > 0, done.stdout
