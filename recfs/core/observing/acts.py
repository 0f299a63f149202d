"""Acts: who did what to which path, and whether it was let. As the audit log has them, one line of JSON each.

A line is made of parts that are escaped each by itself, so nothing that a user chooses (a path, the name of a program
or of an attribute) can end it or look like another field.
"""

from __future__ import annotations

import errno
import json
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from recfs.core.layout import owner_of
from recfs.core.observing.lines import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

_NS: Final = 1_000_000_000
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
    "expired-removed": "an expired recording was removed after its grace, `by` a sweep or a command",
    "removed": "a command or a sweep removed it, `by` which (`watch`: it was removed past the mount)",
    "restored": "a command brought it back from the trash, `by` which",
    "purged": "it is gone from the trash for good: `by` a command or a sweep, else its user's trash was full",
    "rolled-back": "an overwrite that nobody ends was undone: the committed version is back",
    DROPPED: "`count` acts are missing here: the disk was slow or full",
}
"""What an op means of those that come through the mount, or from the daemon itself."""

CONTROL_OPS: Final = {
    "quota_set": "`recfs quota set`: limits or a usage warning of a user",
    "quota_check": "`recfs quota check --repair`: usage was counted again",
    "user_add": "`recfs user add`: a user was given a uid and directories",
    "user_remove": "`recfs user remove`: a user lost them",
    "recording_expire": "`recfs recording expire`: a recording was made to expire",
    "recording_keep": "`recfs recording keep`: a recording is to be kept, or is not any more",
    "recording_set_expiry": "`recfs recording set-expiry`: the date on which it expires",
    "trash_restore": "`recfs trash restore`: removed files were brought back",
    "trash_purge": "`recfs trash purge`: removed files are gone for good",
    "backup_now": "`recfs backup now`: a backup of the catalogue was made",
    "probe": "`recfs probe`: files were looked into once more",
    "verify": "`recfs verify` without a daemon: bytes were compared with their checksums",
    "verify_begin": "`recfs verify` with a daemon: the comparison was begun",
    "verify_stop": "`recfs verify` was interrupted",
    "import_objects": "`recfs import s3://…` without a daemon: objects of the bucket were made files",
    "import_begin": "`recfs import s3://…` with a daemon: objects of the bucket are made files",
    "import_copies": "`recfs import s3://… --rules`: objects were copied to the bucket, and made files",
    "import_stop": "`recfs import s3://…` was interrupted",
    "derive": "`recfs derive`: what rules make from recordings was asked for",
    "chunks": "`recfs chunks`: how audio is cut was asked for, and planned where it was not",
    "chunks_extract": "`recfs chunks --extract`: chunks of audio were asked for",
    "sweep_run": "`recfs sweep run`: a sweep was begun",
    "sweep_stop": "`recfs sweep run` was interrupted",
    "sweep_temp": "`recfs sweep temp`: abandoned jobs were removed",
    "sweep_expired": "`recfs sweep expired`: what was due of the expiry rules was done",
    "sweep_archive": "`recfs sweep archive`: objects in the archive that nothing names were removed",
    "sweep_multiparts": "`recfs sweep multiparts`: uploads that nobody ends were given up",
    "sweep_orphans": "`recfs sweep orphans`: objects that nothing names were removed",
    "sweep_versions": "`recfs sweep versions`: old versions of objects were removed",
    "cache_put": "`recfs cache put`: a result of processing was kept",
    "cache_release": "`recfs cache release`: a result that was claimed will not be made",
    "cache_purge": "`recfs cache purge`: results of processing were given up",
    "dedupe": "`recfs duplicates --dedupe`: files with the same bytes were made to share their blocks",
    "next_version": "`recfs next-version`: the next numbered version of a file was made",
    "versions_prune": "`recfs versions prune`: superfluous numbered versions were removed",
    "watch_scan": "`recfs watch scan`: the disk was looked through for foreign changes",
    "watch_accept": "`recfs watch accept`: foreign changes were taken over",
    "queue_retry": "`recfs queue retry`: rows of the S3 queue are tried again at once",
    "queue_drop": "`recfs queue drop`: a row of the S3 queue was given up",
    "evict": "`recfs evict`: local copies were removed",
    "fetch": "`recfs fetch`: files were brought back from S3",
    "pin": "`recfs pin` and `recfs unpin`: whether local copies stay",
    "tier_run": "`recfs tier run`: the routes were gone through",
    "restore": "`recfs restore`: files were asked back from a cold storage class",
    "presign": "`recfs presign`: a link was made by which anybody reads a file",
    "lifecycle_apply": "`recfs lifecycle apply`: the bucket's rules were written",
    "bucket_claim": "`recfs bucket claim`: the bucket was made this store's",
    "stop": "`recfs umount`, or the end of the service: the daemon was asked to stop",
    "leave": "the service manager restarts it: the daemon was asked to end, and leave its mount to the next one",
    "reload": "`recfs reload`: the daemon was asked to read its configuration anew",
    "upgrade": "`recfs upgrade`: the daemon was asked to hand over to a new one",
    "upgraded": "the new daemon was asked how the handover went",
}
"""What the methods of the control protocol mean that are acts, by their names."""


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
    """How it came, if not through the mount: "control", "gateway" or "daemon"."""


