"""What `recfs://` gives out for a file: one that is read, one that is written aside until it is closed, and over these
text and what is compressed.
"""

from __future__ import annotations

import io
import os
import sys
from types import TracebackType
from typing import Any, BinaryIO, cast

from recfs.client.writing import Draft


class Input(io.BufferedReader):
    """A file that is read, and knows its size: fsspec asks for it where parts of files are read."""

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self.fileno()).st_size


class Output(io.BufferedIOBase):
    """What is written to a draft: shown when it is closed, or when its transaction ends."""

    def __init__(self, draft: Draft, mode: str, autocommit: bool) -> None:
        self._draft = draft
        self._exclusive = mode == "xb"
        self._autocommit = autocommit
        self._over = False
        self._earlier = sys.exception()
        self.mode = mode
        try:
            if self._exclusive and draft.taken():
                raise FileExistsError(draft.target)
            self._file: BinaryIO = draft.open()
        except BaseException:
            self._over = True
            draft.discard()
            raise

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: zip and parquet writers go back."""
        return True

    def write(self, data: Any) -> int:
        """As that of files."""
        if self._over:
            return memoryview(data).nbytes  # what text had still in its buffer when all was given up
        return self._file.write(data)

    def tell(self) -> int:
        """As that of files."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As that of files."""
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """As that of files."""
        return self._file.truncate(size)

    def flush(self) -> None:
        """Hand over to the kernel what was written; nobody sees it yet."""
        if not self._over and not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        """Show it, unless a transaction is to; raises what that does, and then nothing is left.

        An `OpenFile` of fsspec, and what pandas has around one, close their file when their block has raised, and do
        not tell it so: then nothing is left, either.
        """
        if self.closed:
            return
        if not self._over and _is_left_for_an_error(self._earlier):
            self.discard()
        try:
            if not self._over and self._autocommit:
                self.commit()
            elif not self._over:
                self._file.close()
        finally:
            super().close()

    def commit(self) -> None:
        """Show it."""
        self._over = True
        try:
            self._draft.prove()
            self._draft.publish(replace=not self._exclusive)
        finally:
            self._draft.discard()

    def discard(self) -> None:
        """Leave nothing."""
        self._over = True
        self._draft.discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True) and self._autocommit:
            self.discard()  # nobody has closed it: it may be half of a file


def _is_left_for_an_error(earlier: BaseException | None) -> bool:
    """Whether it is the `__exit__` of a block that raised by which a file is closed; *earlier*: what was being handled
    when the file was opened. Whoever closes a file while it handles an error itself has it shown.
    """
    error = sys.exception()
    if error is None or error is earlier:
        return False
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name in ("__exit__", "__aexit__"):
            given = [*frame.f_locals.values()]
            given += [each for value in given if type(value) is tuple for each in value]
            if any(each is error for each in given):
                return True
    return False


class Compressed(io.BufferedIOBase):
    """What is compressed on its way to such a file: compressors write to what they are given, and do not close it."""

    def __init__(self, compressor: Any, file: Output) -> None:
        self._compressor = compressor
        self._file = file
        self._is_ended = False
        self.mode = file.mode

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """As that of files."""
        return cast(int, self._compressor.write(data))

    def tell(self) -> int:
        """How much came, where the compressor knows."""
        return cast(int, self._compressor.tell())

    def flush(self) -> None:
        """Hand over what the compressor gives by now."""
        if not self._is_ended:
            self._compressor.flush()

    def close(self) -> None:
        """Write what is left, and show it, as `Output.close`."""
        if self._is_ended:
            return
        self._is_ended = True
        try:
            self._compressor.close()
            self._file.close()
        except BaseException:
            self._file.discard()
            raise
        finally:
            super().close()

    def discard(self) -> None:
        """Leave nothing."""
        self._file.discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_ended", True):
            self.discard()  # nobody has closed it


class Text(io.TextIOWrapper):
    """Text over such a file."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._give_up()
        super().__exit__(kind, error, trace)

    def __del__(self) -> None:
        if not self.closed:
            self._give_up()

    def _give_up(self) -> None:
        if isinstance(self.buffer, (Output, Compressed)):
            cast("Output | Compressed", self.buffer).discard()


__all__ = ["Compressed", "Input", "Output", "Text"]
