"""Bytes on their way between a file and the network: upload bodies, received bodies, checksums of file ranges.

Nothing here holds more than one block in memory: uploads are read from the page cache as the socket takes them, and
received blocks go straight to the file or buffer. Block sizes are measured (docs/architecture.md): receiving with one
recv(2) at a time costs the least, and lets a trickling server be noticed between two of them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from typing import Protocol

import google_crc32c

from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.object_errors import BadAnswer, SourceChanged, Stalled, TransferCancelled
from recfs.ports.objects import MIB, Cancel, Progress
from recfs.stores.s3.splice import SocketPipe, socket_pipe

SEND_BLOCK = 256 << 10
RECEIVE_BLOCK = 192 << 10
LAST_BYTES = 64 << 10
"""The end of a body is always read in the ordinary way, which knows what to make of it."""
TRICKLE_BYTES_PER_S = 1024
"""An answer that brings less than this over a whole read timeout has stalled, although single bytes still come."""


def read_range(fd: int, offset: int, length: int) -> Iterator[bytes]:
    """Blocks of a file range. Raises SourceChanged where the file ends early, IoFailure where it cannot be read."""
    end = offset + length
    while offset < end:
        block = _pread(fd, min(MIB, end - offset), offset)
        offset += len(block)
        yield block


def crc32c_of(fd: int, offset: int, length: int) -> bytes:
    """CRC32C (Castagnoli), big-endian as S3 writes it."""
    crc = 0
    for block in read_range(fd, offset, length):
        crc = google_crc32c.extend(crc, block)
    return crc.to_bytes(4, "big")


def checksum_of(algorithm: str, fd: int, offset: int, length: int) -> bytes:
    """ "CRC32C" or "SHA256", by S3's names, of a file range."""
    return crc32c_of(fd, offset, length) if algorithm == "CRC32C" else digest_of("sha256", fd, offset, length)


def digest_of(algorithm: str, fd: int, offset: int, length: int) -> bytes:
    """ "md5" or "sha256" of a file range."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for block in read_range(fd, offset, length):
        digest.update(block)
    return digest.digest()


class FileBody:
    """A range of a file as a request body, read once from its beginning: file-like for urllib3."""

    def __init__(
        self, fd: int, offset: int, length: int, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> None:
        self._fd, self._offset, self._length = fd, offset, length
        self._progress, self._cancel = progress, cancel
        self._position = 0

    def __len__(self) -> int:
        return self._length

    def rewind(self) -> None:
        """The whole of it is to go once more."""
        self._position = 0

    def read(self, amount: int | None = -1) -> bytes:
        """The next block. It may be more than asked for: urllib3 asks for 16 KiB, which costs CPU."""
        left = self._length - self._position
        amount = left if amount is None or amount < 0 else min(max(amount, SEND_BLOCK), left)
        if amount <= 0:
            return b""
        if self._cancel is not None and self._cancel():
            raise TransferCancelled("the upload was cancelled")
        block = _pread(self._fd, amount, self._offset + self._position)
        self._position += len(block)
        if self._progress is not None:
            self._progress(self._position)
        return block


class _RawBody(Protocol):
    """What is used of urllib3's response."""

    def read1(self, amt: int) -> bytes: ...

    def close(self) -> None: ...

    def release_conn(self) -> None: ...


def receive(
    raw: _RawBody,
    length: int,
    into: memoryview | int,
    at: int,
    *,
    patience_s: float,
    cancel: Cancel | None = None,
    name: str = "",
) -> int:
    """Take exactly *length* bytes of a response body into a buffer, or a file at offset *at*.

    The connection goes back to the pool only if the body was of just this length; otherwise it is closed. Raises
    BadAnswer, Stalled, TransferCancelled, OutOfSpace or IoFailure, and what urllib3 raises.
    """
    done = 0
    window_start, window_bytes = time.monotonic(), 0
    try:
        with socket_pipe(raw, into) if isinstance(into, int) else contextlib.nullcontext() as pipe:
            while done < length:
                left = length - done
                count = 0
                if pipe is not None and pipe.works and done and left > LAST_BYTES:
                    count = _piped(pipe, left - LAST_BYTES, at + done)
                if not count:
                    # One byte more than wanted: a body without a length must not go on behind our back.
                    block = raw.read1(min(RECEIVE_BLOCK, left + 1))
                    if not block:
                        raise BadAnswer(f"{name}: the answer ended after {done} of {length} bytes; recfs tries again")
                    if len(block) > left:
                        raise BadAnswer(f"{name}: more than the {length} bytes asked for came; recfs tries again")
                    _store(into, at, done, block)
                    count = len(block)
                done += count
                if cancel is not None and cancel():
                    raise TransferCancelled(f"{name}: the download was cancelled")
                now = time.monotonic()
                if now - window_start > patience_s:
                    if (done - window_bytes) < TRICKLE_BYTES_PER_S * patience_s and done < length:
                        raise Stalled(f"{name}: less than 1 KiB/s comes; recfs tries again; look at the network")
                    window_start, window_bytes = now, done
        if raw.read1(1):
            raise BadAnswer(f"{name}: more than the {length} bytes asked for came; recfs tries again")
    except BaseException:
        raw.close()
        raise
    raw.release_conn()
    return done


def _piped(pipe: SocketPipe, most: int, position: int) -> int:
    try:
        return pipe.move(most, position)
    except OSError as error:
        if error.filename is None:
            raise
        raise _unwritten(error) from error


def _store(into: memoryview | int, at: int, done: int, block: bytes) -> None:
    if isinstance(into, memoryview):
        into[done : done + len(block)] = block
        return
    view, position = memoryview(block), at + done
    while view:
        try:
            written = os.pwrite(into, view, position)
        except OSError as error:
            raise _unwritten(error) from error
        view, position = view[written:], position + written


def _unwritten(error: OSError) -> IoFailure | OutOfSpace:
    kind = OutOfSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else IoFailure
    return kind(f"cannot write fetched bytes to the local disk: {error.strerror}")


def _pread(fd: int, amount: int, offset: int) -> bytes:
    try:
        block = os.pread(fd, amount, offset)
    except OSError as error:
        # Left as an OSError, urllib3 would take it for trouble with the network, and recfs would try for ever.
        raise IoFailure(f"cannot read the file being uploaded at byte {offset}: {error.strerror}") from error
    if not block:
        raise SourceChanged(f"the file being uploaded ends at byte {offset} already: it changed meanwhile")
    return block
