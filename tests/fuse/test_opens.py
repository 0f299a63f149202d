"""Many processes open one file at the same moment: every open returns, whatever happens to the file or to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .clients import python_client
from .harness import Mount

pytestmark = pytest.mark.slow

CLIENTS = """
import json, multiprocessing as mp, os, signal, sys, threading, time
folder, rounds, acts, meanwhile = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
ALL = {
    "create": os.O_CREAT | os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND, "read": os.O_RDONLY, "write": os.O_RDWR,
    "empty": os.O_CREAT | os.O_WRONLY | os.O_TRUNC, "exclusive": os.O_CREAT | os.O_EXCL | os.O_WRONLY,
}

def client(act, barrier, told):
    barrier.wait()
    try:
        fd = os.open(folder + "/file", ALL[act], 0o600)
        told.put("ok")
        if act != "read":
            os.write(fd, b"x")
        os.close(fd)
    except FileExistsError:
        told.put("ok" if act == "exclusive" else "exists")
    except FileNotFoundError:
        told.put("ok" if meanwhile in ("unlink", "rename") else "gone")
    except OSError as error:
        told.put(os.strerror(error.errno))

def disturb(number):
    if meanwhile == "rename" and os.path.exists(folder + "/file"):
        os.rename(folder + "/file", folder + "/moved")
        os.rename(folder + "/moved", folder + "/file")
    elif meanwhile == "unlink":
        os.unlink(folder + "/file")
    elif meanwhile == "truncate" and os.path.exists(folder + "/file"):
        os.truncate(folder + "/file", number)

for number in range(rounds):
    if "exclusive" not in acts:
        with open(folder + "/file", "wb") as file:
            file.write(b"as it was")
    elif os.path.exists(folder + "/file"):
        os.unlink(folder + "/file")
    if number % 3 and "exclusive" not in acts:  # committed, else still being sealed
        os.getxattr(folder + "/file", "user.recfs.sha256")
    barrier, told = mp.Barrier(len(acts) + 1), mp.Queue()
    clients = [mp.Process(target=client, args=(act, barrier, told), daemon=True) for act in acts]
    for one in clients:
        one.start()
    barrier.wait()
    killed = clients[number % len(clients)] if meanwhile == "kill" else None
    if killed is not None:
        time.sleep(number % 7 * 1e-4)
        killed.kill()
    else:
        disturb(number)
    if meanwhile != "kill":
        got = [told.get(timeout=20) for _ in clients]
        assert got == ["ok"] * len(acts), (number, got)
    for one in clients:
        one.join(20)
        assert one.exitcode is not None, f"round {number}: an open did not return"
print("done")
"""


def race(folder: Path, acts: list[str], meanwhile: str = "nothing", rounds: int = 6) -> None:
    """Let one process for each of *acts* open `folder`/file at the same moment, many times over."""
    assert python_client(CLIENTS, folder, str(rounds), json.dumps(acts), meanwhile) == "done\n"


@pytest.mark.parametrize(
    "acts",
    [
        ["create"] * 4, ["create"] * 16, ["empty"] * 6, ["append"] * 6, ["read", "write"] * 3, ["exclusive"] * 4,
        ["create", "empty", "append", "read", "write", "read"],
    ],
    ids=lambda acts: f"{len(acts)}-{'-'.join(dict.fromkeys(acts))}",
)  # fmt: skip
def test_all_opens_of_the_same_moment_return(mount: Mount, rec: Path, acts: list[str]) -> None:
    race(rec, acts)


@pytest.mark.parametrize("meanwhile", ["kill", "rename", "truncate", "unlink"])
def test_opens_return_whatever_happens_meanwhile(mount: Mount, rec: Path, meanwhile: str) -> None:
    race(rec, ["write", "append", "read", "write", "empty", "read"], meanwhile)
