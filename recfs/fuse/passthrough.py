"""The FUSE session: mounted and negotiated by us instead of libfuse, so that the kernel may do more by itself.

Passthrough (Linux 6.9) lets the kernel read and write the file behind a file of ours without asking: the answer to
OPEN names a backing file. Neither that nor the INIT flags for it can be said through pyfuse3, so:

1. `device.mount` gets the /dev/fuse descriptor; libfuse is given a socket in its place ("/dev/fd/N").
2. The kernel's FUSE_INIT goes into the socket, libfuse's answer comes out of it, is edited, and goes to the kernel.
3. The descriptor is put under the socket's number. libfuse never knew.
4. Open answers are staged in the C extension (`interpose`).
5. Requests pyfuse3 does not know are handed over by the extension (`extra_requests`), if the operations answer them.

Each of these may be impossible: an old kernel, no extension, no fusermount3, no CAP_SYS_ADMIN. The file system then
works as with plain pyfuse3, only slower, and `Acceleration.why_not` says the reason and the remedy (`acceleration.py`).

For tests: RECFS_TEST_WITHOUT, a comma-separated list, hides what this machine has. "passthrough" and "killpriv" take
the flag out of the kernel's offer; "reply" leaves the extension unloaded.

Blocking or not
---------------
pyfuse3 reads a request after the descriptor was readable. In between the request can vanish: the kernel takes back
what nobody has read when its caller is killed. A blocking read would then hold the GIL, and with it the whole
process, until somebody happens to send another request. A non-blocking one returns EAGAIN, which pyfuse3 3.5 takes
for the end (`_session_loop`: only EINTR is tried again). The extension turns EAGAIN into EINTR, so with it in effect
the descriptor is non-blocking, and without it blocking, as with plain pyfuse3.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, Unpack

import pyfuse3
import trio

from recfs.errors import Busy, MountError
from recfs.fuse import acceleration, device, from_memory, interpose, loop
from recfs.fuse.acceleration import Acceleration
from recfs.fuse.extra_requests import ExtraRequests, Handlers
from recfs.fuse.standstill.gate import GATE, none_in_hand
from recfs.state import waits

log = logging.getLogger("recfs.fuse")
Args = TypeVarTuple("Args")
Result = TypeVar("Result")

READ_AHEAD_BYTES: Final = 1 << 20
"""Doubles cold sequential reads through the daemon, compared with the kernel's 128 KiB."""

ANSWER_S: Final = 0.3
"""How long requests in hand are waited for before those that wait for something are given up."""
GIVE_UP_S: Final = 5.0
"""In which a request has to end that waits for something no more. The disk and the catalogue take less."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """A session that an earlier daemon leaves to this one."""

    device: int
    """The /dev/fuse descriptor; it is taken over."""
    request: bytes
    """The FUSE_INIT that the kernel sent once."""
    answer: bytes
    """What it was told."""
    acceleration: Acceleration
    given_up: bool
    """Whether requests were read that nobody has answered."""


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Not that an answer came too late: its caller was killed, or all is unmounted."""
    return "fuse_reply_* failed" not in record.msg or os.strerror(errno.ENOENT) not in map(str, record.args or ())


