"""A daemon in a mount namespace of its own, as in a container: who sees its mount, and what becomes of copies of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .clients import wait_until

pytestmark = [pytest.mark.modeless, pytest.mark.needs("unshare", "nsenter")]
RECFS = [sys.executable, "-m", "recfs"]
FILE = "users/5/recordings/142/source.mp4"
TIMEOUT_S = 60
LEAVE = """
while read -r _ _ _ _ point rest; do
  case "$rest" in *" - fuse"*) case "$point" in "$0"/*) ;; *) umount -l "$(printf %b "$point")" || :;; esac;; esac
done </proc/self/mountinfo
"""
"""A copy of another test's mount, of which nothing is heard any more, would keep its daemon from ending."""


@dataclass(slots=True)
class Namespaces:
    """A machine with a directory that is shared between its namespaces, each of which is kept by a process."""

    base: Path
    held: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        """The directory whose mounts others see, as `-v …:rshared` has it."""
        return self.base / "shared"

    @property
    def mount(self) -> Path:
        return self.shared / "recordings"

    def new(self, propagation: str, of: int | None = None, *, prepare: str = "") -> int:
        """A namespace, made from that of the process *of*; the process that keeps it."""
        enter = ["nsenter", "-t", str(of), "-m", "--"] if of is not None else []
        leave = LEAVE if of is None or propagation == "private" else ""
        script = f"{leave}{prepare}echo ready; exec sleep 600"
        keep = ["unshare", "-m", "--propagation", propagation, "sh", "-ec", script, str(self.base)]
        process = subprocess.Popen([*enter, *keep], stdout=subprocess.PIPE)
        self.held.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    def run(self, inside: int, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace that a process keeps."""
        words = ["nsenter", "-t", str(inside), "-m", "--", *map(str, command)]
        return subprocess.run(
            words, capture_output=True, text=True, timeout=TIMEOUT_S * 3, check=check, cwd="/",
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip

    def mounted_in(self, inside: int) -> bool:
        """By the table alone: who looks at a dead mount can hang."""
        return f" {self.mount} " in Path(f"/proc/{inside}/mountinfo").read_text()

    def daemon(self) -> int:
        """The process that serves the store."""
        return int((self.base / "pid").read_text())

    def start(self, container: int) -> None:
        """Mount in the container, in the background."""
        said = self.run(container, *RECFS, "mount", "--root", self.base / "store", "-d", self.mount).stdout
        (self.base / "pid").write_text(said.partition("(pid ")[2].partition(",")[0])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Namespaces]:
    made = Namespaces(tmp_path)
    made.mount.mkdir(parents=True)
    (tmp_path / "store").mkdir(mode=0o700)
    try:
        yield made
    finally:
        if (tmp_path / "pid").exists() and not gone(made.daemon()):
            os.kill(made.daemon(), signal.SIGKILL)
        for each in made.held:  # with its last process a namespace is gone, and its mounts
            each.kill()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()


@pytest.fixture
def host(machine: Namespaces) -> int:
    """What stands for the machine's own namespace; nothing of it is seen outside."""
    shared = f"mount --bind {machine.shared} {machine.shared}; mount --make-rshared {machine.shared}; "
    return machine.new("slave", prepare=shared)


def put(machine: Namespaces, inside: int) -> None:
    path = machine.mount / FILE
    machine.run(inside, "sh", "-ec", f"mkdir -p {path.parent}; printf bytes > {path}")


def read(machine: Namespaces, inside: int) -> str:
    done = machine.run(inside, "cat", machine.mount / FILE, check=False)
    return done.stdout or done.stderr.rpartition(": ")[2].strip()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_mount_in_a_container_is_seen_outside_and_in_other_containers(machine: Namespaces, host: int) -> None:
    container = machine.new("unchanged", host)
    other = machine.new("slave", host)
    machine.start(container)
    put(machine, container)
    assert read(machine, host) == "bytes"
    assert read(machine, other) == "bytes"
    daemon = machine.daemon()
    machine.run(container, *RECFS, "umount", machine.mount)
    wait_until(lambda: gone(daemon), "the daemon ends")
    assert [machine.mounted_in(each) for each in (container, host, other)] == [False] * 3
    assert (machine.base / "store" / FILE).read_text() == "bytes"


def test_without_propagation_only_the_container_has_the_mount(machine: Namespaces, host: int) -> None:
    container = machine.new("private", host)
    machine.start(container)
    put(machine, container)
    assert machine.mounted_in(container)
    assert not machine.mounted_in(host)
    machine.run(container, *RECFS, "umount", machine.mount)


def test_a_namespace_that_keeps_a_copy_of_the_mount_holds_up_no_unmount(machine: Namespaces, host: int) -> None:
    """A container that was started while the mount was there, without propagation: it gets an error from then on."""
    container = machine.new("unchanged", host)
    machine.start(container)
    put(machine, host)
    keeper = machine.new("private", host)
    assert read(machine, keeper) == "bytes"
    daemon = machine.daemon()
    machine.run(host, *RECFS, "umount", "--root", machine.base / "store")
    wait_until(lambda: gone(daemon), "the daemon ends")
    assert not machine.mounted_in(host)
    assert machine.mounted_in(keeper)
    assert read(machine, keeper) == "Transport endpoint is not connected"
    machine.start(container)
    assert read(machine, host) == "bytes"
    assert read(machine, keeper) == "Transport endpoint is not connected", "it has the old mount"
    machine.run(host, *RECFS, "umount", "--root", machine.base / "store")


def test_after_the_death_of_a_container_the_next_one_mounts_there_again(machine: Namespaces, host: int) -> None:
    """It finds the dead mount in the directory that both share, and takes it away."""
    machine.start(machine.new("unchanged", host))
    put(machine, host)
    daemon = machine.daemon()
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: gone(daemon), "the daemon ends")
    machine.held[-1].kill()
    assert machine.mounted_in(host)
    machine.start(machine.new("unchanged", host))
    assert read(machine, host) == "bytes"
    machine.run(host, *RECFS, "umount", "--root", machine.base / "store")
    assert not machine.mounted_in(host)


def test_the_first_process_of_a_container_stops_by_sigterm_with_everything_committed(
    machine: Namespaces, host: int
) -> None:
    """Process 1 of a process namespace has no signal that ends it but those that it handles (pid_namespaces(7))."""
    command = ["nsenter", "-t", str(host), "-m", "--", "unshare", "-m", "-p", "-f", "--propagation", "unchanged"]
    where = ["--root", str(machine.base / "store"), "--log-file", str(machine.base / "log"), str(machine.mount)]
    outer = subprocess.Popen(
        [*command, *RECFS, "mount", *where], cwd="/", env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    )
    try:
        wait_until(lambda: machine.mounted_in(host), "it is mounted")
        put(machine, host)
        (first,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        assert Path(f"/proc/{first}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
        os.kill(int(first), signal.SIGTERM)
        assert outer.wait(TIMEOUT_S) == 0
        assert not machine.mounted_in(host)
        assert (machine.base / "store" / FILE).read_text() == "bytes"
    finally:
        outer.kill()
        outer.wait()
