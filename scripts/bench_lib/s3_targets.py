"""What is measured against one S3 server: the library by itself, recfs with an S3 tier; `s3_peers` has its peers.

All work below one prefix of the bucket, each in a part of its own. Part size and threads are the same for all.
"""

import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .measure import CpuTime, cpu_time
from .peers import Bucket
from .recfs_target import RecfsTarget
from .s3_direct import PART_BYTES, THREADS, Direct
from .target import LeftOut, Target, TargetError, forget_pages

_EVICT_S = 10.0
_CACHE = "1 TiB"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the bucket a run works."""

    bucket: Bucket
    run: str

    def direct(self) -> Direct:
        """The library, for what is done beside the mounts."""
        return Direct(self.bucket.endpoint, self.bucket.name)

    def prefix(self, name: str) -> str:
        """The prefix of a target's own part."""
        return f"{self.run}/{name}/"

    def volume(self, name: str) -> str:
        """The same for a target that wants a name of small letters, digits and hyphens at the bucket's top."""
        return f"{self.run.replace('_', '-').lower()}-{name}"


class Far(Target):
    """A target whose bytes are in S3. `endpoint` may be changed while it is stopped."""

    place: ClassVar[Place]
    makes_list = False
    """Whether it lists files of its own: others show what recfs stored."""
    speaks_s3 = True
    """Whether it reaches the server by S3, so that its requests can be counted."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.endpoint = self.place.bucket.endpoint

    @property
    def prefix(self) -> str:
        """Where its objects lie."""
        return self.place.prefix(self.name)

    @property
    @abstractmethod
    def listed(self) -> Path:
        """Where it shows what recfs stored."""

    def stored(self, path: Path) -> Path | None:
        return None

    @abstractmethod
    def make_cold(self, *paths: Path) -> None:
        """Let these settled files be in S3 only."""

    def redirect(self, endpoint: str) -> None:
        """Reach the server another way, freshly mounted."""
        self.stop()
        self.endpoint = endpoint
        self.start()

    def cpu(self) -> CpuTime:
        """CPU time of whatever moves the bytes."""
        return cpu_time(self.pids())


class DirectTarget(Far):
    """The chosen library, called by the benchmark itself."""

    name = "direct"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.library = self.place.direct()

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    @property
    def listed(self) -> Path:
        raise LeftOut("the library has no directories")

    def start(self) -> None:
        self.tree.mkdir(parents=True, exist_ok=True)

    def stop(self) -> None:
        pass

    def make_cold(self, *paths: Path) -> None:
        pass

    def cpu(self) -> CpuTime:
        spent = time.process_time()
        return CpuTime(spent, 0.0)


class RecfsS3Target(Far, RecfsTarget):
    """recfs with an [s3] section and its defaults otherwise, but for a cache that holds whatever the rows need."""

    def _settings(self) -> tuple[str | Path, ...]:
        settings = self.home / "recfs.conf"
        settings.write_text(
            f'root = "{self.root}"\n'
            f'[s3]\nbucket = "{self.place.bucket.name}"\nprefix = "{self.prefix}"\nendpoint = "{self.endpoint}"\n'
            f"part_size = {PART_BYTES}\nthreads = {THREADS}\n"
            f'[cache]\nmax_size = "{_CACHE}"\n'
        )
        return ("--config", settings)

    @property
    def listed(self) -> Path:
        return self.tree

    makes_list = True

    def make_cold(self, *paths: Path) -> None:
        for path in paths:
            if path.is_file():
                forget_pages(path)
        deadline = time.monotonic() + _EVICT_S
        for path in paths:
            inside = str(path.relative_to(self.tree))
            # A file that was looked at just before is still open for an instant: its release comes on its own.
            while kept := self.call("evict", path=inside, recursive=True)["kept"]:
                if time.monotonic() > deadline:
                    raise TargetError(f"recfs evict {inside}: kept: {kept[0]}")
                time.sleep(0.02)