class FuseSession:
    """One mounted FUSE session: device, INIT negotiation, backing ids. One at a time, like pyfuse3's.

    Invariants:
    1. `_device` is a descriptor of ours until `close`; -1 where libfuse has mounted by itself.
    2. From `open` on, libfuse owns the descriptor `_socket_fd` and closes it in `pyfuse3.close`.
    """

    acceleration: Acceleration

    def __init__(self, mountpoint: Path, options: set[str], *, wanted: str, inherited: Inherited | None = None) -> None:
        self.acceleration = Acceleration(wanted)
        self._inherited = inherited
        self._mountpoint = mountpoint
        self._options = set(options)
        self._reply = interpose.reply
        self._extra: ExtraRequests | None = None
        self._limiter = trio.CapacityLimiter(1)  # its calls wait for our own request loop
        self._device = -1
        self._socket_fd = -1
        self._ours: socket.socket | None = None
        self._request = b""
        self._answer = b""
        self._given_up = False
        self._flags = 0
        self._extended = self._reply.extensions() if self._reply is not None else 0  # sessions, before this one
        self._plain_because: str | None = None
        self._below: int | None = None  # st_dev of what the mount covers
        self._initialised = False

    # -- start ---

    def open(self, operations: pyfuse3.Operations) -> None:
        """Mount, or take over what is mounted, and initialise pyfuse3; blocks for a moment. Raises MountError."""
        logging.getLogger("pyfuse3").addFilter(_is_worth_telling)
        with contextlib.suppress(OSError):
            self._below = os.stat(self._mountpoint).st_dev
        if self._reply is not None and isinstance(operations, Handlers):
            self._extra = ExtraRequests(self._reply, operations)
            self._reply.extend(self._extra)
        if self._reply is not None:
            self._reply.on_interrupt(waits.interrupted)
            waits.ask_for_senders(self._reply.sender)
        from_memory.begin(self._reply, operations)
        if self._inherited is not None:
            self._take_over(operations, self._inherited)
            return
        try:
            self._device = device.mount(self._mountpoint, self._options)
        except device.MountRefused as error:
            raise self._cannot_mount(error) from error
        except OSError as error:
            self._open_plain(operations, f"{device.FUSERMOUNT} gave no descriptor ({error}); install the package fuse3")
            return
        try:
            self._request = device.mask_offer(device.read_init(self._device), interpose.without())
            self._open_on_socket(operations)
        except (OSError, RuntimeError) as error:
            self._close_descriptors()
            device.unmount(self._mountpoint)
            self._open_plain(operations, f"libfuse did not take over the mount ({error})")
            return

    def _open_on_socket(self, operations: pyfuse3.Operations) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        theirs.setblocking(False)
        self._socket_fd = theirs.detach()
        pyfuse3.init(operations, f"/dev/fd/{self._socket_fd}", set())
        self._initialised = True

    def _take_over(self, operations: pyfuse3.Operations, left: Inherited) -> None:
        if self._reply is None:
            raise MountError(acceleration.why_no_extension())
        if left.acceleration.wanted != self.acceleration.wanted:
            raise MountError(
                f"{self._mountpoint} was mounted with passthrough = {left.acceleration.wanted!r}, and the configuration"
                f" says {self.acceleration.wanted!r} now; unmount, and mount again"
            )
        self._device, self._request, self._given_up = left.device, left.request, left.given_up
        try:
            self._open_on_socket(operations)
        except (OSError, RuntimeError) as error:
            raise self._cannot_mount(error) from error

    def _open_plain(self, operations: pyfuse3.Operations, reason: str) -> None:
        log.info("mounting without passthrough: %s", reason)
        self._plain_because = reason
        try:
            pyfuse3.init(operations, str(self._mountpoint), self._options)
        except RuntimeError as error:
            raise self._cannot_mount(error) from error
        self._initialised = True

    def _cannot_mount(self, error: Exception) -> MountError:
        return MountError(f"{self._mountpoint} cannot be mounted ({error}); `recfs doctor` tells what is missing")

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until unmounted. Started when the mount answers. Raises MountError if it never does."""
        await self.negotiate()
        if self._given_up:
            device.ask_to_resend(self._device)
            self._given_up = False
        answers = False
        async with trio.open_nursery() as nursery:
            if self._extra is not None:
                self._extra.nursery = nursery
            nursery.start_soon(self._requests, nursery.cancel_scope)
            await self._tune()
            answers = True
            task_status.started()
        if not answers:
            raise MountError(f"{self._mountpoint} was unmounted before it answered; start recfs again")

    async def _requests(self, scope: trio.CancelScope) -> None:
        await loop.serve(extension=self._reply)
        scope.cancel()

    async def negotiate(self) -> None:
        """Let libfuse answer FUSE_INIT in a socket, edit the answer, then put the device in the socket's place.

        A mount that was taken over has been told already: raises MountError where it would be told something else.
        Does nothing when it is called again.
        """
        ours, device_fd = self._ours, self._device
        if ours is None:
            return
        GATE.open()
        ended = trio.Event()

        async def first_stage() -> None:
            # One worker: it is the only one that `notify_closing` can be counted on to wake.
            await loop.serve(min_tasks=1, max_tasks=1, extension=self._reply)
            ended.set()

        received = self._reply.receives() if self._reply is not None else 0
        ours.send(self._request)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first_stage)
            await trio.lowlevel.wait_readable(ours)
            answer = ours.recv(device.READ_BYTES)
            while not ended.is_set():  # the worker has answered, and is on its way to waiting for the socket again
                trio.lowlevel.notify_closing(self._socket_fd)
                await trio.lowlevel.checkpoint()
        wants = device.Wants(passthrough=self.acceleration.wanted != "off", names_alone=self._lists_names_alone())
        edited = device.edit_init(self._request, answer, wants)
        try:
            negotiated = device.parse_init_answer(edited)
            if self._inherited is None:
                os.write(device_fd, edited)
        except OSError as error:
            raise MountError(f"{self._mountpoint}: the kernel and libfuse did not come together ({error})") from error
        if self._inherited is not None and edited != self._inherited.answer:
            raise MountError(
                f"{self._mountpoint}: this recfs, or its libfuse, asks the kernel for other features than the mount was"
                f" made with; it takes an unmount and a new mount"
            )
        if self._reply is not None and self._reply.receives() > received:
            os.set_blocking(device_fd, False)
        os.dup2(device_fd, self._socket_fd, inheritable=False)
        ours.close()
        self._ours = None
        self._flags, self._answer = negotiated.flags, edited
        if self._inherited is not None:
            self.acceleration = self._inherited.acceleration
            return
        self.acceleration = replace(
            self.acceleration,
            killpriv=bool(negotiated.flags & device.Init.HANDLE_KILLPRIV_V2),
            max_background=negotiated.max_background,
        )

    def _lists_names_alone(self) -> bool:
        """Whether the kernel may ask for names alone: where the extension has its handlers in pyfuse3's session."""
        left = self._inherited
        if left is not None and not device.parse_init_answer(left.answer).flags & device.Init.READDIRPLUS_AUTO:
            return False  # an earlier daemon could not, and the kernel was told so
        return self._reply is not None and self._reply.extensions() > self._extended

    async def _tune(self) -> None:
        """Wait for the mount to answer, and raise its read-ahead."""
        try:
            status = await self._call(os.stat, self._mountpoint)
        except OSError as error:
            log.info("%s: %s", self._mountpoint, error)
            return
        if status.st_dev != self._below:  # else it is unmounted already, and this would be another's read-ahead
            found = await self._call(device.set_read_ahead, status.st_dev, READ_AHEAD_BYTES)
            self.acceleration = replace(self.acceleration, read_ahead_bytes=found)

    async def _call(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        # Abandoned on cancellation: it may wait for the request loop, which is cancelled as well.
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=True)

    async def probe(self, fd: int) -> Acceleration:
        """Find out what works and keep it in `acceleration`. *fd*: a regular file on the store. While `serve` runs."""
        wanted = self.acceleration.wanted
        effective = await self._interposed()
        why_not = None if wanted == "off" else self._obstacle(fd, effective)
        on = wanted != "off" and why_not is None
        self.acceleration = replace(
            self.acceleration,
            reads=on,
            writes=on and wanted != "read",
            why_not=why_not,
            open_flags=effective,
            interrupts=effective,
        )
        return self.acceleration

    async def _interposed(self) -> bool:
        """Whether pyfuse3's open answers go through the extension: open the top directory and see."""
        if self._reply is None:
            return False
        before = self._reply.replies()
        try:
            await self._call(_open_directory, self._mountpoint)
        except OSError as error:
            log.info("%s: %s", self._mountpoint, error)
        return bool(self._reply.replies() > before)

    def _obstacle(self, fd: int, effective: bool) -> str | None:
        """What stands in the way of passthrough, and the remedy."""
        if self._reply is None:
            return acceleration.why_no_extension()
        if self._plain_because is not None:
            return self._plain_because
        if not self._flags & device.Init.PASSTHROUGH:
            return acceleration.why_no_passthrough()
        refused = acceleration.why_not_backed(lambda: self.backing_close(self.backing_open(fd)))
        if refused is not None:
            return refused
        return None if effective else acceleration.NOT_EFFECTIVE

    # -- while it runs ---

    def backing_open(self, fd: int) -> int:
        """Register the file behind *fd*; return its backing id, > 0. Raises OSError.

        One id per inode at a time: the kernel refuses a second one (EBUSY) while files are open through the first.
        """
        if self._device < 0:
            raise OSError(errno.EOPNOTSUPP, "this mount has no backing files")
        return device.backing_open(self._device, fd)

    def backing_close(self, backing_id: int) -> None:
        """Give a backing id back; what is open through it stays so. Never raises."""
        if self._device < 0:
            return
        try:
            device.backing_close(self._device, backing_id)
        except OSError as error:
            # A daemon that died may have given it back, and not have lived to say so.
            if error.errno != errno.ENOENT or self._inherited is None:
                log.warning("backing id %d was not given back: %s", backing_id, error)

    def stage(self, fh: int, open_flags: int, backing_id: int = 0) -> None:
        """Say what the very next OPEN, CREATE or OPENDIR answer, for *fh*, carries; nothing without the extension.

        To be called last in the handler: pyfuse3 sends the answer in the same step (`fuse_open_async` and its like
        await nothing after the handler). *open_flags* replace those of pyfuse3.FileInfo. With a backing id
        FOPEN_PASSTHROUGH is added, and FOPEN_KEEP_CACHE and FOPEN_CACHE_DIR, which the kernel refuses beside it, go.
        """
        if self._reply is not None:
            self._reply.stage(fh, open_flags, backing_id)

    # -- leaving the mount to another daemon ---

    def told(self) -> Inherited:
        """The session for whoever goes on with it; the descriptor stays this one's."""
        return Inherited(self._device, self._request, self._answer, self.acceleration, self._given_up)

    def why_not_left(self) -> str | None:
        """What keeps this mount from being left to another daemon, and the remedy."""
        if self._reply is None:
            return acceleration.why_no_extension()
        if self._plain_because is not None:
            return self._plain_because
        if not self.acceleration.open_flags:
            return acceleration.NOT_EFFECTIVE
        if not device.offered(self._request) & device.Init.HAS_RESEND:
            return acceleration.why_no_resending()
        return None

    async def hold(self) -> None:
        """Read no more requests, and answer those in hand; what waits long is given up, to be sent again by the kernel.

        Raises Busy, with everything going on as before, when some are neither answered nor waiting.
        """
        GATE.close()
        try:
            if not await none_in_hand(ANSWER_S):
                # Nobody will read what is answered from here on: whoever reads next, asks for it once more.
                nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nowhere, self._socket_fd, inheritable=False)
                os.close(nowhere)
                self._given_up = True
                if not await none_in_hand(GIVE_UP_S, waits.interrupt_all):
                    raise Busy(f"{GATE.in_hand} requests are being worked on and do not come to an end")
        except BaseException:
            self.go_on()
            raise

    def go_on(self) -> None:
        """Read requests again, after `hold`. Atomic."""
        if self._given_up:
            os.dup2(self._device, self._socket_fd, inheritable=False)
            device.ask_to_resend(self._device)
            self._given_up = False
        GATE.open()

    def leave(self) -> Inherited:
        """Have `serve` return, after `hold`; what another daemon goes on with. The mount stays. Atomic."""
        GATE.end()
        trio.lowlevel.notify_closing(self._socket_fd)
        # Of its own: the session's are closed, and a thread that tells the kernel something may still be at it.
        kept = os.dup(self._device)
        return Inherited(kept, self._request, self._answer, self.acceleration, self._given_up)

    # -- end ---

    def close(self) -> None:
        """Let go of the session, after `serve` has ended. Unmounting is not its business. May be called again."""
        if self._extra is not None and self._reply is not None:
            self._extra = None
            self._reply.extend(None)  # its requests belong to libfuse's session
            self._reply.on_interrupt(None)
            from_memory.end(self._reply)
            waits.ask_no_more(self._reply.sender)
        if self._initialised:
            self._initialised = False
            self._socket_fd = -1
            pyfuse3.close(unmount=False)
        self._close_descriptors()

    def abandon(self) -> None:
        """Let go of a session that was left to another daemon.

        libfuse's part of it stays: a thread that tells the kernel something may be waiting in there, for a lock that
        is held until the next daemon answers.
        """
        self._initialised = False
        self._socket_fd = -1
        self.close()

    def _close_descriptors(self) -> None:
        if self._ours is not None:
            self._ours.close()
            self._ours = None
        for fd in (self._device, self._socket_fd):
            if fd >= 0:
                os.close(fd)
        self._device = self._socket_fd = -1


def _open_directory(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
