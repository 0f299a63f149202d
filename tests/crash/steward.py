"""What an operator does meanwhile: recordings expire, the trash gives back, sweeps run, files come past recfs.

It works beside the users, on recordings of its own, until it finds the daemon gone. Then `settle` has everything come
to its end, and says what is not where it was told to be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recfs.api.client import ControlClient
from recfs.core.ownership import MARK_KEY
from recfs.errors import ControlError, RecfsError
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.meta import to_metadata
from tests.crash.calls import DEAD
from tests.crash.checks import objects_of, retained, soon
from tests.crash.fates import Fate, Fates, Thing
from tests.fuse.harness import Mount
from tests.fuse.s3 import PREFIX, S3

TOP = "users/4/recordings"
USER = TOP.rpartition("/")[0]
MOST = 40
"""So many files it has in the mount before it makes no more."""
RUN_S = 30.0
ENVIRONMENT = """\
import recfs.core.upkeep.leftovers as it
it.QUIET_S = 0.0
_judge = it.judge
it.judge = lambda stray, now, grace_s, doubt_ns: _judge(stray, now, 0.0, doubt_ns)
"""
"""What these daemons have for a sitecustomize: bytes need not be a day old to be taken for orphans."""


class Gone(Exception):
    """The daemon is dead."""


class Steward:
    """The operator of one store."""

    def __init__(
        self, store: Mount, s3: S3 | None, chance: random.Random, *, trash: bool, watch: bool, deletes: bool,
    ) -> None:  # fmt: skip
        """*deletes*: what lies about without a row is removed; else it is adopted."""
        self._store, self._s3, self._chance = store, s3, chance
        self._watch, self._deletes = watch, deletes
        self._mode = "orphans-delete" if deletes and not watch else "orphans-adopt"
        self.fates = Fates(trash=trash)
        self.happened: Counter[str] = Counter()
        self.told: list[str] = []
        """Everything it did, for people who look for the reason of a fault."""
        self._wrong: list[str] = []
        self._names = 0
        self._corrupt: set[int] = set()
        """Files of which a byte was turned, and which are not verified yet …"""
        self._turned: set[int] = set()
        """… and all of them, ever."""
        self._cut_off: dict[str, Thing] = {}
        """Files of which a death has left the beginning."""
        self._thread: threading.Thread | None = None
        acts: list[tuple[int, Callable[[], None]]] = [
            (8, self._create), (5, self._replace), (6, self._remove), (5, self._restore), (3, self._purge),
            (2, self._keep), (3, self._expire), (2, self._set_expiry), (3, self._sweep_expired), (4, self._put_foreign),
            (2, self._sweep_orphans), (2, self._sweep_any),
        ]  # fmt: skip
        if s3 is not None:
            acts += [(2, self._put_object)]
            acts += [(2, self._verify)] if not watch else []
        self._acts = acts

    # --- working -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Work until the daemon is gone."""
        self._thread = threading.Thread(target=self._work, name="steward", daemon=True)
        self._thread.start()

    def dismiss(self, timeout_s: float) -> list[str]:
        """Wait until it has met the dead mount; what it saw that must not be."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return [f"the operator still waits {timeout_s:.0f} s after the daemon's death: {self.told[-1]}"]
        wrong, self._wrong = self._wrong, []
        return wrong

    def _work(self) -> None:
        weights, acts = [weight for weight, _ in self._acts], [act for _, act in self._acts]
        with contextlib.suppress(Gone):
            while True:
                act = self._chance.choices(acts, weights)[0]
                self.told.append(act.__name__)
                try:
                    act()
                except OSError as error:  # no room, or a disk that fails: it may have happened, or not
                    if error.errno in DEAD:
                        return
                    self.told.append(repr(error))
                except ControlError as error:
                    self.told.append(repr(error))
                    return
                except RecfsError as error:
                    self.told.append(repr(error))
                self.happened[f"{act.__name__[1:].replace('_', ' ')} (operator)"] += 1

    def _call(self, method: str, **params: Any) -> Any:
        self.told.append(f"{method} {params}")
        answer = ControlClient(self._store.root / ".recfs/control.sock", timeout_s=60.0).call(method, **params)
        self.told.append(f"→ {str(answer)[:300]}")
        return answer

    def _run(self, name: str) -> dict[str, Any]:
        """Have a sweep run, to its end."""
        number = self._call("sweep_run", name=name)["run"]
        ended: dict[str, Any] = self._call("sweep_wait", name=name, run=number, timeout_s=RUN_S)
        return ended

    def _name(self, kind: str, *, fresh: float = 0.4) -> str:
        """A path that was never used, in a recording that takes new files, or in a new one."""
        self._names += 1
        there = sorted(
            path
            for path, each in self.fates.recordings.items()
            if each.expired == {False} and any(thing.is_certainly(Fate.MOUNT) for thing in self.fates.inside(path))
        )
        if not there or self._chance.random() < fresh:
            return f"{TOP}/{self._names}/{kind}{self._names}"
        return f"{self._chance.choice(there)}/{kind}{self._names}"

    def _some(self, fate: Fate) -> list[Thing]:
        there = self.fates.certainly(fate)
        return self._chance.sample(there, min(len(there), self._chance.randrange(1, 4)))

    # --- files ---------------------------------------------------------------------------------------------------

    def _write(self, path: str, thing: Thing) -> None:
        local = self._store.path / path
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # an earlier one that was never renamed has that name
            del self.fates.things[thing.serial]
            raise
        try:
            done = 0
            while done < thing.size:
                done += os.write(fd, thing.content[done : done + 100_000])
            os.fsync(fd)
        finally:
            os.close(fd)
        thing.may_be, thing.unfinished = {Fate.MOUNT}, False

    def _create(self) -> None:
        if len(self.fates.certainly(Fate.MOUNT)) > MOST:
            return self._remove()
        path = self._name("f")
        self._write(path, self.fates.new(path, Fate.MOUNT, Fate.GONE, unfinished=True))
        return None

    def _replace(self) -> None:
        """Written aside and renamed over: the earlier one goes to the trash."""
        old = [each for each in self._some(Fate.MOUNT) if self.fates.recordings[each.recording].expired == {False}]
        if not old:
            return
        aside = f"{old[0].path}.part"
        new = self.fates.new(aside, Fate.MOUNT, Fate.GONE, unfinished=True)
        self._write(aside, new)
        with self.fates.removal(old[:1]):
            (self._store.path / aside).rename(self._store.path / old[0].path)
        new.path = old[0].path

    def _remove(self) -> None:
        for each in self._some(Fate.MOUNT):
            with self.fates.removal([each]):
                (self._store.path / each.path).unlink()

    # --- the trash -----------------------------------------------------------------------------------------------

    def _trash(self, **asked: object) -> list[dict[str, Any]]:
        """What the trash lists, all pages of it."""
        page = self._call("trash_list", **asked)
        entries: list[dict[str, Any]] = page["entries"]
        while (following := page.get("next")) is not None:
            page = self._call("trash_list", **asked, after=following)
            entries += page["entries"]
        return entries

    def _numbers(self, things: list[Thing]) -> dict[int, Thing]:
        """Which numbers the trash has them under."""
        sizes = {each.size: each for each in things}
        entries = self._trash(user="4")
        return {each["number"]: sizes[each["size_bytes"]] for each in entries if each["size_bytes"] in sizes}

    def _restore(self) -> None:
        chosen = self._some(Fate.TRASH)
        numbers = self._numbers(chosen)
        if not numbers:
            return
        with self.fates.change(numbers.values(), {Fate.TRASH: Fate.MOUNT}) as change:
            told = self._call("trash_restore", ids=list(numbers))
            done = {numbers[each["number"]].serial for each in told["restored"]}
            change.refused = {each.serial for each in numbers.values()} - done
        for each in numbers.values():
            if each.serial in done:
                # It begins another life if it was removed, with its date if that was not why.
                self.fates.recordings[each.recording].expired |= {False}

    def _purge(self) -> None:
        numbers = self._numbers(self._some(Fate.TRASH))
        if not numbers:
            return
        with self.fates.change(numbers.values(), {Fate.TRASH: Fate.GONE}) as change:
            kept = {each["path"] for each in self._call("trash_purge", ids=list(numbers))["kept"]}
            change.refused = {each.serial for each in numbers.values() if each.path in kept}

    # --- recordings ----------------------------------------------------------------------------------------------

    def _recording(self) -> str | None:
        there = sorted({each.recording for each in self.fates.certainly(Fate.MOUNT)})
        return self._chance.choice(there) if there else None

    def _keep(self) -> None:
        path = self._recording()
        if path is None:
            return
        recording, on = self.fates.recordings[path], self._chance.random() < 0.6
        recording.keep |= {on}
        self._call("recording_keep", path=path, on=on)
        recording.keep = {on}
        if on:
            recording.expired = recording.expired if True not in recording.expired else {True, False}

    def _expire(self) -> None:
        path = self._recording()
        if path is not None:
            self._expires(path, "recording_expire")

    def _set_expiry(self) -> None:
        path = self._recording()
        if path is not None:
            self._expires(path, "recording_set_expiry", date=self._chance.choice(("2020-01-01", "2999-01-01", "never")))

    def _expires(self, path: str, method: str, **params: Any) -> None:
        recording = self.fates.recordings[path]
        later = params.get("date", "2020") not in ("2999-01-01", "never")
        recording.expired |= {later, True} if later else {False}
        with contextlib.suppress(RecfsError):  # one that is kept is not to expire
            self._call(method, path=path, **params)

    def _sweep_expired(self) -> None:
        """What has expired goes, or is held up; what is kept stays."""
        self.fates.expire()
        self._call("sweep_expired")

    # --- what comes past recfs -----------------------------------------------------------------------------------

    def _put_foreign(self) -> None:
        """A file in the home tree."""
        path = self._name("h", fresh=0.2)
        folder = self._store.root / os.path.dirname(path)
        if not folder.is_dir():
            return
        thing = self.fates.new(path, Fate.GONE)
        aside = self._store.root / "on its way"
        try:
            aside.write_bytes(thing.content)
            thing.may_be = {Fate.LYING, Fate.MOUNT}
            aside.rename(self._store.root / path)
        except FileNotFoundError:  # the directory was removed meanwhile
            thing.may_be = {Fate.GONE}
        finally:
            aside.unlink(missing_ok=True)

    def _put_object(self) -> None:
        """An object as recfs writes them, of which no row knows, in a bucket that is this store's by now."""
        assert self._s3 is not None
        mark = self._s3.client.list_objects_v2(Bucket=self._s3.name, Prefix=f"{PREFIX}/{MARK_KEY}")
        if not mark.get("Contents"):
            return
        thing = self.fates.new(self._name("o"), Fate.OBJECT, Fate.GONE)
        meta = ObjectMeta(
            sha256=hashlib.sha256(thing.content).digest(), md5=hashlib.md5(thing.content).digest(), mode=0o644,
            owner="0:0", mtime_ns=10**18,
        )  # fmt: skip
        self._s3.client.put_object(
            Bucket=self._s3.name, Key=f"{PREFIX}/{thing.path}", Body=thing.content, Metadata=to_metadata(meta)
        )
        thing.may_be = {Fate.OBJECT}

    def _swept(self) -> dict[Fate, Fate]:
        """What the sweep of orphans makes of things."""
        if self._mode == "orphans-adopt":
            return {Fate.LYING: Fate.MOUNT, Fate.OBJECT: Fate.MOUNT}
        return {Fate.LYING: Fate.LOST, Fate.OBJECT: Fate.GONE}

    def _sweep_orphans(self) -> None:
        strays = [each for each in self.fates.things.values() if each.may_be & {Fate.LYING, Fate.OBJECT}]
        with self.fates.change(strays, self._swept()) as change:
            change.is_certain = False  # some may be left to the next
            self._run(self._mode)

    def _sweep_any(self) -> None:
        names = ["versions", "temp", "orphans"] + (["multiparts", "tier"] if self._s3 is not None else [])
        self._run(self._chance.choice(names))

    # --- verification --------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        """A byte of a local copy turns, as on a bad disk, and everything is verified."""
        for each in self._some(Fate.MOUNT)[:1]:
            if self.fates.recordings[each.recording].may_go:
                continue
            home = self._store.root / each.path
            state = os.getxattr(self._store.path / each.path, "user.recfs.state").decode()
            if state != "stored" or not home.is_file():
                continue
            self._corrupt.add(each.serial)
            self._turned.add(each.serial)
            turn(home, self._chance.randrange(each.size))
            self._verify_all()

    def _verify_all(self) -> str | None:
        """What is not repaired: S3, which has the right bytes, may fail just then, and is asked again after a start."""
        told = self._call("verify", path=USER, level="hash")
        if told["corrupt"] or told["unreadable"]:
            return f"{told['corrupt']} files corrupt, {told['unreadable']} unreadable"
        self._corrupt.clear()
        return None

    # --- after a life --------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Wait until nothing is to be done any more; S3 may have failed a moment ago, and is asked again later."""

        def look() -> str | None:
            pending = self._call("drain", timeout_s=5.0)["pending"]
            return f"{pending} files still in the pipeline" if pending else None

        still = soon(look)
        if still is not None:
            self._wrong.append(still)

    def settle(self) -> list[str]:
        """Have all that is begun come to its end, after a start; what is not where it was told to be."""
        self.told.append("--- a start")
        self.fates.expire()
        self._drain()
        if self._corrupt and (still := soon(self._verify_all)) is not None:
            self._wrong.append(still)
        self._sweep_expired()
        strays = [each for each in self.fates.things.values() if each.may_be & {Fate.LYING, Fate.OBJECT}]
        if self._watch:
            self._call("watch_scan")
        for each in strays:
            each.may_be |= {self._swept().get(fate, fate) for fate in each.may_be}
        for each in strays:
            each.may_be -= {Fate.LYING, Fate.OBJECT}
        found: dict[int, dict[Fate, str]] = {}
        wrong: list[str] = []

        def look() -> str | None:
            nonlocal found, wrong
            if strays:
                self._run(self._mode)
            self._drain()
            found, broken = self._found()
            wrong = self.fates.wrong(found, broken)
            return "; ".join(wrong) or None

        soon(look)
        self.fates.resolve(found)
        for inner, thing in self._cut_off.items():
            (self._store.path / inner).unlink()
            del self.fates.things[thing.serial]
        wrong += self._recordings_wrong() + self._trash_wrong() + self._wrong
        self._wrong = []
        return wrong

    def _found(self) -> tuple[dict[int, dict[Fate, str]], set[int]]:
        """Where everything is, by size; and the sizes of which the bytes are others."""
        found: dict[int, dict[Fate, str]] = {}
        broken = set()
        known = {each.size: each for each in self.fates.things.values()}
        unfinished = {each.path: each for each in self.fates.things.values() if each.unfinished}
        self._cut_off, rows = {}, set()
        for path in sorted((self._store.path / USER).rglob("*")):
            inner = str(path.relative_to(self._store.path))
            if not path.is_file():
                continue
            rows.add(inner)
            content = path.read_bytes()
            thing = unfinished.get(inner) or known.get(len(content))
            if thing is None:
                broken.add(len(content))
                continue
            found.setdefault(thing.size, {})[Fate.MOUNT] = inner
            if len(content) < thing.size:
                self._cut_off[inner] = thing
            if not thing.content.startswith(content):
                broken.add(thing.size)
        for entry in self._trash(user="4"):
            if entry["size_bytes"] in known:
                found.setdefault(entry["size_bytes"], {})[Fate.TRASH] = str(entry["number"])
        for path in sorted((self._store.root / USER).rglob("*")):
            inner = str(path.relative_to(self._store.root))
            if inner not in rows and path.is_file():
                found.setdefault(path.stat().st_size, {})[Fate.LYING] = inner
        for path, size in self._lost():
            found.setdefault(size, {})[Fate.LOST] = path.name
        if self._s3 is not None:
            objects = {each.path: each for each in known.values() if Fate.OBJECT in each.may_be}
            for key in self._s3.paths() & objects.keys() - rows:
                found.setdefault(objects[key].size, {})[Fate.OBJECT] = key
        return found, broken

    def _recordings_wrong(self) -> list[str]:
        """What was said of recordings holds."""
        wrong = []
        there = {each["path"]: each for each in self._call("recording_list", user="4")}
        for path, recording in self.fates.recordings.items():
            seen = there.get(path)
            if seen is None:
                self.fates.recordings[path].keep, recording.expired = {False}, {False}
                continue
            if seen["keep"] not in recording.keep:
                wrong.append(f"{path}: keep is {seen['keep']}, told {recording.keep}")
            expired = seen["status"] != "active"
            if expired and True not in recording.expired:
                wrong.append(f"{path}: it is {seen['status']}, and nobody said so")
            due = seen["expires_at_ns"] is not None and seen["expires_at_ns"] < time.time_ns()
            recording.keep, recording.expired = {seen["keep"]}, {True} if expired or due else {False}
        return wrong

    def _trash_wrong(self) -> list[str]:
        """The trash has the bytes of what it lists, and no others."""

        def look() -> str | None:
            entries = [each for each in self._trash() if each["in"] == "trash"]
            there = {int(each.name): each.stat().st_size for each in (self._store.root / ".recfs/trash").iterdir()}
            # One that somebody wrote to after its removal has more bytes than it had then.
            sizes = {each["number"]: there.get(each["number"]) for each in entries if each["sha256"] is None}
            told = {each["number"]: each["size_bytes"] for each in entries} | sizes
            there = {number: size for number, size in there.items() if size or number in told}
            return None if told == there else f"the trash lists (number: bytes) {told}, and has {there}"

        wrong = soon(look)
        return [wrong] if wrong is not None else []

    def _lost(self) -> Iterator[tuple[Path, int]]:
        """What lost+found has of it, and the sizes."""
        known = {each.size: each.content for each in self.fates.things.values()}
        for path in sorted((self._store.root / ".recfs/lost+found").rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            if known.get(len(content)) == content:
                yield path, len(content)

    def take_out(self) -> None:
        """Take out of lost+found what was put there by rights, as people do, with the directories it was in; so are the
        bad bytes of what was repaired.
        """
        bad = [path for path in (self._store.root / ".recfs/lost+found").glob("corrupt-*") if self._was_turned(path)]
        for path in [*bad, *(path for path, _ in self._lost())]:
            path.unlink()
            if path.parent.name.startswith("dir-") and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def _was_turned(self, path: Path) -> bool:
        """Whether it is one of its files but for a byte, which it turned itself."""
        content = path.read_bytes()
        return any(
            thing.serial in self._turned and thing.size == len(content)
            and sum(one != other for one, other in zip(thing.content, content, strict=True)) == 1
            for thing in self.fates.things.values()
        )  # fmt: skip

    def end(self) -> list[str]:
        """Remove everything for good; what is left of it."""
        for each in self.fates.certainly(Fate.MOUNT):
            with self.fates.removal([each]):
                (self._store.path / each.path).unlink()
        self._drain()
        self._call("trash_purge", all=True)

        def look() -> str | None:
            self._drain()
            trash = [each.name for each in (self._store.root / ".recfs/trash").iterdir()]
            known = objects_of(self._store) | retained(self._store)
            far = sorted(self._s3.paths() - known) if self._s3 else []
            here = [str(each) for each in (self._store.root / USER).rglob("*") if each.is_file()]
            return f"all was removed, and there is {trash}, {far}, {here}" if trash or far or here else None

        wrong = soon(look)
        return [wrong] if wrong is not None else []


def turn(path: Path, at: int) -> None:
    """Turn a byte of a file, and let nothing else tell of it."""
    info = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
