"""`recfs://` for fsspec: pandas, dask and others open files of the tree by URLs such as recfs://users/5/recordings/142/…

A URL is a path in the tree; the storage option `root` says which mount or plain directory that is (none: the mount that
there is, `default_root`). fsspec finds this class by its entry point, as soon as recfs is installed.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.spec import AbstractFileSystem

from recfs.client.errors import InvalidName
from recfs.client.opened import Compressed, Input, Output, Text
from recfs.client.places import default_root
from recfs.client.tree import NAME_MAX_BYTES
from recfs.client.writing import Draft, is_draft, open_folder

_IN_PLACE = {"ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND, "r+b": os.O_RDWR}


class RecfsFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no type information
    """A recfs store, or a plain directory, for fsspec.

    What is opened with "wb", "xb", "w" or "x" is written aside, synced, and renamed into its place when it is closed
    (`atomic_write`), or at the end of a transaction; if the block of `with fs.open(…)` raises, nothing is left, nor if
    that of `with fsspec.open(…)` does, or of anything in Python that closes the file as it is left for an error. "ab"
    and "r+b" change a file in place. Paths do not leave the tree: "..", NUL and the like are refused (InvalidName), and
    no symbolic link is followed. Directories that are missing are made, unless *auto_mkdir* is False. Raises OSError.

    >>> import fsspec
    >>> fs = fsspec.filesystem("recfs", root=folder)
    >>> with fs.open("recfs://users/5/recordings/142/assets/scores.csv", "w") as f:
    ...     written = f.write("a,b")
    >>> fs.ls("users/5/recordings/142/assets", detail=False), fs.cat("users/5/recordings/142/assets/scores.csv")
    (['users/5/recordings/142/assets/scores.csv'], b'a,b')
    """

    protocol = "recfs"
    root_marker = ""
    cachable = False  # which mount is meant may change

    def __init__(
        self, root: str | os.PathLike[str] | None = None, auto_mkdir: bool = True, **options: Any
    ) -> None:  # fmt: skip
        super().__init__(root=root, auto_mkdir=auto_mkdir, **options)
        self.root = Path(default_root() if root is None else root)
        self.auto_mkdir = auto_mkdir

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        if isinstance(stripped, list):
            return [each.strip("/") for each in stripped]
        return stripped.strip("/")

    # --- where it lies -------------------------------------------------------------------------------------------

    def _parts(self, path: Any) -> tuple[str, ...]:
        text = self._strip_protocol(path)
        parts = tuple(text.split("/")) if text else ()
        for part in parts:
            if part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > NAME_MAX_BYTES:
                raise InvalidName(f"{text[:120]!a} is no path of the tree")
        return parts

    @contextmanager
    def _at(self, path: Any, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The directory that a path is in, as a descriptor, and its name there; "." for the root."""
        parts = self._parts(path)
        folder = open_folder(self.root, parts[:-1], make=make)
        try:
            yield folder, parts[-1] if parts else "."
        finally:
            os.close(folder)

    # --- looking -------------------------------------------------------------------------------------------------

    def info(self, path: Any, **kwargs: Any) -> dict[str, Any]:
        """Name, size, type (file, directory or other), times and owner."""
        try:
            with self._at(path) as (folder, name):
                return _info(self._strip_protocol(path), os.stat(name, dir_fd=folder, follow_symlinks=False))
        except NotADirectoryError as error:
            raise FileNotFoundError(self._strip_protocol(path)) from error

    def ls(self, path: Any, detail: bool = True, *, drafts: bool = False, **kwargs: Any) -> list[Any]:
        """What is in a directory, or the file itself; without files that are being written (*drafts*: with them)."""
        found = self.info(path)
        if found["type"] != "directory":
            return [found] if detail else [found["name"]]
        above = found["name"]
        descriptor = open_folder(self.root, self._parts(path))
        try:
            listed = []
            for name in os.listdir(descriptor):
                if is_draft(name) and not drafts:
                    continue
                try:
                    info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it went meanwhile
                listed.append(_info(f"{above}/{name}" if above else name, info))
        finally:
            os.close(descriptor)
        return listed if detail else [each["name"] for each in listed]

    def created(self, path: Any) -> datetime:
        """When anything of it last changed: there is no time of its making."""
        return datetime.fromtimestamp(self.info(path)["created"], UTC)

    def modified(self, path: Any) -> datetime:
        """When its bytes last changed."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    # --- changing ------------------------------------------------------------------------------------------------

    def mkdir(self, path: Any, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory."""
        with self._at(path, make=create_parents) as (folder, name):
            os.mkdir(name, dir_fd=folder)
            os.fsync(folder)

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        """Make a directory and those above it."""
        try:
            self.mkdir(path)
        except FileExistsError:
            if not exist_ok or not self.isdir(path):
                raise

    def rmdir(self, path: Any) -> None:
        """Remove an empty directory."""
        with self._at(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def rm_file(self, path: Any) -> None:
        """Remove a file, a link, or an empty directory."""
        with self._at(path) as (folder, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove what is named; a name that is there is no pattern, whatever characters are in it.

        The whole tree is not removed: raises InvalidName.
        """
        paths = path if isinstance(path, (list, tuple)) else [path]
        if not all(self._strip_protocol(each) for each in paths):
            raise InvalidName("an empty path is the whole tree, which is not removed")
        for each in paths:
            name = self._strip_protocol(each)
            if not self.exists(name):
                super().rm(each, recursive=recursive, maxdepth=maxdepth)
                continue
            below = self.find(name, maxdepth=maxdepth, withdirs=True, drafts=True) if recursive else []
            for found in sorted({name, *below}, reverse=True):
                self.rm_file(found)

    def cp_file(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        """Copy a file; of a directory make one."""
        found = self.info(path1)
        if found["type"] == "directory":
            self.makedirs(path2, exist_ok=True)
            return
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Rename in one step; patterns, lists, and what goes into a directory, are copied and removed.

        A name that is there is no pattern.
        """
        simple = isinstance(path1, str) and isinstance(path2, str) and not path2.endswith("/") and maxdepth is None
        if not simple or not self.exists(path1) or self.isdir(path2):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        with self._at(path1) as (old, old_name), self._at(path2, make=self.auto_mkdir) as (new, new_name):
            os.rename(old_name, new_name, src_dir_fd=old, dst_dir_fd=new)
            os.fsync(new)

    def touch(self, path: Any, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file, or empty one; without *truncate* only its times are changed."""
        if truncate or not self.exists(path):
            with self.open(path, "wb"):
                return
        with self._at(path) as (folder, name):
            os.utime(name, dir_fd=folder, follow_symlinks=False)

    def open(
        self, path: Any, mode: str = "rb", block_size: Any = None, cache_options: Any = None,
        compression: str | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """As fsspec has it; a block that raises leaves nothing, also of text."""
        if "b" in mode:
            by = None if compression is None else get_compression(self._strip_protocol(path), compression)
            opened = super().open(path, mode, block_size, cache_options, by if mode == "rb" else None, **kwargs)
            if by is None or mode == "rb":
                return opened
            compressor = compr[by](opened, mode=mode[0])
            return Compressed(compressor, opened) if isinstance(opened, Output) else compressor
        known = ("encoding", "errors", "newline")
        text = {key: kwargs.pop(key) for key in known if key in kwargs}
        binary = self.open(path, mode.replace("t", "") + "b", block_size, cache_options, compression, **kwargs)
        return Text(binary, **text)

    def _open(
        self, path: Any, mode: str = "rb", block_size: Any = None, autocommit: bool = True, cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        parts = self._parts(path)
        if not parts:
            raise IsADirectoryError(str(self.root))
        if mode not in ("rb", "wb", "xb", *_IN_PLACE):
            raise ValueError(f"mode {mode!r}: files are opened with rb, wb, xb, ab or r+b")
        with self._at(path, make=self.auto_mkdir and mode in ("wb", "xb", "ab")) as (folder, name):
            if mode in ("wb", "xb"):
                return Output(Draft(os.dup(folder), self.root.joinpath(*parts[:-1]), name), mode, autocommit)
            flags = os.O_RDONLY if mode == "rb" else _IN_PLACE[mode]
            file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise IsADirectoryError(self._strip_protocol(path))
            return Input(io.FileIO(file)) if mode == "rb" else open(file, mode)
        except BaseException:
            os.close(file)
            raise


def _info(name: str, found: os.stat_result) -> dict[str, Any]:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file"}
    return {
        "name": name, "size": found.st_size, "type": kinds.get(stat.S_IFMT(found.st_mode), "other"),
        "islink": stat.S_ISLNK(found.st_mode), "created": found.st_ctime, "mtime": found.st_mtime,
        "mode": found.st_mode, "uid": found.st_uid, "gid": found.st_gid, "ino": found.st_ino, "nlink": found.st_nlink,
    }  # fmt: skip


__all__ = ["RecfsFileSystem"]
