"""Versions of what recfs is built on and calls."""

import contextlib
import ctypes
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata

from recfs.cli.checks import Check, Level

MIN_PYTHON = (3, 11)
MIN_PYFUSE3 = (3, 4)
MIN_LIBFUSE = (3, 2)
MIN_SQLITE = (3, 37)

_LIBFUSES = ("libfuse3.so.4", "libfuse3.so.3")
"""libfuse 3 is the former from 3.17 on."""
_TOOL_TIMEOUT_S = 10


def version_checks() -> list[Check]:
    """Return the findings about versions; runs ffmpeg and ffprobe with -version."""
    return [
        check_minimum("python", platform.python_version(), MIN_PYTHON, "install Python 3.11 or later"),
        check_pyfuse3(),
        check_libfuse(),
        check_sqlite(),
        *(check_tool(name) for name in ("ffmpeg", "ffprobe")),
    ]


def check_minimum(name: str, version: str, minimum: tuple[int, ...], remedy: str) -> Check:
    """Judge a dotted version."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[: len(minimum)])
    if found < minimum:
        wanted = ".".join(map(str, minimum))
        return Check(name, Level.FAIL, f"{version} is too old; recfs needs {wanted}", remedy)
    return Check(name, Level.OK, version)


def check_pyfuse3() -> Check:
    """Judge pyfuse3: installed, and loadable, which needs libfuse3."""
    remedy = f"{sys.executable} -m pip install 'pyfuse3>=3.4' (building it needs libfuse3-dev and pkg-config)"
    try:
        version = metadata.version("pyfuse3")
        # By name: the program itself meets pyfuse3 in recfs.fs only.
        importlib.import_module("pyfuse3")
    except metadata.PackageNotFoundError:
        return Check("pyfuse3", Level.FAIL, "not installed", remedy)
    except Exception as exc:
        return Check("pyfuse3", Level.FAIL, f"installed, but does not load: {exc}", remedy)
    return check_minimum("pyfuse3", version, MIN_PYFUSE3, remedy)


def check_libfuse() -> Check:
    """Judge libfuse3: the one that pyfuse3 is linked to, else the one that the loader finds."""
    library = _loaded(os.RTLD_NOLOAD | os.RTLD_LAZY) or _loaded(os.RTLD_LAZY)
    if library is None:
        remedy = "install libfuse3 (Debian: apt-get install fuse3)"
        return Check("libfuse", Level.FAIL, f"neither {' nor '.join(_LIBFUSES)} is found", remedy)
    library.fuse_pkgversion.restype = ctypes.c_char_p
    raw = library.fuse_pkgversion()
    remedy = "install a newer libfuse3"
    return check_minimum("libfuse", (raw or b"0").decode("ascii", "replace"), MIN_LIBFUSE, remedy)


def _loaded(mode: int) -> ctypes.CDLL | None:
    for name in _LIBFUSES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name, mode=mode)
    return None


def check_sqlite() -> Check:
    """Judge the SQLite library Python was built with."""
    try:
        version = str(importlib.import_module("sqlite3").sqlite_version)
    except ImportError as exc:
        return Check("sqlite", Level.FAIL, f"does not load: {exc}", "use a Python with the sqlite3 module")
    return check_minimum("sqlite", version, MIN_SQLITE, "use a Python with a newer SQLite library")


def check_tool(name: str) -> Check:
    """Judge ffmpeg or ffprobe; recfs stores files without them."""
    remedy = "install FFmpeg (Debian: apt-get install ffmpeg)"
    path = shutil.which(name)
    if path is None:
        return Check(name, Level.WARN, "not on PATH", remedy)
    try:
        done = subprocess.run(
            [path, "-version"], capture_output=True, text=True, errors="replace", timeout=_TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Check(name, Level.WARN, f"{path} does not run: {exc}", remedy)
    found = re.match(rf"{name} version (\S+)", done.stdout)
    if done.returncode != 0 or found is None:
        return Check(name, Level.WARN, f"{path} does not say its version", remedy)
    return Check(name, Level.OK, f"{found[1]} ({path})")
