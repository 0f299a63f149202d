"""Root without its powers: a command in a user namespace of its own, where uid 0 is 0 but not the machine's root.

    python tests/helpers/userns.py COMMAND [ARGUMENT ...]

It ends with the command's exit code, or with 125 and the reason when the kernel permits no such namespace. The command
has a mount namespace of its own as well, may mount tmpfs and FUSE file systems there, and has all capabilities over
them; what asks for a capability in the first user namespace (FUSE passthrough, chattr +i, trusted.*) is refused.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

REFUSED = 125
IDS = 65_536
"""uids and gids from 0 that are the same inside and outside."""

_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x4000, 1 << 18, 2
_PR_SET_PDEATHSIG, _SIGINT = 1, 2
_CAP_SYS_ADMIN = 1 << 21
_ALL_IDS = ["0", "0", "4294967295"]


def has_sys_admin() -> bool:
    """Whether what is started from here has CAP_SYS_ADMIN in the first user namespace."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (effective,) = (line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) & _CAP_SYS_ADMIN) and Path("/proc/self/uid_map").read_text().split() == _ALL_IDS


LEAVE_FUSE_MOUNTS = """
while read -r _ _ _ _ point rest; do
  case "$rest" in *" - fuse"*) umount --lazy "$(printf %b "$point")" || :;; esac
done </proc/self/mountinfo
"""
"""As `leave_fuse_mounts`, for a shell in a new mount namespace. Where the machine's own mounts are private, copies of
them are so in a namespace of slaves, too: nothing of what becomes of others' mounts is heard there."""


def leave_fuse_mounts(libc: ctypes.CDLL, but: str | None = None) -> None:
    """Have a mount namespace without the FUSE mounts of others: a copy here would keep their daemons from ending.

    *but*: the mount point of one that is kept.
    """
    libc.unshare(_CLONE_NEWNS)
    libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        if re.match(rb"fuse[ .]", rest):
            point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), fields.split()[4])
            if but is None or point != os.fsencode(but):
                libc.umount2(point, _MNT_DETACH)


def main(argv: list[str]) -> int:
    """Run the command in new namespaces; return its exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready_read, ready_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ready_read)
        os.close(mapped_write)
        libc.prctl(_PR_SET_PDEATHSIG, _SIGINT)
        leave_fuse_mounts(libc)
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
            os.write(ready_write, os.strerror(ctypes.get_errno()).encode())
            os._exit(REFUSED)
        os.close(ready_write)
        if os.read(mapped_read, 1):
            os.execvp(argv[0], argv)
        os._exit(REFUSED)
    os.close(ready_write)
    os.close(mapped_read)
    refusal = os.read(ready_read, 1000).decode()
    if not refusal:
        try:
            for kind in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{kind}").write_text(f"0 0 {IDS}\n")
            os.write(mapped_write, b"x")
        except OSError as error:
            refusal = str(error)
    os.close(mapped_write)
    if refusal:
        print(f"no user namespace: {refusal}", file=sys.stderr)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except KeyboardInterrupt:  # for the command, too: it has the same terminal or got it from prctl
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return REFUSED if refusal else code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
