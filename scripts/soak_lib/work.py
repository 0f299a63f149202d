"""What one user does, again and again, in a process of its own: `work.py KIND HOME SCRATCH UID SEED`.

It goes on through what trouble below may answer, and ends with a message and exit code 3 at anything else: a wrong
byte, or an errno that recfs should never give.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

EXPECTED = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # a full disk, a full quota
    *(errno.EIO, errno.EAGAIN, errno.EBUSY),  # S3 is away, and what is wanted lies there
    *(errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.EACCES),  # the daemon was killed; it is not mounted
}
FAR_TIMES = (-11_644_473_600, 10_413_792_000, -1, 0, 2**31, 2**32)
"""1601 (Windows' null date), 2300, and the edges of 32 bits."""
WRONG = 3


class Wrong(Exception):
    """Something that recfs must never show."""


class Work:
    """One user's home and what is done there."""

    def __init__(self, home: Path, scratch: Path, seed: int) -> None:
        self.home, self.scratch = home, scratch
        self.random = random.Random(seed)
        self.turn = 0

    def directory(self) -> Path:
        """A recording of this user."""
        path = self.home / "recordings" / str(self.random.randrange(1, 6))
        for each in (path.parent, path):
            each.mkdir(exist_ok=True)
        return path

    def run(self, *command: str | Path) -> None:
        """Run a program; trouble below is its trouble, too."""
        subprocess.run(command, capture_output=True, timeout=300, check=False, stdin=subprocess.DEVNULL)

    def encode(self) -> None:
        """ffmpeg writes a video, and cuts a piece of it."""
        rec = self.directory()
        source = ["-f", "lavfi", "-i", f"testsrc2=duration={self.random.randrange(1, 4)}:size=320x180:rate=25"]
        ffmpeg = ["ffmpeg", "-nostdin", "-loglevel", "quiet", "-y"]
        video = rec / f"video{self.turn % 3}.mp4"
        self.run(*ffmpeg, *source, "-preset", "ultrafast", "-movflags", "+faststart", video)
        self.run(*ffmpeg, "-ss", "0.5", "-i", video, "-c", "copy", rec / "cut.mp4")

    def copy(self) -> None:
        """rsync brings a tree, and what has changed in it."""
        tree = self.scratch / "tree"
        for number in range(20):
            path = tree / f"d{number % 4}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.random.randbytes(self.random.randrange(0, 100_000)))
        self.run("rsync", "-a", "--delete", f"{tree}/", self.directory() / "tree")

    def trees(self) -> None:
        """A deep tree comes and goes; its paths are just short enough for keys of S3."""
        top = path = self.directory() / "deep"
        path.mkdir(exist_ok=True)
        for level in range(25):
            path = path / f"{level}{'x' * 30}"
            path.mkdir(exist_ok=True)
            (path / "file").write_bytes(b"deep")
        self.run("rm", "-r", top)

    def times(self) -> None:
        """Times far from now are kept, or cut to what the file system has."""
        path = self.directory() / "old"
        path.touch()
        wanted = self.random.choice(FAR_TIMES)
        os.utime(path, (wanted, wanted))
        got = int(path.stat().st_mtime)
        if abs(got) < 2**31 and got != wanted and -(2**31) <= wanted < 2**31:
            raise Wrong(f"mtime {wanted} was set and {got} came back")

    def sparse(self) -> None:
        """A file of 300 GB without bytes."""
        path = self.directory() / "sparse"
        with path.open("wb") as stream:
            stream.truncate(300_000_000_000)
        time.sleep(self.random.random())
        path.unlink()

    def opens(self) -> None:
        """Several open one file at the same moment, and each writes its own place."""
        path = self.directory() / "shared"
        failed: list[BaseException] = []

        def write(number: int) -> None:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    os.pwrite(descriptor, bytes([number]) * 5000, number * 5000)
                    if os.pread(descriptor, 5000, number * 5000) != bytes([number]) * 5000:
                        raise Wrong(f"{path}: not what was written")
                finally:
                    os.close(descriptor)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=[number]) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in failed:
            raise error

    def replace(self) -> None:
        """A file is replaced by rename while others read it: each reader sees one version, whole."""
        rec = self.directory()
        path = rec / "replaced"
        for _ in range(20):
            body = self.random.randbytes(self.random.randrange(1, 200_000))
            new = rec / ".new"
            new.write_bytes(hashlib.sha256(body).digest() + body)
            new.rename(path)
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                raise Wrong(f"{path}: neither the old version nor the new one")

    def fill(self) -> None:
        """Write until nothing fits any more, and make room again."""
        path = self.directory() / "big"
        try:
            with path.open("wb") as stream:
                for _ in range(200):
                    stream.write(bytes(1 << 20))
        finally:
            path.unlink(missing_ok=True)


KINDS = ("encode", "copy", "trees", "times", "sparse", "opens", "replace", "fill")


def main() -> int:
    """Work until killed."""
    kind, home, scratch, uid, seed = sys.argv[1:]
    os.setgid(int(uid))
    os.setuid(int(uid))
    work = Work(Path(home), Path(scratch), int(seed))
    act: Callable[[], None] = getattr(work, kind)
    while os.getppid() != 1:  # else whoever wanted this has gone
        work.turn += 1
        try:
            act()
        except Wrong as error:
            print(f"{kind}: {error}", flush=True)
            return WRONG
        except shutil.Error:
            pass
        except OSError as error:
            if error.errno not in EXPECTED:
                print(f"{kind}: {error!r}", flush=True)
                return WRONG
            time.sleep(0.2)  # as a person would, who looks and tries again
    return 0


if __name__ == "__main__":
    sys.exit(main())
