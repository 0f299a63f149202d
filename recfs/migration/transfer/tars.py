"""Streams of tar(1): one that comes in from anybody, and one that goes out (POSIX pax format, names of any bytes)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import zlib
from decimal import Decimal, InvalidOperation
from typing import IO, TYPE_CHECKING, cast

from recfs.core.migration import manifest as manifests
from recfs.core.migration import sums
from recfs.core.migration.arrivals import arrival, check_link, is_part
from recfs.core.migration.manifest import Manifest, is_own_attribute
from recfs.errors import FsError
from recfs.migration.transfer.archives import Archive, Ending, follows
from recfs.migration.transfer.beside import MANIFEST_MAX_BYTES, NAMES, parsed_sums, sums_text
from recfs.migration.transfer.items import BLOCK_BYTES, Item, Kind, Outcome, Problem, Stopped, Unusable, Why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_XATTR = "SCHILY.xattr."
"""Before the name of an extended attribute, as star, GNU tar and bsdtar write it."""
_SUMS_MAX_BYTES = 1 << 30
_BROKEN = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError, OSError, RecursionError)
_NS = 10**9
_NS_MAX = 1 << 63
_ELSEWHERE = "/recfs-import"
"""Where tarfile's filter is told that members go: it judges names, and nothing is extracted there."""
_look_again = getattr(tarfile, "data_filter", None)
"""What Python itself says of a member, after `arrival` and `check_link` have judged it; since 3.11.4, so not in
Debian 12. A FilterError of it is a TarError."""
_SMALL_BYTES = 8 << 20
"""A file up to that size is proven before anything of it goes out."""


