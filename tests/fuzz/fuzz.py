"""Runs the clients on a mount, and judges what they and the daemon left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from recfs.errors import RecfsError
from tests.crash.checks import bucket_fault, soon
from tests.fuse.harness import BASE_CONFIG, Mount, remove_tree
from tests.fuse.s3 import S3, bucket, moto
from tests.fuzz import clients, contents
from tests.fuzz.clients import BEAT

HANG_S = 20.0
"""How long one act of a client may take, on a machine that has other things to do."""
DRAIN_S = 50.0
"""Less than the 60 s after which whoever asks gives up, so that the answer tells what is left."""
MODES = ("auto", "read", "off")
USER = 20_001
_TROUBLE = re.compile(
    r"^(Traceback|Fatal|Unraisable|Exception ignored).*|.*\b(WARNING|ERROR|CRITICAL)\b.*|^INVARIANT.*", re.MULTILINE
)
_KNOWN = re.compile("kernel cache: |its writer (is|cannot be) stopped")
_REMOTE = {"evicted", "fetching", "archived"}
_DAEMON = (sys.executable, "-m", "tests.fuzz.daemon")


@dataclass(frozen=True)
class Plan:
    """How one round goes."""

    seed: int
    mode: str = "auto"
    clients: int = 6
    seconds: float = 10.0
    rate: float = 0.2
    """How many awaits of the daemon pause."""
    looks: float = 0.2
    """After how many of its requests its memory is looked at."""
    drop_caches: bool = False
    """Have the whole system forget names now and then, too."""
    limited: bool = False
    """Whether users have limits, which the clients meet."""
    trash: bool = False
    """Whether what was removed is kept for a while."""
    s3: bool = False
    """Whether files of some names go to S3, and leave the disk."""

    def __str__(self) -> str:
        words = {"limited": self.limited, "trash": self.trash, "S3": self.s3}
        more = "".join(f", {word}" for word, on in words.items() if on)
        return f"seed {self.seed}, {self.mode}, {self.clients} clients, {self.seconds:g} s, rate {self.rate:g}{more}"


class Round:
    """A store, its clients, and what is wrong with them."""

    def __init__(self, base: Path, plan: Plan, s3: S3 | None) -> None:
        self.plan = plan
        self.s3 = s3
        self.base = base
        self.dice = random.Random(plan.seed)
        self.wrong: list[str] = []
        self.acts = 0
        self.store = Mount(base / "store")
        self.store.root.chmod(0o700)
        self._clients: dict[int, subprocess.Popen[bytes]] = {}
        self._seen = 0

    # --- the daemon ----------------------------------------------------------------------------------------------

    def mount(self, *, rate: float | None = None) -> None:
        """Start a daemon that is disturbed."""
        env = {
            "RECFS_FUZZ_SEED": str(self.dice.randrange(1 << 30)),
            "RECFS_FUZZ_RATE": str(self.plan.rate if rate is None else rate),
            "RECFS_FUZZ_LOOKS": str(self.plan.looks),
        }
        top = f'passthrough = "{self.plan.mode}"\n'
        more = (LIMITS if self.plan.limited else "") + (TRASH if self.plan.trash else "") + FALLBACK
        config = top + BASE_CONFIG + more
        if self.s3 is not None:
            config = self.s3.config(top=top, cache=CACHE, more=more + ROUTES)
        self.store.start(config=config, env=env, prefix=_DAEMON)

    def read_log(self) -> None:
        """What the daemon says that it should not."""
        log = self.store.log()
        fresh, self._seen = log[self._seen :], len(log)
        lines = [match[0] for match in _TROUBLE.finditer(fresh) if not _KNOWN.search(match[0])]
        self.wrong += [f"the daemon says: {line}" for line in lines[:20]]
        if any("Traceback" in line for line in lines):
            self.wrong.append(fresh[-6000:])

    # --- the clients ---------------------------------------------------------------------------------------------

    def hire(self, number: int) -> None:
        """Start one; every other is an ordinary user."""
        beat = self.base / f"beat{number}"
        beat.write_bytes(BEAT.pack(time.time(), 0, b"start"))
        beat.chmod(0o666)
        uid = USER if number % 2 and not os.geteuid() else 0
        limited = "limited" if self.plan.limited else "free"
        argv = [str(self.store.path), str(number), str(self.dice.randrange(1 << 30)), str(beat), str(uid), limited]
        with (self.base / "said").open("ab") as said:
            self._clients[number] = subprocess.Popen(
                [sys.executable, "-S", "-E", "-m", "tests.fuzz.clients", *argv],
                cwd=Path(__file__).resolve().parents[2],
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def dismiss(self, number: int) -> None:
        """kill -9, with its children."""
        client = self._clients.pop(number)
        self.acts += self.beat(number)[1]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
        try:
            client.wait(HANG_S)
        except subprocess.TimeoutExpired:
            self.hangs(f"client {number} cannot be killed: {self.beat(number)}")
            client.wait(60.0)

    def beat(self, number: int) -> tuple[float, int, str]:
        """Since when a client does what, and how much it did before."""
        since, acts, act = BEAT.unpack((self.base / f"beat{number}").read_bytes())
        return since, acts, act.rstrip(b"\0").decode()

    def hangs(self, what: str) -> None:
        """Say so, with where all tasks of the daemon are, and end the daemon: its clients then get errors."""
        self.wrong.append(f"hang: {what}")
        assert self.store.process is not None
        self.store.process.send_signal(signal.SIGUSR2)
        time.sleep(1.0)
        self.wrong.append(self.store.log()[self._seen :][-20_000:])
        self.store.abort(what)

    def watch(self) -> bool:
        """Look after the clients; whether to go on."""
        for number, client in list(self._clients.items()):
            since, acts, act = self.beat(number)
            if client.poll() is not None:
                self.wrong.append(f"client {number} ended with {client.returncode}")
                self.dismiss(number)
                self.hire(number)
            elif time.time() - since > HANG_S:
                self.hangs(f"client {number} is at `{act}`, its act {acts}, for {time.time() - since:.0f} s")
                return False
        process = self.store.process
        if process is None or process.poll() is not None:
            self.wrong.append(f"the daemon ended:\n{self.store.log()[-6000:]}")
            return False
        return True

    # --- a round -------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """All of it; what was wrong."""
        try:
            self._run()
        except (Exception, BaseExceptionGroup) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        except BaseException as error:  # pytest.fail of the harness is one
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._tell_where(error)
                raise
            self.wrong.append(str(error))
        finally:
            for number in list(self._clients):
                self.dismiss(number)
            self.store.close()
        with contextlib.suppress(FileNotFoundError):
            said = (self.base / "said").read_text(errors="replace").splitlines()
            self.wrong += said[:50]
        return self.wrong

    def _tell_where(self, error: BaseException) -> None:
        """Who ends it may do so since it hangs: say where it is, what was wrong, and what the daemon does."""
        print(f"interrupted ({self.plan}), after {self.acts} acts of clients that ended: {self.wrong}")
        traceback.print_exception(error, file=sys.stdout)
        if self.store.process is not None and self.store.process.poll() is None:
            self.store.process.send_signal(signal.SIGUSR2)
            time.sleep(1.0)
        print(self.store.log()[self._seen :][-20_000:], flush=True)

    def _run(self) -> None:
        self.mount()
        self._prepare()
        for number in range(self.plan.clients):
            self.hire(number)
        end = time.monotonic() + self.plan.seconds
        while time.monotonic() < end:
            time.sleep(self.dice.uniform(0.1, 0.6))
            if not self.watch():
                return
            event = self.dice.randrange(8)
            if event == 0:
                number = self.dice.randrange(self.plan.clients)
                self.dismiss(number)
                self.hire(number)
            elif event == 1:
                self.store.status()
            elif event == 2 and self.plan.drop_caches:
                Path("/proc/sys/vm/drop_caches").write_text("2")
            elif event > 4 and self.s3 is not None:
                self._move_copies()
        for number in list(self._clients):
            self.dismiss(number)
        self._judge()

    def _move_copies(self) -> None:
        """Local copies leave, or come; now and then everything is to be in S3 first."""
        path = self.dice.choice(["", "", "users/1", "users/2/recordings"])
        what = self.dice.choice(["evict", "evict", "fetch", "drain"])
        try:
            if what == "drain":
                self.store.call("drain", timeout_s=0.5)
            else:
                self.store.call(what, path=path, recursive=True)
        except RecfsError as error:
            if "no such file" not in str(error) and "was removed" not in str(error):
                raise

    def _prepare(self) -> None:
        shared = self.store.path / "shared" / "thumbnails"
        shared.mkdir(exist_ok=True)
        for name in ("t", "s"):
            (shared / name).write_bytes(contents.expected(0, 20_000))
        for user in clients.USERS:
            for path in (f"users/{user}", f"users/{user}/recordings", f"temp/{user}"):
                (self.store.path / path).mkdir(exist_ok=True)
                (self.store.path / path).chmod(0o777)
        for top in ("users", "temp", "shared", "shared/thumbnails"):
            (self.store.path / top).chmod(0o777)

    # --- afterwards ----------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        self._quiet()
        before = self._seen_on(self.store.path)
        self._compare_home(before)
        self.read_log()
        self.store.umount()
        self.mount(rate=0.0)
        after = self._seen_on(self.store.path)
        self.wrong += [f"after the remount: {each}" for each in _differences(before, after)]
        self._quiet()
        self._remove_all()
        self.read_log()
        self.store.umount()
        self.read_log()

    def _quiet(self) -> None:
        answer = self.store.call("drain", timeout_s=DRAIN_S)
        if answer["pending"]:
            self.hangs(f"drain, after {DRAIN_S:.0f} s: {answer}, {self.store.status()}")
        found = self.store.call("quota_check", repair=False)["differences"]
        self.wrong += [f"quota check: {each}" for each in found]
        if self.s3 is not None:
            s3 = self.s3
            fault = soon(lambda: bucket_fault(self.store, s3))
            self.wrong += [f"bucket: {fault}"] if fault is not None else []

    def _seen_on(self, top: Path) -> dict[str, str]:
        """Everything there is, by path: kind, mode, owner, size, checksum, own attributes."""
        found = {}
        for folder, names, files in os.walk(top):
            for name in [*names, *files]:
                path = Path(folder, name)
                found[str(path.relative_to(top))] = _seen(path)
        return found

    def _compare_home(self, seen: dict[str, str]) -> None:
        """The home tree shows what the mount does, but for what is shown from elsewhere, and what is incomplete."""
        self.store.call("drain", timeout_s=DRAIN_S)  # what was fetched to be read has come home
        home = {}
        for top in clients.TOPS:
            below = self._seen_on(self.store.root / top)
            home |= {top: _seen(self.store.root / top)} | {f"{top}/{name}": each for name, each in below.items()}
        rows = {row["path"]: row["state"] for row in self.store.call("ls_files", path="", recursive=True, state=None)}
        own = {}
        for path, each in seen.items():
            if each.startswith("file") and path not in rows:
                continue  # a shown one
            if rows.get(path) == "incomplete":
                continue
            if rows.get(path) in _REMOTE:  # read just now, and perhaps it had to give way to the next that was read
                home.pop(path, None)
                continue
            own[path] = each
        self.wrong += [f"home tree: {each}" for each in _differences(own, home)]

    def _remove_all(self) -> None:
        for top in clients.TOPS:
            subprocess.run(["find", self.store.path / top, "-mindepth", "1", "-delete"], check=False, timeout=120)
            left = list(self._seen_on(self.store.path / top))
            self.wrong += [f"could not be removed: {top}/{path}" for path in left]
        self._quiet()
        for area in ("staging", "limbo", "lost+found", *(() if self.plan.trash else ("trash",))):
            left = self.store.leftovers(area)
            self.wrong += [f"{area} has {path.name} ({path.stat().st_size} bytes) of nothing" for path in left]
        for top in clients.TOPS:
            left = [str(path) for path in (self.store.root / top).rglob("*")]
            self.wrong += [f"left at home: {path}" for path in left]


LIMITS = """
[quota]
max_bytes = "600 KiB"
max_files = 40
max_file_size = "200 KiB"
"""
TRASH = """
[trash]
retention = "1h"
"""
CACHE = {"max_size": "2 MiB", "fetch_whole_below": "64 KiB", "read_ahead_max": "64 KiB"}
ROUTES = """
[[route]]
pattern = "**/g"
to = "local"
[[route]]
pattern = "users/**"
to = "s3"
"""
FALLBACK = """
[[fallback]]
pattern = "users/*/thumbnails/*"
target = "shared/thumbnails/*"
"""


def _seen(path: Path) -> str:
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return f"link to {os.readlink(path)}"
    what = f"mode {stat.S_IMODE(info.st_mode):o} owner {info.st_uid}:{info.st_gid}"
    if stat.S_ISDIR(info.st_mode):
        return f"directory {what}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return f"file {what} {info.st_size} bytes {digest} of {info.st_mtime_ns}"


def _differences(one: dict[str, str], two: dict[str, str]) -> list[str]:
    """What the second has otherwise than the first."""
    found = [
        f"{path}: {one.get(path)} | {two.get(path)}"
        for path in sorted(one.keys() | two.keys())
        if one.get(path) != two.get(path)
    ]
    return found[:20]


def play(base: Path, plan: Plan) -> tuple[list[str], Counter[str]]:
    """One round in a directory of its own; what was wrong, and how much was done."""
    base.mkdir(parents=True)
    base.chmod(0o755)
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(contextlib.contextmanager(bucket)(moto(), base)) if plan.s3 else None
        each = Round(base, plan, s3)
        wrong = each.run()
    if not wrong:
        remove_tree(base)
    return wrong, Counter({"rounds": 1, "acts": each.acts})


__all__ = ["MODES", "Plan", "play"]
