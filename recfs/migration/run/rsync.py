"""rsync as a run uses it: one process copies some files of one user from a farm into the store (rsync(1))."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.migration.steps import Way
from recfs.errors import InvalidArgument, IoFailure, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.migration.run.hashing import Meter

_PROGRESS = re.compile(rb"\s*(\d+)\s+\d+%")
_KEPT_LINES: Final = 2000
"""Of what rsync says on standard error, the last lines of so many are looked at."""
_BANDWIDTH = re.compile(r"\d+(\.\d+)?([KMGTP](i?B)?)?", re.IGNORECASE)
_OF_WAY = {
    Way.NEW: ("--inplace", "--whole-file", "--ignore-existing"),
    Way.ON: ("--append-verify",),
    Way.LAST: ("--size-only",),
    Way.ANEW: ("--ignore-times", "--whole-file"),
}
"""What is to be copied is decided here: rsync would pass over a change of the same size within the same second.

A new file is written where it is to be: nothing is left under another name, whatever ends the process, and what is
there is the beginning of the file; what somebody made there since it was looked at stays. `--append-verify` writes on,
and looks whether the whole is the source's; of a file that is as long already it leaves time and mode as they are, and
`--size-only` sets these alone."""


class Ended(NamedTuple):
    """How an rsync ended."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    said: str
    """On standard error, in English."""


class Options(NamedTuple):
    """What is the same for every rsync of a run."""

    program: str
    bandwidth: str | None = None
    """As `--bwlimit` takes it."""


class Writer(NamedTuple):
    """As whom an rsync writes, and what becomes of it."""

    user: tuple[int, int] | None = None
    """The uid and gid that it writes with; None: those of this process."""
    owner: tuple[int, int] | None = None
    """Uid and gid of what is made; None leaves that to the file system, which knows whose each tree is."""
    holes: bool = False
    """Whether runs of zeros become holes (`--sparse`)."""
    aside: bytes | None = None
    """Directory below the store for what is not whole yet of files that take others' places; None: beside these."""


def found(bandwidth: str | None = None) -> Options:
    """Find rsync. Raises NotFound where it is not installed, InvalidArgument for a bandwidth that it does not know."""
    program = shutil.which("rsync")
    if program is None:
        raise NotFound("rsync is not installed, or not in $PATH: `apt install rsync`")
    if not os.geteuid() and shutil.which("setpriv") is None:
        raise NotFound("setpriv is not in $PATH: `apt install util-linux`")
    if bandwidth is not None and _BANDWIDTH.fullmatch(bandwidth) is None:
        raise InvalidArgument(f"{bandwidth!r} is no bandwidth: KiB a second, or with a unit, as 500K or 20M (rsync(1))")
    return Options(program, bandwidth)


def command(options: Options, way: Way, farm: bytes, writer: Writer) -> list[bytes]:
    """Give the command line that copies from *farm* to the working directory what standard input names, ended by NULs.

    rsync walks to its targets by path. Where it writes as somebody else, its receiving half is started as by a remote
    shell (`--rsh`, rsync(1)), which takes on that user's rights (setpriv(1)): whatever is put in its way there, it
    comes no further than they do.
    """
    args = [options.program, "--archive", "--copy-links", "--partial", *_OF_WAY[way]]
    # Directories are there already, and keep owner, mode and time.
    args += ["--relative", "--no-implied-dirs", "--omit-dir-times", "--from0", "--files-from=-"]
    args += ["--no-owner", "--no-group"] if writer.owner is None else [f"--chown={writer.owner[0]}:{writer.owner[1]}"]
    args += ["--8-bit-output", "--no-human-readable", "--info=progress2"]
    args += ["--sparse"] if writer.holes else []
    if options.bandwidth is not None:
        args.append(f"--bwlimit={options.bandwidth}")
    line = [*map(os.fsencode, args)]
    if writer.aside is not None and way is Way.ANEW:
        line.append(b"--temp-dir=" + writer.aside)
    if writer.user is None:
        return [*line, b"%s/" % farm, b"./"]
    rights = "--reuid={} --regid={} --clear-groups --no-new-privs".format(*writer.user)
    return [
        *line,
        f"--rsh=sh -c 'exec setpriv {rights} \"$@\"'".encode(),
        b"%s/" % farm,
        b"recfs:",
    ]  # the working directory: it may lie below others that the user cannot walk through


class Copying:
    """An rsync that runs. `wait`, in any thread, returns when it has ended."""

    def __init__(self, line: Sequence[bytes], store: bytes, targets: Sequence[bytes], lock: int, meter: Meter) -> None:
        """Start it in *store*. *lock*: a descriptor that it holds as long as it lives. Raises IoFailure."""
        self._meter = meter
        self._counted = 0
        try:
            self._names = tempfile.TemporaryFile()  # noqa: SIM115 - closed when rsync has ended
            self._names.write(b"".join(b"%s\0" % each for each in targets))
            self._names.seek(0)
        except OSError as error:
            raise IoFailure(f"the list of names for rsync cannot be written: {error.strerror}") from None
        env = {key: value for key, value in os.environ.items() if not key.startswith("RSYNC_")}
        try:
            self._process = subprocess.Popen(
                line, cwd=store, stdin=self._names, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(lock,),
                start_new_session=True, env={**env, "LC_ALL": "C"}, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            self._names.close()
            raise IoFailure(f"rsync cannot be started: {error.strerror}") from None

    def wait(self) -> Ended:
        """Read what it says until it ends."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        errors: deque[bytes] = deque(maxlen=_KEPT_LINES)
        with self._process, self._names:
            hearing = threading.Thread(target=errors.extend, args=(self._process.stderr,), daemon=True)
            hearing.start()
            rest = b""
            while chunk := self._process.stdout.read(4096):
                *lines, rest = (rest + chunk).replace(b"\n", b"\r").split(b"\r")
                for line in lines:
                    self._count(line)
            hearing.join()
            code = self._process.wait()
        return Ended(code, b"".join(errors).decode("utf-8", "surrogateescape"))

    def end(self) -> None:
        """Tell it to end: it closes what it writes."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def _count(self, line: bytes) -> None:
        match = _PROGRESS.match(line)
        if match is None:
            return
        done = int(match[1])
        if done > self._counted:
            self._meter.count(done - self._counted)
            self._counted = done

    @property
    def counted(self) -> int:
        """Bytes that were told as done."""
        return self._counted


__all__ = ["Copying", "Ended", "Options", "Writer", "command", "found"]
