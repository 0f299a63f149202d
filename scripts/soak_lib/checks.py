"""What must be right, while the soak goes on and at its end."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from pathlib import Path

from tests.fuse.harness import Mount

STUCK_S = 5.0
"""How long a process may be in state D (uninterruptible sleep, proc(5))."""
PATIENCE_S = 50.0
"""In which the pipeline has to get on, once nobody works and nothing is in its way."""
BROKEN = re.compile(r"^Traceback|^Fatal Python error|^Unraisable|\bCRITICAL\b", re.MULTILINE)
"""What a daemon logs that has met something it did not expect."""
_BLOCK = 1 << 20


def descendants(pid: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(process.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


class StuckWatch:
    """Looks each second for processes of this soak that stay in state D."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._since: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        stuck: dict[int, float] = {}
        for pid in descendants(os.getpid()):
            try:
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                where = Path(f"/proc/{pid}/wchan").read_text()
            except OSError:
                continue
            if rest.split()[0] != "D":
                continue
            stuck[pid] = self._since.get(pid, now)
            if stuck[pid] >= 0 and now - stuck[pid] > STUCK_S:
                self.found.append(f"{name}) was in state D for {now - stuck[pid]:.0f} s, in {where}")
                stuck[pid] = -1.0  # told once
        self._since = stuck

    def end(self) -> list[str]:
        """Stop looking; what was found."""
        self._ended.set()
        self._thread.join()
        return self.found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def wrong_in(store: Mount, *, killed: bool) -> tuple[list[str], int]:
    """Everything that is wrong with a quiet store, and how many files were compared with their checksums.

    *killed*: the daemon was killed before, so lost+found may hold what nobody had synced.
    """
    wrong: list[str] = []
    pending, before = store.call("drain", timeout_s=PATIENCE_S)["pending"], None
    while pending and (before is None or pending < before):  # it gets on: uploads take as long as they take
        pending, before = store.call("drain", timeout_s=PATIENCE_S)["pending"], pending
    if pending:
        wrong.append(f"{pending} files are still in the pipeline: {store.status()}")
    differences = store.call("quota_check", repair=False)["differences"]
    if differences:
        wrong.append(f"quota check: {differences}")
    compared = 0
    for row in store.call("ls_files", path="", recursive=True, state=None):
        if row["state"] not in ("committed", "stored", "cached") or not row.get("sha256"):
            continue
        path = store.path / row["path"]
        compared += 1
        try:
            seen = _sha256(path)
        except OSError as error:
            wrong.append(f"{row['path']}: it is {row['state']}, and cannot be read: {error!r}")
            continue
        if seen != row["sha256"]:
            wrong.append(f"{row['path']}: {row['sha256']} is recorded, {seen} is read")
        home = store.home(path)
        if home.is_file() and row["state"] == "committed" and (seen := _sha256(home)) != row["sha256"]:
            wrong.append(f"{row['path']}: {row['sha256']} is recorded, {seen} is on the disk")
    lost = store.leftovers("lost+found")
    if lost and not killed:
        wrong.append(f"lost+found has {[path.name for path in lost]}")
    return wrong, compared