def act_line(act: Act) -> str:
    """One line, with its newline."""
    path = act.path
    what = _what(act.op, act.result, act.uid, act.gid, act.pid, act.command)
    line = f'{{"time":"{moment(act.at_ns)}","time_ns":{act.at_ns}{what}'
    if path:
        line += f',"path":{quoted(text_of(path))}'
        user = owner_of(tuple(path.split(b"/", 2)))
        if user is not None:
            line += f',"user":"{user}"'
        if not is_utf8(path):
            line += f',"path_hex":"{path.hex()}"'
    return f"{line}{_rest(act.detail, act.via)}}}\n"


def act_lines(acts: Sequence[Act]) -> bytes:
    """The lines of many. What a line has in common with the one before is made once: a program that does much, does it
    to files of one directory, and while a line is made no request is answered.
    """
    lines: list[str] = []
    known_second, begin = None, ""
    known_what, what = None, ""
    known_folder, before, after = None, "", ""
    for act in acts:
        at_ns, op, path, uid, gid, pid, command, result, detail, via = act
        second, ns = divmod(at_ns, _NS)
        if second != known_second:
            known_second, begin = second, _beginning(second)
        this = (op, result, uid, gid, pid, command)
        if this != known_what:
            known_what, what = this, _what(*this)
        folder, _, name = path.rpartition(b"/")
        if folder != known_folder:
            known_folder, (before, after) = folder, _around(folder)
        try:
            text = name.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if begin and before and text:
            rest = _rest(detail, via) if detail or via else ""
            path_text = quoted(text)[1:]
            lines.append(f'{begin}{ns // 1000:06d}Z","time_ns":{at_ns}{what}{before}{path_text}{after}{rest}}}\n')
        else:
            lines.append(act_line(act))
    return "".join(lines).encode("ascii")


def _beginning(second: int) -> str:
    """How a line begins, up to the microseconds; empty where no calendar has that second."""
    whole = moment(second * _NS).removesuffix("000000Z")
    return f'{{"time":"{whole}' if whole.endswith(".") else ""


def _around(folder: bytes) -> tuple[str, str]:
    """What comes before and after the name of what lies in a directory; empty where the name says more than itself."""
    if b"/" not in folder or not is_utf8(folder):
        return "", ""
    user = owner_of(tuple(folder.split(b"/", 2)))
    return f',"path":{quoted(text_of(folder))[:-1]}/', f',"user":"{user}"' if user is not None else ""


def _rest(detail: dict[str, Any] | None, via: str) -> str:
    """The fields that most lines do not have."""
    rest = f',"via":{quoted(via)}' if via else ""
    for key, value in detail.items() if detail else ():
        if isinstance(value, bytes):
            rest += f",{quoted(key)}:{quoted(text_of(value))}"
            if not is_utf8(value):
                rest += f',{quoted(key + "_hex")}:"{value.hex()}"'
        else:
            rest += f",{quoted(key)}:{json.dumps(value)}"
    return rest


@lru_cache(maxsize=256)
def _what(op: str, result: int | str, uid: int, gid: int, pid: int, command: bytes) -> str:
    """The fields of what it was, and who; most do many things."""
    if isinstance(result, int):
        result = errno.errorcode.get(result, str(result)) if result else "ok"
    who = f',"uid":{uid},"gid":{gid},"pid":{pid},"command":{quoted(text_of(command))}'
    return f',"op":{quoted(op)},"result":{quoted(result)}{who}'


def text_of(name: bytes) -> str:
    """A name as text; bytes that are not UTF-8 as `os.fsdecode` has them."""
    return name.decode("utf-8", "surrogateescape")


def is_utf8(name: bytes) -> bool:
    """Whether a name is UTF-8."""
    if name.isascii():
        return True
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


__all__ = ["CONTROL_OPS", "DROPPED", "OPS", "Act", "act_line", "act_lines"]
