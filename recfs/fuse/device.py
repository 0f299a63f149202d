"""/dev/fuse itself: how it is obtained, the FUSE_INIT handshake, backing files. The kernel's structs live here only.

Layouts and numbers are those of the kernel's include/uapi/linux/fuse.h (as of protocol 7.44, Linux 6.18).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FUSERMOUNT: Final = "fusermount3"
MOUNT_TIMEOUT_S: Final = 30.0
INIT_TIMEOUT_S: Final = 10.0
READ_BYTES: Final = 1 << 17
"""Room for FUSE_INIT. The kernel wants a multiple of what that needs, but only FUSE_MIN_READ_BUFFER (8 KiB)."""

_IN_HEADER = struct.Struct("=IIQQIIIHH")  # fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, extlen, padding
_OUT_HEADER = struct.Struct("=IiQ")  # fuse_out_header: len, error, unique
_FUSE_INIT = 26
_NOTIFY_RESEND = 7
_BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, uint32_t)
_BACKING_MAP = struct.Struct("=iIQ")  # fuse_backing_map: fd, flags, padding

# Offsets in fuse_init_in and fuse_init_out. Older protocols end earlier: fuse_init_in after 16 bytes before 7.36,
# fuse_init_out after 8 (before 7.5) or 24 bytes (before 7.23).
_MAX_READAHEAD = 8
_FLAGS = 12
_IN_FLAGS2 = 16
_MAX_BACKGROUND = 16
_CONGESTION_THRESHOLD = 18
_OUT_FLAGS2 = 32
_MAX_STACK_DEPTH = 36


class Init(enum.IntFlag):
    """The FUSE_* flags of INIT that are set or cleared here; bits above 31 travel in `flags2`."""

    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    WRITEBACK_CACHE = 1 << 16
    CACHE_SYMLINKS = 1 << 23
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37
    HAS_RESEND = 1 << 39


MASKS: Final = {
    "passthrough": Init.PASSTHROUGH,
    "killpriv": Init.HANDLE_KILLPRIV_V2,
    "names-alone": Init.READDIRPLUS_AUTO,
}
"""What RECFS_TEST_WITHOUT can take from the kernel's offer."""


class MountRefused(Exception):
    """fusermount3 would not mount; `str()` is what it said."""


# --- the descriptor --------------------------------------------------------------------------------------------------


def mount(mountpoint: Path, options: Iterable[str]) -> int:
    """Mount with fusermount3 and return the /dev/fuse descriptor, close-on-exec, FUSE_INIT waiting in it.

    The helper works for everybody: for root, and setuid for others; it sends the descriptor over the socket that
    _FUSE_COMMFD names (libfuse's lib/mount.c). Raises MountRefused, and OSError when that did not work at all.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            try:
                done = subprocess.run(
                    [FUSERMOUNT, "-o", ",".join(sorted(options)), "--", str(mountpoint)],
                    env=os.environ | {"_FUSE_COMMFD": str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    timeout=MOUNT_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise TimeoutError(errno.ETIMEDOUT, f"{FUSERMOUNT} did not end") from error
        if done.returncode != 0:
            raise MountRefused(done.stderr.strip() or f"{FUSERMOUNT} ended with status {done.returncode}")
        ours.setblocking(False)  # it has ended: what it did not send will not come
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise OSError(errno.EPROTO, f"{FUSERMOUNT} sent no descriptor")
    # Every child that inherited it would keep the mount alive after our death, and its users waiting.
    os.set_inheritable(fds[0], False)
    return fds[0]


def unmount(mountpoint: Path) -> None:
    """Take back a mount that came to nothing."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [FUSERMOUNT, "-u", "-z", "--", str(mountpoint)]
        subprocess.run(command, capture_output=True, timeout=MOUNT_TIMEOUT_S, check=False)


def read_init(fd: int) -> bytes:
    """Read the kernel's FUSE_INIT, which mount(2) has queued. Raises OSError if it is not there."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(INIT_TIMEOUT_S * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "the kernel sent no FUSE_INIT")
    request = os.read(fd, READ_BYTES)
    if len(request) < _IN_HEADER.size + _FLAGS + 4 or _IN_HEADER.unpack_from(request)[1] != _FUSE_INIT:
        raise OSError(errno.EPROTO, "the kernel's first request is not FUSE_INIT")
    return request


# --- FUSE_INIT -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wants:
    """What to ask of the kernel beyond what libfuse asks, if it offers it."""

    passthrough: bool = True
    names_alone: bool = False
    """Whether listings may be asked for without attributes (READDIR), where nobody looks at the files."""
    max_background: int = 12_288
    """Read-ahead, asynchronous requests and RELEASE under way at once, of all users (kernel default 12).

    More than requests may wait at once (state/waits.py): else those of one user, for a slow S3, would be everybody's.
    """
    congestion_threshold: int = 48
    """From so many on the kernel leaves out read-ahead that nobody waits for yet."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What an INIT answer tells the kernel."""

    flags: int
    max_background: int = 0
    max_readahead_bytes: int = 0


def _get(data: bytes | bytearray, offset: int, kind: str = "I") -> int:
    return int(struct.unpack_from(f"={kind}", data, offset)[0])


def _put(data: bytearray, offset: int, value: int, kind: str = "I") -> None:
    struct.pack_into(f"={kind}", data, offset, value)


