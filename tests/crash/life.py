"""A store and its lives: users work, the daemon is killed, starts again, and everything is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.soak_lib.checks import BROKEN
from tests.crash import checks, journal
from tests.crash.model import World, pattern
from tests.crash.promises import broken_promises
from tests.crash.steward import ENVIRONMENT, TOP, Steward
from tests.crash.worker import Plan
from tests.fuse.harness import REPOSITORY, Mount
from tests.fuse.s3 import S3
from tests.fuzz.daemon import BROKEN as INVARIANT
from tests.helpers.chaos_faults import Cut, Fault, NoAnswer, Status

MIB = 1 << 20
FIRST_UID = 20_000
USERS = ("1", "2", "3")
ROOTS = ("7", "8")
"""Users among whom root moves files."""
SHOWN = {f"s{number}": pattern(number, 5000 + number) for number in range(6)}
KEPT_S = 5.0
"""How long these daemons fear that a request without an answer is carried out."""
END_S = 60.0
"""In which a worker has to end whose daemon is dead."""
WORK_S = 60.0
"""So long a life lasts at most for the sake of `Kind.least_calls`."""
KINDS = 3
"""What the operator has done then, of all that it does."""


@dataclass(frozen=True)
class Kind:
    """What a store is like."""

    mode: str
    disk: str
    s3: bool
    tight: bool = False
    """Its disk is small, and fills up now and then."""
    retention: bool = False
    near: bool = False
    """Users come to their quota."""
    keep: bool = False
    """Users keep what they have open, until after the next start."""
    rough: bool = False
    """The disk fails now and then, and the daemon is slow at its awaits."""
    watch: bool = True
    """What is done to the home tree past recfs is looked after."""
    deletes: bool = False
    """Without that: what lies about without a row is removed, and not adopted."""
    longest_s: float = 2.5
    least_calls: int = 0
    """A life lasts until the users together have made so many, and the operator has done something of several kinds."""

    def __str__(self) -> str:
        words = [f"passthrough {self.mode}", self.disk, "with S3" if self.s3 else "without S3"]
        more = {"small disk": self.tight, "trash": self.retention, "quotas": self.near, "rough": self.rough}
        more |= {"not watched": not self.watch, "orphans deleted": self.deletes and not self.watch}
        words += [word for word, on in more.items() if on]
        return ", ".join(words)

    def config(self, s3: S3 | None) -> str:
        """recfs.conf without `root`."""
        top = f'passthrough = "{self.mode}"'
        sections: dict[str, dict[str, Any]] = {"trash": {"retention": 3600.0}} if self.retention else {}
        sections |= {"recordings": {"grace": 0.0}, "watch": {"enabled": self.watch, "quiet": 0.2}}
        if s3 is not None:
            return s3.config(top=top, **sections)
        lines = [
            f"[{name}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in keys.items())
            for name, keys in sections.items()
        ]
        return "\n".join(['min_free = "1 MiB"', top, *lines, ""])


@dataclass
class Hired:
    """A worker and what it was given."""

    process: subprocess.Popen[str]
    journal: Path
    plan: Path
    tops: list[str]
    killed: bool = False

    def await_ready(self) -> None:
        """Wait until it has only to be told to begin: a life is not the time that Python takes to start."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said == "ready\n", f"{self.plan.name} does not begin: {said}{self.process.stdout.read()}"

    def ended_at_a_mapping(self) -> bool:
        """Whether it met the daemon's death at a page of a mapping: it is told so by a signal, SIGBUS (mmap(2))."""
        if self.process.returncode != -signal.SIGBUS:
            return False
        calls = journal.read(self.journal).calls
        return bool(calls) and calls[-1].what == "mapped" and calls[-1].returned_ns is None

    def begin(self) -> None:
        """Let it work."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


class Lives:
    """One store, from its first start to the end of its last life."""

    def __init__(self, base: Path, kind: Kind, seed: int, s3: S3 | None) -> None:
        self.base, self.kind, self.seed, self.s3 = base, kind, seed, s3
        self.chance = random.Random(seed)
        self.store = Mount(base / "store")
        self.number = 0
        self.calls = 0
        self.compared = 0
        self.happened: Counter[str] = Counter()
        self._ballast = base / "store" / "root" / "ballast"
        self._faults = base / "faults"
        self._users: list[tuple[int, list[str]]] = []
        self.steward = Steward(
            self.store, s3, random.Random(seed + 1), trash=kind.retention, watch=kind.watch, deletes=kind.deletes
        )
        self._log_seen = 0

    # --- before the first life ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Mount for the first time, and give each user a home."""
        site = self.base / "site"
        site.mkdir()
        # sitecustomize is imported by every Python that has it on its path. The server here carries nothing out late.
        (site / "sitecustomize.py").write_text(
            f"{ENVIRONMENT}import recfs.tier.queue.unanswered as it\nit.KEPT_S = {KEPT_S}\n"
        )
        path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
        prefix, env = (), {"PYTHONPATH": path}
        if self.kind.rough:
            prefix = (sys.executable, "-m", "tests.crash.daemon")
            env |= {"RECFS_FUZZ_SEED": str(self.seed), "RECFS_FUZZ_RATE": "0.05", "RECFS_FUZZ_LOOKS": "0.01"}
            env |= {"RECFS_CRASH_FAULTS": str(self._faults)}
        mount = self.store.start(config=self.kind.config(self.s3), prefix=prefix, env=env).path
        for name, content in SHOWN.items():
            (mount / "shared/thumbnails").mkdir(exist_ok=True)
            (mount / "shared/thumbnails" / name).write_bytes(content)
        for user in USERS:
            tops = [f"users/{user}/recordings/1", f"users/{user}/recordings/2", f"users/{user}/thumbnails"]
            self._user(FIRST_UID + int(user), [*tops, f"temp/{user}/1"])
            if self.kind.near:
                os.setxattr(mount / "users" / user, "user.recfs.quota.max_bytes", b"3MiB")
        self._user(0, [*(f"users/{user}/recordings" for user in ROOTS), "shared/lib"])
        for user in ROOTS:
            (mount / f"users/{user}/recordings/1").mkdir()
        (mount / TOP).mkdir(parents=True)
        self.store.drain()

    def _user(self, uid: int, tops: list[str]) -> None:
        for top in tops:
            path = self.store.path / top
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, uid, uid)
        self._users.append((uid, tops))

    # --- a life ------------------------------------------------------------------------------------------------------

    def live(self) -> list[str]:
        """One life, and the look at what it left; what is wrong."""
        self.number += 1
        mount = self.store.path
        worlds = [self._world(tops) for _, tops in self._users]
        hired = [
            self._hire(uid, tops, world) for (uid, tops), world in zip(self._users, worlds, strict=True)
        ]  # fmt: skip
        for each in hired:
            each.await_ready()
        self._faults.touch()
        for each in hired:
            each.begin()
        self.steward.begin()
        self._trouble(hired, self.chance.uniform(0.05, self.kind.longest_s))
        if self.store.process is None or self.store.process.poll() is not None:
            return [f"the daemon ended by itself:\n{self.store.log()[-4000:]}"]
        died_ns = time.monotonic_ns()
        self.store.kill(unmount=False)
        wrong = [*self._dismiss(hired), *self.steward.dismiss(END_S)]
        self.store.clear()
        self._faults.unlink()
        self._make_room()
        self._keep_a_copy()
        wrong += self._start_again(hired)
        if self.s3 is not None:
            self.s3.proxy.heal()
        wrong += [f"operator: {each}" for each in self.steward.settle()]
        self.steward.take_out()
        faults, compared = checks.store_faults(self.store, self.s3, retention=self.kind.retention)
        wrong += faults
        self.compared += compared
        explained = []
        for each in hired:
            told = journal.read(each.journal)
            self.calls += len(told.calls)
            wrong += [f"seen at work: {text}" for text in told.wrong]
            found = {top: checks.look(mount / top) for top in each.tops}
            begin: Callable[[], World] = lambda plan=each.plan: pickle.loads(plan.read_bytes()).world  # noqa: E731
            broken, lost = broken_promises(begin, told.calls, died_ns, found, checks.limits(mount, USERS))
            wrong += broken
            explained += lost
        wrong += checks.lost_and_found(self.store, explained)
        fresh = self.store.log()[self._log_seen :]
        self._log_seen += len(fresh)
        if BROKEN.search(fresh) or INVARIANT in fresh:
            wrong.append(f"the daemon's log:\n{fresh[-4000:]}")
        return wrong

    def _world(self, tops: list[str]) -> World:
        mount = self.store.path
        found = {top: checks.look(mount / top) for top in tops}
        limits = checks.limits(mount, USERS) if "shared/lib" in tops else {}
        return checks.as_world(found, limits, SHOWN)

    def _hire(self, uid: int, tops: list[str], world: World) -> Hired:
        here = self.base / "lives" / str(self.number)
        here.mkdir(parents=True, exist_ok=True)
        plan_path, journal_path = here / f"{uid}.plan", here / f"{uid}.journal"
        plan = Plan(
            world=world,
            tops=tops,
            uid=uid,
            seed=self.chance.getrandbits(32),
            big=11 * MIB if self.kind.s3 else 2 * MIB,
            limits=USERS if uid == 0 and self.kind.near else (),
            troubled=self.kind.s3 or self.kind.rough,
            keep=self.kind.keep,
        )
        plan_path.write_bytes(pickle.dumps(plan))
        # The standard library is all that it loads.
        command = [
            sys.executable,
            "-S",
            "-E",
            "-m",
            "tests.crash.worker",
            str(self.store.path),
            str(journal_path),
            str(plan_path),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
        )
        return Hired(process, journal_path, plan_path, tops)

    def _dismiss(self, hired: list[Hired]) -> list[str]:
        """Wait until the workers have met the dead mount and, but for those who keep their descriptors, are gone."""
        wrong = []
        for each in hired:
            if each.killed:
                continue
            if self.kind.keep:  # it says that it has met the dead mount, which is about to be taken away
                assert each.process.stdout is not None
                select.select([each.process.stdout], [], [], END_S)
                continue
            try:
                said = each.process.communicate(timeout=END_S)[0]
            except subprocess.TimeoutExpired:
                wrong.append(f"{each.plan.name} still waits {END_S:.0f} s after the daemon's death")
                each.process.kill()
                each.process.communicate()
                continue
            if not each.ended_at_a_mapping() and (each.process.returncode or "gone" not in said):
                wrong.append(f"{each.plan.name} ended with {each.process.returncode}: {said}")
        return wrong

    def _start_again(self, hired: list[Hired]) -> list[str]:
        """The next start; before it some that are cut off."""
        wrong = []
        for _ in range(self.chance.choice((0, 0, 0, 1, 2, 3))):
            self.happened["starts cut off"] += 1
            self.store.cut_off_start(self.chance.uniform(0.02, 0.6))
        self.store.remount()
        if self.kind.keep:
            for each in hired:
                if not each.killed:
                    wrong += self._dismiss_one(each)
        return wrong

    @staticmethod
    def _dismiss_one(each: Hired) -> list[str]:
        said = each.process.communicate(timeout=END_S)[0]
        if not each.process.returncode or each.ended_at_a_mapping():
            return []
        return [f"{each.plan.name} ended with {each.process.returncode}: {said}"]

    def _keep_a_copy(self) -> None:
        """What the death left, for people who look for the reason of a fault."""
        shutil.rmtree(self.base / "before", ignore_errors=True)
        copy(self.store.root, self.base / "before")

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _trouble(self, hired: list[Hired], seconds: float) -> None:
        """Let them work for so long, with what goes wrong meanwhile."""
        coming: list[tuple[float, Callable[[], None]]] = []
        if self.chance.random() < 0.2:
            victim = self.chance.choice(hired)
            coming.append((self.chance.uniform(0, seconds), lambda: self._kill_worker(victim)))
        if self.kind.tight and self.chance.random() < 0.5:
            coming.append((self.chance.uniform(0, seconds), self._fill))
            if self.chance.random() < 0.5:
                coming.append((seconds * 0.9, self._make_room))
        if self.s3 is not None:
            coming += [(self.chance.uniform(0, seconds), self._evict) for _ in range(self.chance.randrange(3))]
            if self.chance.random() < 0.4:
                coming.append((self.chance.uniform(0, seconds), self._break_s3))
        began = time.monotonic()
        for at, happen in sorted(coming, key=lambda each: each[0]):
            time.sleep(max(0.0, began + at - time.monotonic()))
            happen()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        while not self._have_worked(hired) and time.monotonic() < began + WORK_S:
            time.sleep(0.05)

    def _have_worked(self, hired: list[Hired]) -> bool:
        """Whether it was long enough, on a machine of any speed."""
        least = self.kind.least_calls
        calls = sum(len(journal.read(each.journal).calls) for each in hired) if least else 0
        return calls >= least and (not least or len(self.steward.happened) >= KINDS)

    def _kill_worker(self, victim: Hired) -> None:
        self.happened["workers killed"] += 1
        victim.process.send_signal(signal.SIGKILL)
        victim.process.communicate()
        victim.killed = True
        journal.ended(victim.journal)

    def _fill(self) -> None:
        """Somebody else takes all that is left of the disk."""
        self.happened["disks filled"] += 1
        room = shutil.disk_usage(self.store.root).free - self.chance.choice((0, 100_000, MIB + MIB // 2))
        with self._ballast.open("wb") as stream, contextlib.suppress(OSError):
            os.posix_fallocate(stream.fileno(), 0, max(room, 4096))

    def _make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def _evict(self) -> None:
        self.happened["evictions"] += 1
        with contextlib.suppress(Exception):  # the daemon's own answers are not what is tested
            self.store.call("evict", path="", recursive=True)

    def _break_s3(self) -> None:
        assert self.s3 is not None
        self.happened["faults of S3"] += 1
        fault: Fault = self.chance.choice([Status(503, "SlowDown"), Status(500, "InternalError"), NoAnswer(), Cut(100)])
        self.s3.proxy.add(fault, times=self.chance.randrange(1, 20))

    # --- the end -----------------------------------------------------------------------------------------------------

    def end(self) -> list[str]:
        """Remove what the operator has left, and unmount in order; what is wrong."""
        wrong = self.steward.end()
        self.happened += self.steward.happened
        self.store.umount()
        return wrong

    def keep(self, where: Path, wrong: list[str]) -> None:
        """Keep everything for people: the root, what it was at the death, journals and log."""
        where.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["cp", "-a", "--sparse=always", self.store.root, where / "root"], check=False, capture_output=True
        )
        for name in ("before", "lives"):
            subprocess.run(
                ["cp", "-a", "--sparse=always", self.base / name, where / name], check=False, capture_output=True
            )
        shutil.copy(self.store.log_path, where / "daemon.log")
        (where / "operator").write_text("\n".join([*self.steward.told, ""]))
        if self.s3 is not None:
            asked = [
                f"{each.method} {each.target} {each.body[: 4000 if each.method == 'POST' else 300]!r}"
                for each in self.s3.proxy.requests
            ]
            (where / "requests").write_text("\n".join([*asked, ""]))
        (where / "wrong").write_text("\n".join([str(self.kind), *wrong, ""]))


def copy(tree: Path, to: Path) -> None:
    """Copy what can be copied, with attributes; what a daemon takes away meanwhile is left out."""
    subprocess.run(["cp", "-a", "--sparse=always", tree, to], check=False, capture_output=True)


@contextlib.contextmanager
def lives(base: Path, kind: Kind, seed: int, s3: S3 | None) -> Iterator[Lives]:
    """A store, from its first start on; nothing is left mounted or running."""
    made = Lives(base, kind, seed, s3)
    try:
        yield made
    finally:
        made.store.close()
