"""Credentials that are read again: when a file they may come from changed, and when the server refuses those in use.

botocore reads a credentials file once, and a credential_process that names no end as well. What it refreshes by itself
(roles, web identities, containers) it goes on refreshing here: this stands around whatever its chain finds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

LOOK_S = 2.0
"""How often the files are looked at, at most."""
RENEW_S = 5.0
"""How often a refusal makes recfs ask the whole chain again, at most: it may be a program, or a request."""


class RotatingCredentials:
    """Stands for botocore's Credentials, with its signers and recfs's. Thread-safe."""

    method = "recfs"

    def __init__(
        self, load: Callable[[], Any], files: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*load* asks the chain anew; None if it finds nothing. *files*: where it may find them."""
        self._load, self._files, self._clock = load, files, clock
        self._lock = threading.Lock()
        self._current = load()
        self._seen, self._looked, self._renewed = self._stamps(), clock(), float("-inf")

    @property
    def found(self) -> bool:
        """Whether there are any."""
        return self._current is not None

    def _stamps(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_stamp(path) for path in self._files)

    def get_frozen_credentials(self) -> Any:
        """As botocore's: what to sign with, now."""
        if self._clock() - self._looked >= LOOK_S:
            with self._lock:
                self._looked = self._clock()
                if (stamps := self._stamps()) != self._seen:
                    self._seen = stamps
                    self._reload()
        return self._current.get_frozen_credentials()

    def get_deferred_property(self, name: str) -> Callable[[], Any]:
        """As botocore's: asked at the moment of a request."""
        return lambda: getattr(self.get_frozen_credentials(), name, None)

    def renew(self, refused: Any) -> bool:
        """The server refused *refused*; True if there are others by now."""
        with self._lock:
            if self._frozen() == refused and self._clock() - self._renewed >= RENEW_S:
                self._renewed = self._clock()
                self._seen = self._stamps()
                self._reload()
            return bool(self._frozen() != refused)

    def _frozen(self) -> Any:
        return None if self._current is None else self._current.get_frozen_credentials()

    def _reload(self) -> None:
        # A file that is just being written has none, or half of them: those in use stay until there are others.
        try:
            found = self._load()
        except Exception:  # of any provider's kind; the refusal that led here is what is told
            return
        if found is not None:
            self._current = found


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(os.path.expanduser(path))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


__all__ = ["LOOK_S", "RENEW_S", "RotatingCredentials"]