def offered(request: bytes) -> int:
    """Return the INIT flags the kernel offers in *request*, all 64 of them."""
    body = _IN_HEADER.size
    flags = _get(request, body + _FLAGS)
    if flags & Init.INIT_EXT and len(request) >= body + _IN_FLAGS2 + 4:
        flags |= _get(request, body + _IN_FLAGS2) << 32
    return flags


def mask_offer(request: bytes, names: Iterable[str]) -> bytes:
    """Take the flags that `MASKS` knows by *names* out of the kernel's offer."""
    masked = bytearray(request)
    body = _IN_HEADER.size
    kept = ~int(sum(MASKS.get(name, 0) for name in set(names)))
    flags = offered(request)
    _put(masked, body + _FLAGS, flags & kept & 0xFFFFFFFF)
    if flags & Init.INIT_EXT and len(request) >= body + _IN_FLAGS2 + 4:
        _put(masked, body + _IN_FLAGS2, (flags & kept) >> 32)
    return bytes(masked)


def parse_init_answer(answer: bytes) -> Negotiated:
    """Read an INIT answer. Raises OSError if it is a refusal."""
    length, error, _ = _OUT_HEADER.unpack_from(answer)
    body = _OUT_HEADER.size
    if error or length != len(answer) or length < body + 8:
        raise OSError(-error or errno.EPROTO, "libfuse did not accept the kernel's FUSE_INIT")
    if length < body + 24:
        return Negotiated(0)
    flags = _get(answer, body + _FLAGS)
    if flags & Init.INIT_EXT and length >= body + _OUT_FLAGS2 + 4:
        flags |= _get(answer, body + _OUT_FLAGS2) << 32
    return Negotiated(flags, _get(answer, body + _MAX_BACKGROUND, "H"), _get(answer, body + _MAX_READAHEAD))


def edit_init(request: bytes, answer: bytes, wants: Wants) -> bytes:
    """Return libfuse's *answer* to the FUSE_INIT *request* with what *wants* names, as far as it was offered.

    The writeback cache is cleared: the kernel gives no passthrough beside it (process_init_reply), and what it
    holds back would never reach the quota. A refusal is returned as it is.
    """
    if _OUT_HEADER.unpack_from(answer)[1] or len(answer) < _OUT_HEADER.size + 24:
        return answer
    body = _OUT_HEADER.size
    edited = bytearray(answer)
    offer = offered(request)
    flags = parse_init_answer(answer).flags & ~(Init.WRITEBACK_CACHE | Init.PASSTHROUGH)
    # Symlinks here never change: they are made, read and removed.
    flags |= offer & (Init.HANDLE_KILLPRIV_V2 | Init.CACHE_SYMLINKS)
    if wants.names_alone and flags & Init.DO_READDIRPLUS:
        flags |= offer & Init.READDIRPLUS_AUTO
    if len(answer) >= body + _MAX_STACK_DEPTH + 4:
        deep = wants.passthrough and offer & Init.INIT_EXT and offer & Init.PASSTHROUGH
        if deep:
            flags |= Init.INIT_EXT | Init.PASSTHROUGH
        _put(edited, body + _MAX_STACK_DEPTH, 1 if deep else 0)  # 1: the backing file lies on a real file system
        _put(edited, body + _OUT_FLAGS2, flags >> 32)
    _put(edited, body + _FLAGS, flags & 0xFFFFFFFF)
    _put(edited, body + _MAX_READAHEAD, _get(request, _IN_HEADER.size + _MAX_READAHEAD))
    _put(edited, body + _MAX_BACKGROUND, wants.max_background, "H")
    _put(edited, body + _CONGESTION_THRESHOLD, wants.congestion_threshold, "H")
    return bytes(edited)


def ask_to_resend(device: int) -> None:
    """Have the kernel send again what was read and never answered (FUSE_NOTIFY_RESEND, Linux 6.9). Raises OSError.

    It marks the numbers of those requests (FUSE_UNIQUE_RESEND), and expects the mark in the answers. Only before
    anything else is read: it would be handed out twice.
    """
    os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size, _NOTIFY_RESEND, 0))


# --- backing files and read-ahead ------------------------------------------------------------------------------------


def backing_open(device: int, fd: int) -> int:
    """Register the file behind *fd* for passthrough; return its backing id, > 0. Raises OSError.

    Needs CAP_SYS_ADMIN. The kernel opens the file anew for each user, with their flags, by the path of *fd*.
    """
    return int(fcntl.ioctl(device, _BACKING_OPEN, bytearray(_BACKING_MAP.pack(fd, 0, 0)), True))


def backing_close(device: int, backing_id: int) -> None:
    """Give a backing id back; files open through it stay open. Raises OSError."""
    fcntl.ioctl(device, _BACKING_CLOSE, bytearray(struct.pack("=I", backing_id)), True)


def set_read_ahead(number: int, wanted_bytes: int) -> int:
    """Ask for this much read-ahead on the mount with this device *number* (st_dev); return what it has, 0 if unknown.

    Only root may write it. The kernel starts with what INIT settled, 128 KiB at most.
    """
    setting = Path(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb")
    with contextlib.suppress(OSError):
        setting.write_text(str(wanted_bytes // 1024))
    try:
        return int(setting.read_text()) * 1024
    except (OSError, ValueError):
        return 0
