"""Acts: who did what to which path, and whether it was let. As the audit log has them, one line of JSON each.

A line is made of parts that are escaped each by itself, so nothing that a user chooses (a path, the name of a program
or of an attribute) can end it or look like another field.
"""

from __future__ import annotations

import errno
import json
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, NamedTuple

from recfs.core.layout import owner_of
from recfs.core.observing.lines import moment

DROPPED: Final = "dropped"
"""The op of a line that stands for acts of which there is no other."""

OPS: Final = {
    "create": "a file was made, or opened with O_CREAT where the kernel knew of none",
    "mknod": "a file was made by mknod(2)",
    "mkdir": "a directory was made",
    "symlink": "a symbolic link was made; `target`",
    "overwrite": "a file that was there was opened for writing; `truncated`: emptied by that (O_TRUNC)",
    "truncate": "a file was cut or extended to `size_bytes`",
    "write": "a write that was refused, the first of an open file with that errno; others are not told",
    "fallocate": "room was taken or given back (fallocate(2))",
    "copy": "bytes were copied into the file by copy_file_range(2)",
    "rename": "it was renamed `to` another path, whose file, if there was one, is gone",
    "exchange": "two names changed places (RENAME_EXCHANGE)",
    "unlink": "a file or link was removed",
    "rmdir": "a directory was removed",
    "link": "a hard link, which is always refused",
    "chmod": "its mode was changed to `mode`",
    "chown": "its owner or group was changed to `owner` (uid:gid, -1 for what stays)",
    "setxattr": "the extended attribute `name` was set; the `value`, where it is one of recfs's own",
    "removexattr": "the extended attribute `name` was removed",
    "read": "a file was opened for reading ([audit] reads)",
    "expired": "the daemon had a recording expire by its rule or date",
    "revived": "the daemon found that a recording is not expired any more",
    "expired-removed": "the daemon removed an expired recording after its grace",
    DROPPED: "`count` acts are missing here: the disk was slow or full",
}
"""What an op means. Those of the command line are the names of the control protocol's methods (`quota_set` …)."""


class Act(NamedTuple):
    """What somebody did."""

    at_ns: int
    """Wall clock."""
    op: str
    path: bytes
    """In the mount; empty where there is none."""
    uid: int
    gid: int
    pid: int
    """Of the thread; 0 where the kernel cannot say (another pid namespace)."""
    command: bytes
    """The thread's name (comm of proc(5)); empty where it was gone already."""
    result: int | str
    """0, an error number, or the class of an error of recfs."""
    detail: dict[str, Any] | None = None
    via: str = ""
    """How it came, if not through the mount: "control" or "daemon"."""


def act_line(act: Act) -> str:
    """One line, with its newline."""
    at_ns, op, path, uid, gid, pid, command, result, detail, via = act
    if isinstance(result, int):
        result = errno.errorcode.get(result, str(result)) if result else "ok"
    line = f'{{"time":"{moment(at_ns)}","time_ns":{at_ns},"op":{quoted(op)},"result":{quoted(result)}'
    line += _who(uid, gid, pid, command)
    if path:
        line += f',"path":{quoted(text_of(path))}'
        user = owner_of(tuple(path.split(b"/", 2)))
        if user is not None:
            line += f',"user":"{user}"'
        if not path.isascii() and not is_utf8(path):
            line += f',"path_hex":"{path.hex()}"'
    if via:
        line += f',"via":{quoted(via)}'
    for key, value in detail.items() if detail else ():
        if isinstance(value, bytes):
            line += f",{quoted(key)}:{quoted(text_of(value))}"
            if not is_utf8(value):
                line += f',{quoted(key + "_hex")}:"{value.hex()}"'
        else:
            line += f",{quoted(key)}:{json.dumps(value)}"
    return line + "}\n"


@lru_cache(maxsize=256)
def _who(uid: int, gid: int, pid: int, command: bytes) -> str:
    """The fields of who it was; most do many things."""
    return f',"uid":{uid},"gid":{gid},"pid":{pid},"command":{quoted(text_of(command))}'


def text_of(name: bytes) -> str:
    """A name as text; bytes that are not UTF-8 as `os.fsdecode` has them."""
    return name.decode("utf-8", "surrogateescape")


def is_utf8(name: bytes) -> bool:
    """Whether a name is UTF-8."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


__all__ = ["DROPPED", "OPS", "Act", "act_line"]
