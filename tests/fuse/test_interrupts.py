"""A program that is killed while its request waits is gone at once, and the daemon goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .clients import PYTHON, wait_until, xattr
from .harness import Mount

pytestmark = pytest.mark.modes("auto")

ASK = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: sys.exit(int(sys.argv[2])))
signal.siginterrupt(signal.SIGALRM, True)
print("begins", flush=True)
try:
    os.getxattr(sys.argv[1], "user.recfs.sha256")
except OSError as error:
    sys.exit(error.errno)
sys.exit(99)
"""


@pytest.fixture
def endless(rec: Path) -> Path:
    """A file whose checksums take hours: until somebody asks for them, nobody waits."""
    path = rec / "endless"
    with path.open("wb") as file:
        file.truncate(300 << 30)
    return path


def asking(path: Path) -> subprocess.Popen[str]:
    """A program that waits for its checksum."""
    client = subprocess.Popen([*PYTHON, ASK, path, str(errno.EINTR)], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "begins\n"
    client.stdout.close()
    wait_until(lambda: "request_wait" in Path(f"/proc/{client.pid}/stack").read_text(), "the client waits")
    return client


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGALRM])
def test_a_client_that_waits_for_a_checksum_can_be_ended(
    mount: Mount, rec: Path, endless: Path, sent: signal.Signals
) -> None:
    client = asking(endless)
    client.send_signal(sent)
    code = client.wait(5)
    assert code == (errno.EINTR if sent is signal.SIGALRM else -sent)
    (rec / "other").write_bytes(b"the daemon goes on")
    assert len(xattr(rec / "other", "sha256")) == 64
    with endless.open("r+b") as file:
        file.truncate(3)
    assert len(xattr(endless, "sha256")) == 64


def test_many_clients_that_wait_are_ended_together(mount: Mount, rec: Path, endless: Path) -> None:
    clients = [asking(endless) for _ in range(8)]
    began = time.monotonic()
    for client in clients:
        client.kill()
    for client in clients:
        client.wait(10)
    assert time.monotonic() - began < 10
    endless.unlink()
    assert os.listdir(rec) == []


MANY = """
import os, sys, threading
def ask():
    try:
        os.getxattr(sys.argv[1], "user.recfs.sha256")
    except OSError:
        pass
for _ in range(300):
    threading.Thread(target=ask, daemon=True).start()
print("begun", flush=True)
threading.Event().wait()
"""


def waiting_threads(pid: int) -> int:
    """How many threads of a program wait for an answer of the daemon."""
    return sum("request_wait" in each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stack"))


def test_hundreds_of_requests_that_wait_hold_up_nobody(mount: Mount, rec: Path, endless: Path) -> None:
    """Each keeps a task of the request loop: there are more of them than one user can fill."""
    client = subprocess.Popen([*PYTHON, MANY, endless], stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: waiting_threads(client.pid) == 300, "all of them wait")
        other = rec / "other"
        other.write_bytes(b"somebody else's")
        assert len(xattr(other, "sha256")) == 64
        assert sorted(os.listdir(rec)) == ["endless", "other"]
        other.unlink()
        assert waiting_threads(client.pid) == 300, "they waited all the while"
    finally:
        client.kill()
        assert client.stdout is not None
        client.stdout.close()
        client.wait(20)
    endless.unlink()