class TarSource:
    """A stream, compressed or not, as it comes in: checked member by member, and never believed."""

    def __init__(self, file: IO[bytes], user_map: Mapping[str, str]) -> None:
        self._file = file
        self._user_map = user_map
        self._begun = False
        self._seen: set[tuple[bytes, ...]] = set()
        self._sums: dict[bytes, str] = {}
        self._missing: set[bytes] = set()
        self.manifest: Manifest | None = None
        self.has_sums = False

    def items(self) -> Iterator[Item | Problem]:
        """All members. Raises Stopped where the stream breaks off."""
        try:
            file = cast("IO[bytes]", Ending(self._file))  # nothing but `read` is asked of it
            with Archive.open(fileobj=file, mode="r|*", encoding="utf-8", errors="surrogateescape") as tar:
                yield from self._members(tar)
                more = follows(tar)
        except _BROKEN as error:
            raise Stopped(f"the stream cannot be read on: {str(error) or type(error).__name__}") from error
        if not self._begun:
            raise Stopped("the stream is an archive with nothing in it")
        if more:
            raise Stopped("something follows the end of the archive, as where two are in one stream: it is not read")
        if self.manifest is not None and not self.has_sums:
            raise Stopped("the stream ends before its SHA256SUMS")
        for path in sorted(set(self._sums) - {b"/".join(parts) for parts in self._seen}):
            yield Problem(path, Why.UNREADABLE, "SHA256SUMS has it, and the stream does not")

    def sum_of(self, path: bytes) -> str | None:
        """By the path in the store."""
        return self._sums.get(path)

    def _members(self, tar: tarfile.TarFile) -> Iterator[Item | Problem]:
        while (member := tar.next()) is not None:
            self._begun = True
            tar.members.clear()  # type: ignore[attr-defined]  # it keeps all that went by
            path = member.name.encode("utf-8", "surrogateescape")
            plain = path.removeprefix(b"./")
            if plain in NAMES and member.isreg():
                self._beside(tar, member, plain)
                continue
            if (found := self._judged(tar, member, path)) is not None:
                yield found

    def _beside(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: bytes) -> None:
        most = MANIFEST_MAX_BYTES if name == manifests.NAME else _SUMS_MAX_BYTES
        if member.size > most:
            raise Stopped(f"{os.fsdecode(name)} has {member.size:,} bytes; at most {most:,} are read")
        content = b"".join(_chunks(tar, member))
        try:
            if name == manifests.NAME:
                self.manifest = manifests.parsed(content)
                return
            found = parsed_sums(io.BytesIO(content))
        except FsError as error:
            raise Stopped(str(error)) from error
        self.has_sums = True
        for path, digest in found.items():
            with contextlib.suppress(FsError):  # what may not come in is told of the member
                self._sums[b"/".join(arrival(path, is_dir=False, user_map=self._user_map))] = digest

    def _judged(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> Item | Problem | None:
        kind = _kind_of(member)
        if kind is None:
            return Problem(path, Why.REFUSED, _no_kind(member))
        try:
            parts = arrival(path, is_dir=kind is Kind.DIRECTORY, user_map=self._user_map)
            if kind is Kind.LINK:
                check_link(parts, member.linkname.encode("utf-8", "surrogateescape"))
            if _look_again is not None:
                _look_again(member, _ELSEWHERE)
        except (FsError, tarfile.TarError, ValueError) as error:
            return Problem(path, Why.REFUSED, str(error))
        if not parts or (kind is not Kind.DIRECTORY and is_part(parts[-1])):
            return None
        if parts in self._seen and kind is not Kind.DIRECTORY:
            return Problem(path, Why.REFUSED, "the stream has another of that name before it")
        self._seen.add(parts)
        return Item(
            parts, kind, member.mode & 0o777, _mtime_of(member), member.uid, member.gid,
            size=member.size if kind is Kind.FILE else 0,
            target=member.linkname.encode("utf-8", "surrogateescape") if kind is Kind.LINK else b"",
            attributes=_attributes_of(member),
            chunks=lambda: _chunks(tar, member), again=False,
        )  # fmt: skip


def _kind_of(member: tarfile.TarInfo) -> Kind | None:
    if member.isreg() and not member.issparse():
        return Kind.FILE
    if member.isdir():
        return Kind.DIRECTORY
    return Kind.LINK if member.issym() else None


def _no_kind(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file, whose size nobody can believe"
    return "a hard link: recfs has none" if member.islnk() else "it is neither a file, nor a directory, nor a link"


def _chunks(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """The bytes of a member. Raises Unusable where the stream breaks off."""
    try:
        file = tar.extractfile(member)
        if file is None:
            raise Unusable(Why.UNREADABLE, "it has no bytes")
        while block := file.read(BLOCK_BYTES):
            yield block
    except _BROKEN as error:
        raise Unusable(Why.UNREADABLE, f"the stream breaks off in it: {str(error) or type(error).__name__}") from error


def _mtime_of(member: tarfile.TarInfo) -> int:
    """In nanoseconds; 0 for a time that nobody can mean."""
    try:
        told = Decimal(member.pax_headers.get("mtime", str(member.mtime)))
        found = int(told * _NS) if told.is_finite() and abs(told) < _NS_MAX else 0
    except (InvalidOperation, ValueError):
        return 0
    return found if 0 <= found < _NS_MAX else 0


def _attributes_of(member: tarfile.TarInfo) -> dict[bytes, bytes]:
    found = {}
    for key, value in member.pax_headers.items():
        name = key.removeprefix(_XATTR).encode("utf-8", "surrogateescape")
        if key.startswith(_XATTR) and is_own_attribute(name):
            found[name] = value.encode("utf-8", "surrogateescape")
    return found


class TarWriter:
    """A stream that goes out: the manifest first, SHA256SUMS last."""

    def __init__(
        self, file: IO[bytes], manifest: Manifest, outcome: Outcome, placed: Callable[[Item, str], None] | None = None
    ) -> None:
        """*placed* is told of each file that went out right, with its sha256. Raises OSError."""
        self._outcome = outcome
        self._placed = placed
        self._file = file
        self._made_ns = manifest.made_ns
        self._tar = tarfile.open(  # noqa: SIM115 - `finish` ends it
            fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        self._add_content(manifests.NAME, manifest.text().encode("ascii"))

    def put(self, item: Item) -> None:
        """Write an entry. Raises OSError of the stream; what is wrong with the entry alone is noted."""
        info = self._info(item)
        if item.kind is not Kind.FILE:
            self._tar.addfile(info)
            self._outcome.links += item.kind is Kind.LINK
            self._outcome.directories += item.kind is Kind.DIRECTORY
            return
        reader = _Proving(item)
        try:
            if item.size <= _SMALL_BYTES:
                content = reader.read(item.size)
                reader.check()
                self._tar.addfile(info, io.BytesIO(content))
            else:
                first = reader.read(BLOCK_BYTES)  # what cannot be read at all is left out
                self._tar.addfile(info, _Padded(first, reader, item.size))
                reader.check()
        except Unusable as error:
            self._outcome.problem(item.path, error.why, str(error))
            return
        self._outcome.files += 1
        self._outcome.copied_bytes += item.size
        self._outcome.fetched += item.was_away
        self._outcome.sums[item.path] = reader.sha256
        if self._placed is not None:
            self._placed(item, reader.sha256)

    def finish(self) -> None:
        """Write SHA256SUMS, and the end. Raises OSError."""
        self._add_content(sums.NAME, sums_text(self._outcome.sums))
        self._tar.close()
        self._file.flush()

    def _add_content(self, name: bytes, content: bytes) -> None:
        info = tarfile.TarInfo(os.fsdecode(name))
        info.size, info.mode, info.mtime = len(content), 0o644, self._made_ns // _NS
        self._tar.addfile(info, io.BytesIO(content))

    def _info(self, item: Item) -> tarfile.TarInfo:
        info = tarfile.TarInfo(item.path.decode("utf-8", "surrogateescape"))
        info.type = _TYPES[item.kind]
        info.linkname = item.target.decode("utf-8", "surrogateescape")
        info.mode, info.uid, info.gid, info.size = item.mode & 0o777, item.uid, item.gid, item.size
        seconds, rest = divmod(item.mtime_ns, _NS)
        info.mtime = seconds
        headers = {"mtime": f"{seconds}.{rest:09d}"} if rest else {}
        for name, value in item.attributes.items():
            try:
                key = _XATTR + name.decode("utf-8")
            except UnicodeDecodeError:
                self._outcome.problem(
                    item.path, Why.UNSAID, f"its attribute {name!r} has no name that a stream can hold"
                )
                continue
            headers[key] = value.decode("utf-8", "surrogateescape")
        info.pax_headers = headers
        return info


_TYPES = {Kind.FILE: tarfile.REGTYPE, Kind.DIRECTORY: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE}


class _Proving:
    """Reads the bytes of an item, and proves them at the end."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._chunks = item.chunks()
        self._rest = b""
        self._digest = hashlib.sha256()
        self._size = 0
        self._failed: Unusable | None = None

    @property
    def sha256(self) -> str:
        """Of what was read (hex)."""
        return self._digest.hexdigest()

    def read(self, size: int) -> bytes:
        """As many bytes, unless there are fewer. Raises Unusable."""
        parts = [self._rest]
        have = len(self._rest)
        while have < size and (block := self._next()):
            parts.append(block)
            have += len(block)
        joined = b"".join(parts)
        self._rest = joined[size:]
        return joined[:size]

    def _next(self) -> bytes:
        try:
            block = next(self._chunks, b"")
        except OSError as error:
            self._failed = Unusable(Why.UNREADABLE, f"it cannot be read: {error.strerror or error}")
            raise self._failed from error
        except Unusable as error:
            self._failed = error
            raise
        self._digest.update(block)
        self._size += len(block)
        return block

    def check(self) -> None:
        """Raise Unusable unless all was read and is right."""
        if self._failed is not None:
            raise self._failed
        while self._next():
            pass
        item = self._item
        if self._size != item.size:
            raise Unusable(Why.WRITING, f"it has {self._size:,} bytes, not the {item.size:,} that it should")
        if item.sha256 is not None and self.sha256 != item.sha256:
            raise Unusable(Why.DAMAGED, f"its bytes have another sha256 than was recorded: {self.sha256}")


class _Padded(io.RawIOBase):
    """A large file on its way out: its size is told already, so what cannot be read of it is zeros.

    It is not in SHA256SUMS then, and whoever reads the stream takes it away again.
    """

    def __init__(self, first: bytes, reader: _Proving, size: int) -> None:
        self._first = first
        self._reader = reader
        self._left = size
        self._broken = False

    def read(self, size: int = -1) -> bytes:
        """As many bytes as are asked for, until there are none."""
        size = min(size, self._left) if size >= 0 else self._left
        block = b"" if self._broken else self._some(size)
        self._left -= size
        return block + bytes(size - len(block))

    def _some(self, size: int) -> bytes:
        block, self._first = self._first[:size], self._first[size:]
        if len(block) < size:
            try:
                block += self._reader.read(size - len(block))
            except Unusable:
                self._broken = True
        return block


__all__ = ["TarSource", "TarWriter"]
