"""Who works, what goes wrong meanwhile, and the report."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.soak_lib import work
from scripts.soak_lib.checks import BROKEN, StuckWatch, wrong_in
from tests.fuse.harness import Mount, remove_tree
from tests.fuse.s3 import S3, bucket, moto
from tests.helpers.chaos_faults import Cut, Fault, NoAnswer, Status
from tests.helpers.disks import disk

USERS = 4
FIRST_UID = 20_001
MIB = 1 << 20
DISK_BYTES = 2048 * MIB
TROUBLE_S = 4.0
"""How long a trouble lasts, at most."""
CHECK_EVERY = 12
"""Troubles between two checks of everything."""


class Soak:
    """One store on a disk of its own, its users, and what happens to them."""

    def __init__(self, base: Path, s3: S3, seed: int, mode: str, without: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.s3 = s3
        self.store = Mount(base / "store")
        self.scratch = base / "scratch"
        self.scratch.mkdir()
        self.scratch.chmod(0o755)
        self.config = s3.config(top=f'passthrough = "{mode}"', cache={"max_size": "512 MiB"})
        self.kinds = [kind for kind in work.KINDS if kind not in without]
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self.happened: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.killed = False
        self._seen = 0

    # --- the users ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Mount, and give each user a home."""
        self.store.start(config=self.config)
        for user in range(1, USERS + 1):
            home = self.store.path / "users" / str(user)
            (home / "recordings").mkdir(parents=True, exist_ok=True)
            for path in (home, home / "recordings"):
                os.chown(path, FIRST_UID + user, FIRST_UID + user)
        self.hire()

    def hire(self) -> None:
        """Have somebody do each kind of work."""
        for number, kind in enumerate(self.kinds):
            worker = self.workers.get(kind)
            if worker is not None and worker.poll() is None:
                continue
            if worker is not None:
                self.ended(kind, worker)
            user = number % USERS + 1
            own = self.scratch / kind
            own.mkdir(exist_ok=True)
            os.chown(own, FIRST_UID + user, FIRST_UID + user)
            home = self.store.path / "users" / str(user)
            command = [sys.executable, work.__file__, kind, str(home), str(own), str(FIRST_UID + user)]
            self.workers[kind] = subprocess.Popen(
                [*command, str(self.random.randrange(1 << 30))],
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def ended(self, kind: str, worker: subprocess.Popen[str]) -> None:
        """Note what a worker said that ended."""
        said = worker.communicate(timeout=60)[0].strip()
        if worker.returncode == work.WRONG:
            self.wrong.append(said)
        elif worker.returncode > 0:
            self.wrong.append(f"{kind} ended with {worker.returncode}: {said}")

    def dismiss(self) -> None:
        """kill -9 all of them, with the programs they run."""
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, 9)
        for kind, worker in self.workers.items():
            try:
                self.ended(kind, worker)
            except subprocess.TimeoutExpired:
                self.wrong.append(f"{kind} could not be killed within 60 s")
        self.workers.clear()

    # --- trouble -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Let trouble last."""
        time.sleep(self.random.uniform(0.2, TROUBLE_S))

    def nothing(self) -> None:
        """Ordinary work."""
        self.pause()

    def kill_writers(self) -> None:
        """kill -9 of everybody."""
        self.dismiss()

    def s3_is_down(self) -> None:
        """Nobody listens there."""
        with self.s3.proxy.refusing():
            self.pause()

    def s3_fails(self) -> None:
        """It answers with errors, or hangs up."""
        fault: Fault = self.random.choice([Status(503, "SlowDown"), Status(500, "InternalError"), NoAnswer(), Cut(100)])
        self.s3.proxy.add(fault, times=self.random.randrange(1, 30))
        self.pause()
        self.s3.proxy.heal()

    def disk_is_full(self) -> None:
        """Somebody else takes all that is left of the disk below."""
        ballast = self.store.root.parent / "root" / "ballast"
        room = shutil.disk_usage(self.store.root).free
        with ballast.open("wb") as stream:
            with contextlib.suppress(OSError):
                os.posix_fallocate(stream.fileno(), 0, max(room - MIB // 2, 4096))
            self.pause()
        ballast.unlink()

    def remount(self) -> None:
        """An orderly stop, and a start."""
        self.dismiss()
        self.store.umount()
        self.store.remount()

    def kill_daemon(self) -> None:
        """kill -9 of the daemon; users run into a dead mount, and into none."""
        self.killed = True
        self.store.kill()
        self.store.remount()

    # --- the whole ---------------------------------------------------------------------------------------------

    def check(self) -> int:
        """Let everything come to rest and look; how many files were compared."""
        self.dismiss()
        self.s3.proxy.heal()
        for left in (self.store.path / "users").glob("*/recordings/*/sparse"):
            left.unlink()  # 300 GB of nothing would be read
        wrong, compared = wrong_in(self.store, killed=self.killed)
        self.wrong += wrong
        return compared

    def look(self) -> None:
        """The daemon is there, and has said nothing that it should not."""
        fresh = self.store.log()[self._seen :]
        self._seen += len(fresh)
        if BROKEN.search(fresh):
            self.wrong.append(f"the daemon's log:\n{fresh[-4000:]}")
        process = self.store.process
        if process is None or process.poll() is not None:
            self.wrong.append(f"the daemon ended by itself:\n{fresh[-4000:]}")
            self.store.close()
            self.store.remount()

    def go_on(self, seconds: float, *, kill_daemon: bool) -> int:
        """Work and trouble for so long; how many files were compared with their checksums."""
        troubles: list[Callable[[], None]] = [
            self.nothing, self.kill_writers, self.s3_is_down, self.s3_fails, self.disk_is_full, self.remount
        ]  # fmt: skip
        coming: list[Callable[[], None]] = []  # each comes once before one comes again
        if kill_daemon:
            troubles.append(self.kill_daemon)
            coming.append(self.kill_daemon)  # first, so that it comes in a short soak, too
        end = time.monotonic() + seconds
        compared = turn = 0
        while time.monotonic() < end:
            self.pause()
            if not coming:
                coming = self.random.sample(troubles, len(troubles))
            trouble = coming.pop()
            self.happened[trouble.__name__] += 1
            trouble()
            self.look()
            turn += 1
            if turn % CHECK_EVERY == 0:
                compared += self.check()
            self.hire()
        return compared + self.check()


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Mixed work by several users, with trouble.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--kill-daemon", action="store_true", help="also kill -9 the daemon now and then")
    parser.add_argument("--passthrough", default="auto", choices=["auto", "read", "off"], help="config of the store")
    parser.add_argument("--without", action="append", default=[], choices=work.KINDS, help="leave out this work")
    parser.add_argument("--seed", type=int, default=None, help="repeat the troubles of an earlier soak")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where (default: /dev/shm)")
    return parser.parse_args()


def main() -> int:
    """Soak; 0 when all is right."""
    asked = arguments()
    if os.geteuid():
        print("soak: run as root: it works as several users, on a disk of its own", file=sys.stderr)
        return 2
    seed = asked.seed if asked.seed is not None else random.randrange(1 << 30)
    base = Path(tempfile.mkdtemp(prefix=f"recfs-soak-{os.getpid()}-", dir=asked.dir))
    base.chmod(0o755)
    (base / "store" / "root").mkdir(parents=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends it early leaves no mount behind
    watch = StuckWatch()
    began = time.monotonic()
    compared = 0
    with disk("tmpfs", base / "store" / "root", DISK_BYTES) as why_not, contextlib.ExitStack() as stack:
        if why_not is not None:
            print(f"soak: no disk of its own: {why_not}", file=sys.stderr)
            return 2
        s3 = stack.enter_context(contextlib.contextmanager(bucket)(moto(), base))
        soak = Soak(base, s3, seed, asked.passthrough, asked.without)
        try:
            soak.start()
            compared = soak.go_on(asked.minutes * 60, kill_daemon=asked.kill_daemon)
            soak.look()
            soak.store.umount()
        except BaseException as error:  # pytest.fail of the harness is one, and the report says what it says
            if isinstance(error, KeyboardInterrupt):
                raise
            soak.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            soak.dismiss()
            soak.store.close()
    wrong = soak.wrong + watch.end()
    remove_tree(base)
    events = ", ".join(f"{name} {count}" for name, count in sorted(soak.happened.items()))
    print(f"seed {seed}, passthrough {asked.passthrough}, {time.monotonic() - began:.0f} s: {events}")
    print(f"{compared} files compared with their checksums")
    for each in wrong:
        print(f"WRONG: {each}")
    print(f"{len(wrong)} faults" if wrong else "all is right")
    return 1 if wrong else 0
