"""A store whose catalogue is lost and made anew by the command, seen through its mount before and after."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from .clients import recfs
from .harness import Mount

Facts = dict[str, tuple[object, ...]]


def facts(store: Mount) -> Facts:
    """All that is below the mount: kind, mode, owner, bytes; of files mtime and checksum, as users see them."""
    found: Facts = {}
    for folder, folders, names in os.walk(os.fsencode(store.path)):
        for name in folders + names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            more: tuple[object, ...] = ()
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    more = (info.st_size, info.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
            elif stat.S_ISLNK(info.st_mode):
                more = (os.readlink(path),)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(store.path)))] = (
                info.st_mode, info.st_uid, info.st_gid, *more,
            )  # fmt: skip
    return found


def damage(store: Mount) -> None:
    """The catalogue cannot be read, and its log is gone."""
    path = store.root / ".recfs/catalogue.db"
    with path.open("r+b") as file:
        file.write(os.urandom(64 << 10))
    path.with_name("catalogue.db-wal").unlink(missing_ok=True)


def command(store: Mount) -> list[str | Path]:
    """The command, with the configuration that the daemon has."""
    conf = store.base / "recfs.conf"
    return ["rebuild", "--json", *(("--config", conf) if conf.exists() else ("--root", store.root))]


def rebuild(store: Mount, *options: str) -> dict[str, Any]:
    """Run it to its end."""
    found: dict[str, Any] = json.loads(recfs(*command(store), *options, check=False).stdout)
    assert found["in_place"], found
    return found
