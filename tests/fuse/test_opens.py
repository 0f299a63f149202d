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

class Gate:  # a barrier without a lock that whoever is killed would keep
    def __init__(self, clients):
        self.ready, self.open = mp.RawArray("b", clients), mp.RawValue("b", 0)
    def wait(self, number):
        self.ready[number] = 1
        while not self.open.value:
            os.sched_yield()
    def let_through(self):
        while not all(self.ready):
            time.sleep(0.001)
        self.open.value = 1

def client(number, act, gate, told):
    gate.wait(number)
    if meanwhile == "kill":
        told = None  # whoever is killed while it puts something there would keep the queue's lock
    try:
        fd = os.open(folder + "/file", ALL[act], 0o600)
        told and told.put("ok")
        if act != "read":
            os.write(fd, b"x")
        os.close(fd)
    except FileExistsError:
        told and told.put("ok" if act == "exclusive" else "exists")
    except FileNotFoundError:
        told and told.put("ok" if meanwhile in ("unlink", "rename") else "gone")
    except OSError as error:
        told and told.put(os.strerror(error.errno))

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
    gate, told = Gate(len(acts)), mp.Queue()
    clients = [mp.Process(target=client, args=(k, act, gate, told), daemon=True) for k, act in enumerate(acts)]
    for one in clients:
        one.start()
    gate.let_through()
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
