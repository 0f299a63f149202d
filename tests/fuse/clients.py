"""What the tests run against a mount: processes with deadlines, other users, checksums, rare system calls."""

from __future__ import annotations

import ast
import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import forkserver
from tests.helpers.machine import skip

PYTHON = (sys.executable, "-S", "-E", "-c")
"""A client that needs the standard library alone: to look for what else is installed takes half of its start."""

_libc = ctypes.CDLL(None, use_errno=True)


def need_root() -> None:
    """Skip unless the tests run as root (other users, small tmpfs mounts)."""
    if os.geteuid() != 0:
        skip("needs root")
    if shutil.which("setpriv") is None:
        skip("needs setpriv: apt-get install util-linux")


def run(
    *argv: str | Path,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout_s: float = 110.0,
    check: bool = True,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a client; with `check`, a non-zero exit fails the test with everything the client said."""
    command = [str(a) for a in argv]
    done = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
    )
    return _judged(done, check=check)


def _judged(done: subprocess.CompletedProcess[bytes], *, check: bool) -> subprocess.CompletedProcess[bytes]:
    if check and done.returncode != 0:
        said = (done.stdout[-4000:] + b"\n" + done.stderr[-4000:]).decode(errors="replace")
        pytest.fail(f"{' '.join(done.args)}\nexited with {done.returncode}:\n{said}")
    return done


def output(*argv: str | Path, cwd: Path | None = None, timeout_s: float = 110.0) -> str:
    """Run a client and return what it printed."""
    return os.fsdecode(run(*argv, cwd=cwd, timeout_s=timeout_s).stdout)


def recfs(*argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a recfs command, to its end; one that has failed fails the test, with `check`."""
    return _judged(forkserver.run([str(a) for a in argv], timeout_s=110.0), check=check)


def as_user(uid: int, argv: Sequence[str | Path], *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a client as another user, with no group but its own and no capabilities."""
    need_root()
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    return run(*prefix, *argv, check=check)


def errno_as_user(uid: int, code: str) -> int:
    """Run a line of Python as another user (`os` is imported); return its errno, 0 for success."""
    script = f"import os, sys\ntry:\n    {code}\nexcept OSError as error:\n    sys.exit(error.errno)\n"
    # -S -E: this user cannot read the site-packages of whoever runs the tests.
    done = as_user(uid, ["/usr/bin/env", "python3", "-S", "-E", "-c", script], check=False)
    assert b"Traceback" not in done.stderr, f"{code}\n{done.stderr.decode(errors='replace')}"
    return done.returncode


def wait_until(happened: Callable[[], Any], what: str, timeout_s: float = 90.0) -> Any:
    """Poll until `happened()` is true and return its value; fail naming `what` after the deadline.

    For the progress of a client in another process, which offers nothing to wait for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = happened()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:.0f} s in vain until {what}")
        time.sleep(0.01)


def sha256_of(path: Path) -> str:
    """Return the sha256 of what a reader of `path` gets, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256(content: bytes) -> str:
    """Return the sha256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def pattern(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes that repeat nowhere, the same for the same seed."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)


def xattr(path: Path, name: str, *, follow: bool = True) -> str:
    """Return an attribute `user.recfs.<name>` as text."""
    return os.fsdecode(os.getxattr(path, f"user.recfs.{name}", follow_symlinks=follow))


def state(path: Path) -> str:
    """Return the state of a file (user.recfs.state)."""
    return xattr(path, "state")


def snapshot(top: Path) -> dict[str, tuple[str, int, str]]:
    """Describe a tree for comparison: relative path -> (type, permission bits, content)."""
    found: dict[str, tuple[str, int, str]] = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = ("link", 0, os.readlink(path))
        elif path.is_dir():
            found[name] = ("dir", mode & 0o7777, "")
        else:
            found[name] = ("file", mode & 0o7777, sha256_of(path))
    return found


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_ulong),
        ("d_off", ctypes.c_long),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


class DirStream:
    """opendir(3) and its friends, which Python does not offer: telldir, seekdir, rewinddir."""

    def __init__(self, path: Path) -> None:
        _libc.opendir.restype = ctypes.c_void_p
        _libc.readdir.restype = ctypes.POINTER(_Dirent)
        _libc.telldir.restype = ctypes.c_long
        handle = _libc.opendir(os.fsencode(path))
        if not handle:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
        self._handle = ctypes.c_void_p(handle)

    def read(self) -> tuple[bytes, int, int] | None:
        """Return (name, inode number, type) of the next entry, or None at the end."""
        entry = _libc.readdir(self._handle)
        return (entry.contents.d_name, entry.contents.d_ino, entry.contents.d_type) if entry else None

    def tell(self) -> int:
        """Return the position of the next entry."""
        return int(_libc.telldir(self._handle))

    def seek(self, position: int) -> None:
        """Go to a position that tell returned."""
        _libc.seekdir(self._handle, ctypes.c_long(position))

    def rewind(self) -> None:
        """Begin again, with the directory as it is now."""
        _libc.rewinddir(self._handle)

    def close(self) -> None:
        """Close the stream."""
        _libc.closedir(self._handle)


def python_client(script: str, *args: str | Path, timeout_s: float = 110.0) -> str:
    """Run a Python script in a process of its own and return what it printed; sys.argv[1:] holds `args`.

    For clients that may hang in a page fault (mmap), which no deadline inside this process could end.
    """
    return output(*PYTHON, script, *args, timeout_s=timeout_s)


class Peer:
    """Another process that runs Python, a line at a time: `peer("os.write(fd, b'x')")` returns what it returns.

    It knows os, fcntl and mmap, and `map_shared(fd, size)` and `unmap(view)`: mmap.mmap keeps a descriptor of its own,
    a mapping of these does not. An OSError there is raised here. It ends, and its files are closed, with the block.
    """

    _SCRIPT = """
import ctypes, fcntl, mmap, os, sys, traceback
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def map_shared(fd, size):
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), 'mmap')
    return (ctypes.c_char * size).from_address(address)
def unmap(view):
    libc.munmap(ctypes.addressof(view), len(view))
names = dict(globals())
for line in sys.stdin:
    code = eval(line)
    try:
        try:
            expression = compile(code, code, 'eval')
        except SyntaxError:
            value = exec(code, names)
        else:
            value = eval(expression, names)
        answer = 'value', value if isinstance(value, (int, str, bytes, tuple)) else None
    except OSError as error:
        answer = 'errno', error.errno
    except Exception:
        answer = 'failed', traceback.format_exc()
    print(repr(answer), flush=True)
"""

    def __init__(self, uid: int | None = None) -> None:
        argv = [sys.executable]
        if uid is not None:
            need_root()
            argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
            argv += ["/usr/bin/env", "python3"]
        argv += ["-S", "-E", "-c", self._SCRIPT]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, code: str) -> Any:
        """Run one line there; return its value if it is a number, text, bytes or tuple. Raises OSError."""
        self.send(code)
        return self.answer()

    def send(self, code: str) -> None:
        """Have it run one line, without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{code!r}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to what was sent."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the other process died: {self._process.wait(10)}"
        kind, value = ast.literal_eval(line)
        if kind == "errno":
            raise OSError(value, os.strerror(value))
        assert kind == "value", value
        return value

    def open(self, path: Path, flags: int, name: str = "fd") -> None:
        """Open a file there as variable `name`."""
        self(f"{name} = os.open({str(path)!r}, {flags}, 0o644)")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=20)
