"""A log that the same thing over and over cannot fill, and that lines of others are not lost in.

Records are told apart by kind: where they come from, their level and template, what raised them and where, and whose
files they concern. Of each kind the first few lines within a window are written, the rest are counted, and the count is
written when the window is over, whether or not another record comes. DEBUG is not limited: who asks for everything
gets it. Whatever a handler raises (a full disk, a file that was taken away) ends with the line, which is counted too.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

WINDOW_S = 10.0
BURST = 10
"""Lines of one kind in a window."""
KINDS = 4096
"""So many kinds are kept in memory; above, those are forgotten of which nothing is counted."""

_USER = re.compile(r"\b(?:users?|temp)[/ ]([0-9A-Za-z-]{1,36})")


@dataclass(slots=True)
class _Kind:
    began_s: float
    written: int = 0
    dropped: int = 0
    sample: logging.LogRecord | None = None


def kind_of(record: logging.LogRecord) -> Hashable:
    """What makes two records the same thing over and over."""
    args = record.args if isinstance(record.args, tuple) else (record.args,)
    words = tuple(_word(arg) for arg in args)
    place: Hashable = None
    if record.exc_info and record.exc_info[0] is not None:
        trace = record.exc_info[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = (
            record.exc_info[0].__qualname__,
            trace.tb_frame.f_code if trace else None,
            trace.tb_lineno if trace else 0,
        )
    whose = _USER.search(record.getMessage())
    return record.name, record.levelno, str(record.msg), words, place, whose[1] if whose else None


def _word(arg: object) -> Hashable:
    """An argument that names a kind of thing, and not a thing: a class of error, a method, an error's name."""
    if isinstance(arg, BaseException):
        return type(arg).__qualname__
    return arg if isinstance(arg, str) and arg.isidentifier() and len(arg) <= 32 else None


class FloodHandler(logging.Handler):
    """Hands records on to another handler, few of each kind. Raises nothing."""

    def __init__(self, target: logging.Handler, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(target.level)
        self._target = target
        self._clock = clock
        self._kinds: dict[Hashable, _Kind] = {}
        self._timer: threading.Timer | None = None
        self._lost = 0
        target.handleError = self._not_written  # type: ignore[method-assign]  # as logging's documentation has it

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        try:
            if record.levelno <= logging.DEBUG or self._admits(record):
                self._write(record)
        except Exception:
            self._lost += 1

    def _admits(self, record: logging.LogRecord) -> bool:
        now, key = self._clock(), kind_of(record)
        kind = self._kinds.get(key)
        if kind is not None and now - kind.began_s >= WINDOW_S:
            self._tell(kind, now)
            kind = None
        if kind is None:
            if len(self._kinds) >= KINDS:
                self._kinds = {each: other for each, other in self._kinds.items() if other.dropped}
            kind = self._kinds[key] = _Kind(now)
        if kind.written < BURST:
            kind.written += 1
            return True
        kind.dropped += 1
        kind.sample = record
        if self._timer is None:
            self._tell_in(WINDOW_S)
        return False

    def _tell_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self.tell)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no more threads: the next line tries again
            return
        self._timer = timer

    def tell(self) -> None:
        """Write the counts of the windows that are over. Raises nothing."""
        self.acquire()
        try:
            self._timer = None
            now = self._clock()
            for key, kind in list(self._kinds.items()):
                if now - kind.began_s >= WINDOW_S:
                    self._tell(kind, now)
                    del self._kinds[key]
            if any(kind.dropped for kind in self._kinds.values()):
                self._tell_in(WINDOW_S / 2)
        except Exception:
            self._lost += 1
        finally:
            self.release()

    def _tell(self, kind: _Kind, now: float) -> None:
        sample = kind.sample
        if not kind.dropped or sample is None:
            return
        text = f"… and {kind.dropped:,} more like it in the last {max(now - kind.began_s, 1):.0f} s, the last one: "
        kind.dropped, kind.sample = 0, None
        self._write(_line(sample, text + sample.getMessage()))

    def _write(self, record: logging.LogRecord) -> None:
        lost, self._lost = self._lost, 0
        try:
            if lost:
                self._target.handle(
                    _line(record, f"lines of this log that could not be written: {lost:,}", logging.WARNING)
                )
            if not self._lost:
                self._target.handle(record)
        except Exception:
            self._lost += 1
        if self._lost:
            self._lost += lost

    def _not_written(self, record: logging.LogRecord) -> None:
        self._lost += 1

    def flush(self) -> None:
        """Flush what was written."""
        try:
            self._target.flush()
        except Exception:
            self._lost += 1

    def close(self) -> None:
        """Write the counts that are still to come, and close."""
        try:
            now = self._clock()
            for kind in self._kinds.values():
                self._tell(kind, now)
            self._kinds.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._target.close()
        except Exception:
            self._lost += 1
        super().close()


def _line(like: logging.LogRecord, text: str, level: int | None = None) -> logging.LogRecord:
    return logging.LogRecord(like.name, level or like.levelno, like.pathname, like.lineno, text, None, None)
