"""What lies beside a tree: SHA256SUMS, and the manifest of what plain files do not hold."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import IO, TYPE_CHECKING

from recfs.core.migration import manifest, sums
from recfs.core.migration.arrivals import part_name
from recfs.errors import InvalidArgument
from recfs.migration.transfer.beneath import opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recfs.core.migration.manifest import Manifest

NAMES = frozenset({sums.NAME, manifest.NAME})
MANIFEST_MAX_BYTES = 256 << 20
_LINE_MAX = 1 << 16


def read_sums(top: int) -> dict[bytes, str] | None:
    """SHA256SUMS in a directory (a descriptor), by path; None: there is none. Raises InvalidArgument, OSError."""
    with contextlib.ExitStack() as stack:
        file = _opened(top, sums.NAME, stack)
        return None if file is None else parsed_sums(file)


def parsed_sums(lines: Iterable[bytes]) -> dict[bytes, str]:
    """Read lines of SHA256SUMS. Raises InvalidArgument that names the line."""
    found: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            if len(line) > _LINE_MAX:
                raise InvalidArgument(f"a line of {len(line):,} bytes")
            path, digest = sums.parsed_sum(line)
        except InvalidArgument as error:
            raise InvalidArgument(f"{sums.NAME.decode()}, line {number}: {error}") from None
        if found.setdefault(path, digest) != digest:
            raise InvalidArgument(f"{sums.NAME.decode()}, line {number}: {path!r} has two checksums")
    return found


def read_manifest(top: int) -> Manifest | None:
    """The manifest in a directory (a descriptor); None: there is none. Raises InvalidArgument, OSError."""
    with contextlib.ExitStack() as stack:
        file = _opened(top, manifest.NAME, stack)
        if file is None:
            return None
        text = file.read(MANIFEST_MAX_BYTES + 1)
    if len(text) > MANIFEST_MAX_BYTES:
        raise InvalidArgument(f"the manifest has more than {MANIFEST_MAX_BYTES:,} bytes")
    return manifest.parsed(text)


def _opened(top: int, name: bytes, stack: contextlib.ExitStack) -> IO[bytes] | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=top)
    except FileNotFoundError:
        return None
    file = stack.enter_context(os.fdopen(descriptor, "rb"))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InvalidArgument(f"{os.fsdecode(name)} is no regular file")
    return file


def sums_text(found: Mapping[bytes, str]) -> bytes:
    """SHA256SUMS of paths, sorted."""
    return b"".join(sums.sum_line(digest, path) for path, digest in sorted(found.items()))


def write_whole(top: int, name: bytes, content: bytes) -> None:
    """Write a file in a directory (a descriptor): it is there whole or as it was. Raises OSError."""
    part = part_name(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part, dir_fd=top)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with opened(os.open(part, flags, 0o644, dir_fd=top)) as file:
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        os.rename(part, name, src_dir_fd=top, dst_dir_fd=top)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=top)
        raise
    os.fsync(top)


__all__ = ["MANIFEST_MAX_BYTES", "NAMES", "parsed_sums", "read_manifest", "read_sums", "sums_text", "write_whole"]
