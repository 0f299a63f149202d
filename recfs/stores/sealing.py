"""Files encrypted in the format of age (https://c2sp.org/age), for keys of which only the operator has the secret half.

pyrage's calls that take paths keep the interpreter's lock for as long as a file lasts. Those that read and write
through Python let it go every few KiB, so other threads hardly notice, and what passes is hashed on its way.
"""

from __future__ import annotations

import hashlib
import os
import select
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from recfs.core.naming import show_name
from recfs.errors import BackupDamaged, Interrupted, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyrage

CHUNK_BYTES = 1 << 20
_MAX_IDENTITIES_BYTES = 1 << 16
WRITER_S = 60.0
"""How long a pipe is waited for that is to give a backup; meanwhile nothing else has the store."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Size and SHA-256 (hexadecimal) of some bytes."""

    size_bytes: int
    sha256: str


class _Passing:
    """A file through which bytes pass, hashed on their way."""

    def __init__(self, file: BinaryIO, stopped: Callable[[], bool]) -> None:
        self._file = file
        self._stopped = stopped
        self._hash = hashlib.sha256()
        self._bytes = 0
        self.failed: Exception | None = None
        """What reading or writing met: pyrage makes an error of its own of it."""

    def _note(self, data: bytes) -> None:
        self._hash.update(data)
        self._bytes += len(data)

    def read(self, size: int = -1) -> bytes:
        with self._kept():
            data = self._file.read(size)
        self._note(data)
        return data

    def write(self, data: bytes) -> int:
        with self._kept():
            written = self._file.write(data)
        self._note(data)
        return written

    def flush(self) -> None:
        """Nothing is held back here."""

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            if self._stopped():
                raise Interrupted("it was stopped")
            yield
        except Exception as error:
            self.failed = error
            raise

    def digest(self) -> Digest:
        return Digest(self._bytes, self._hash.hexdigest())


def digest_of(source: BinaryIO, stopped: Callable[[], bool]) -> Digest:
    """What *source*, from where it is on, has. Raises Interrupted, OSError."""
    passing = _Passing(source, stopped)
    while passing.read(CHUNK_BYTES):
        pass
    return passing.digest()


def copy(source: BinaryIO, target: BinaryIO, stopped: Callable[[], bool]) -> Digest:
    """Copy as it is; what was copied. Raises Interrupted, OSError."""
    passing = _Passing(source, stopped)
    while data := passing.read(CHUNK_BYTES):
        target.write(data)
    return passing.digest()


def seal(
    source: BinaryIO, target: BinaryIO, recipients: Sequence[str], stopped: Callable[[], bool]
) -> tuple[Digest, Digest]:
    """Encrypt *source* into *target* for each of *recipients*; what was read and what was written.

    Raises Interrupted, OSError.
    """
    import pyrage

    keys = [pyrage.x25519.Recipient.from_str(each) for each in recipients]
    plain, sealed = _Passing(source, stopped), _Passing(target, stopped)
    try:
        pyrage.encrypt_io(plain, sealed, keys)
    except (pyrage.EncryptError, OSError) as error:
        raise (plain.failed or sealed.failed or error) from None
    return plain.digest(), sealed.digest()


def unseal(
    source: BinaryIO, target: BinaryIO, identities: Sequence[pyrage.x25519.Identity], stopped: Callable[[], bool]
) -> Digest:
    """Decrypt *source* into *target*; what was written. Raises Interrupted, OSError, BackupDamaged, InvalidArgument.

    InvalidArgument: none of *identities* is a key it was encrypted for.
    """
    import pyrage

    sealed, plain = _Passing(source, stopped), _Passing(target, stopped)
    try:
        pyrage.decrypt_io(sealed, plain, list(identities))
    except (pyrage.DecryptError, OSError) as error:  # the latter is what it makes of bytes that were changed
        if (failed := sealed.failed or plain.failed) is not None:
            raise failed from None
        if "No matching keys" in str(error):
            raise InvalidArgument("it was encrypted for other keys than those of --identity") from error
        raise BackupDamaged(f"it cannot be decrypted, for it is not as it was written ({error})") from error
    return plain.digest()


def source(file: Path) -> BinaryIO:
    """Open a backup that somebody named: a file, or a pipe that is written to soon. Raises InvalidArgument, OSError."""
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFIFO):
            raise InvalidArgument(f"{show_name(str(file))} is neither a file nor a pipe")
        if kind == stat.S_IFIFO:
            waiting = select.poll()
            waiting.register(fd, select.POLLIN)
            if not waiting.poll(WRITER_S * 1000):
                raise InvalidArgument(f"{show_name(str(file))} is a pipe, and nobody has written to it")
            os.set_blocking(fd, True)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def identities_in(file: Path) -> list[pyrage.x25519.Identity]:
    """The secret keys in a file as `age-keygen` writes it. Raises InvalidArgument."""
    import pyrage

    shown = show_name(str(file))
    try:
        with open(file, "rb") as opened:
            lines = opened.read(_MAX_IDENTITIES_BYTES).decode("ascii").splitlines()
    except OSError as error:
        raise InvalidArgument(f"--identity {shown}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"--identity {shown}: it is no file of secret keys, as `age-keygen -o` writes it"
        ) from error
    found = []
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            try:
                found.append(pyrage.x25519.Identity.from_str(line))
            except pyrage.IdentityError as error:  # the line is secret, perhaps: it is not told
                raise InvalidArgument(f"--identity {shown}: not every line is a secret key of age") from error
    if not found:
        raise InvalidArgument(f"--identity {shown}: there is no secret key in it")
    return found


__all__ = ["Digest", "copy", "digest_of", "identities_in", "seal", "source", "unseal"]
