"""What SQLite does to its files: every write, truncation and sync, as it asks its operating system layer for them.

The VFS that SQLite opens files with (sqlite.org/vfs.html, sqlite3.h) is that of the library which Python's module is
linked to. Of each file that it opens here, the methods xWrite, xTruncate and xSync are replaced by some that tell an
observer first, and ask it whether the process is still alive.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SQLITE_OK, SQLITE_IOERR = 0, 10
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_VFS_OPEN = 5 * _POINTER
"""Offset of xOpen in struct sqlite3_vfs: three ints (in two words), pNext, zName, pAppData."""
_IO_METHODS = 19
"""Words in struct sqlite3_io_methods, version 3."""
_WRITE, _TRUNCATE, _SYNC = 3, 4, 5
"""Words of the struct with these methods."""

_OpenType = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)
"""The name is handed on as it is: SQLite keeps the pointer."""
_WriteType = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TruncateType = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_SyncType = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)

Ask = Callable[[str, str, tuple[Any, ...]], bool]
"""Called before each effect with its name, the path of the file, and (offset, bytes) or (size,): False, the process is
dead, and it does not happen."""


class SqliteFiles:
    """Watches the files that SQLite opens while `watched` is in force."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lock = threading.RLock()
        self._paths: dict[int, str] = {}
        self._methods: dict[int, Any] = {}
        """The replaced tables of methods, by the address of SQLite's own."""
        self._kept: list[Any] = []
        """What C has pointers to."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch what is opened within the block. Files that are open at its end must be closed within it."""
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.c_void_p
        vfs = library.sqlite3_vfs_find(None)
        slot = ctypes.c_void_p.from_address(vfs + _VFS_OPEN)
        own = slot.value
        assert own is not None
        opens = _OpenType(own)

        def opened(this: int, name: int | None, file: int, flags: int, out: int) -> int:
            code = int(opens(this, name, file, flags, out))
            if code == SQLITE_OK and name is not None:
                with self._lock:
                    self._paths[file] = ctypes.string_at(name).decode()
                    methods = ctypes.c_void_p.from_address(file)
                    methods.value = self._replaced(methods.value or 0)
            return code

        callback = _OpenType(opened)
        self._kept.append(callback)
        slot.value = ctypes.cast(callback, ctypes.c_void_p).value
        try:
            yield
        finally:
            slot.value = own

    def _replaced(self, table: int) -> int:
        known = self._methods.get(table)
        if known is None:
            words = (ctypes.c_void_p * _IO_METHODS).from_address(table)
            known = (ctypes.c_void_p * _IO_METHODS)(*words)
            write, truncate, sync = _WriteType(words[_WRITE]), _TruncateType(words[_TRUNCATE]), _SyncType(words[_SYNC])

            def writes(file: int, data: int, amount: int, offset: int) -> int:
                content = ctypes.string_at(data, amount)
                return self._asked("write", file, (offset, content), lambda: write(file, data, amount, offset))

            def truncates(file: int, size: int) -> int:
                return self._asked("truncate", file, (size,), lambda: truncate(file, size))

            def syncs(file: int, flags: int) -> int:
                return self._asked("sync", file, (), lambda: sync(file, flags))

            for index, callback in (
                (_WRITE, _WriteType(writes)), (_TRUNCATE, _TruncateType(truncates)), (_SYNC, _SyncType(syncs)),
            ):  # fmt: skip
                known[index] = ctypes.cast(callback, ctypes.c_void_p).value
                self._kept.append(callback)
            self._methods[table] = known
        return ctypes.addressof(known)

    def _asked(self, name: str, file: int, args: tuple[Any, ...], act: Callable[[], int]) -> int:
        with self._lock:
            if not self._ask(name, self._paths.get(file, ""), args):
                return SQLITE_IOERR
        return act()
