"""The log guard: what recfs logs at WARNING or above in a test, the test has to have said that it would."""

from __future__ import annotations

import logging
import re

ECHOES = ("closed database", "disk I/O error", "Bad file descriptor")
"""What threads and tasks of a process that a test lets die may say after that: a real one would say nothing at all."""


class LogGuard(logging.Handler):
    """Collects the messages, and judges them at the end."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.expected: list[str] = []
        self.possible: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def verdict(self) -> str | None:
        """What is wrong: a message nobody expected, or an expected one that never came."""
        known = self.expected + self.possible
        surprises = [m for m in self.messages if not any(re.search(e, m) for e in known)]
        absent = [e for e in self.expected if not any(re.search(e, m) for m in self.messages)]
        lines = [f"unexpected: {message}" for message in surprises] + [f"never logged: {e}" for e in absent]
        return "\n".join(lines) or None


def somebody_died() -> None:
    """Tell the guard of the running test, if there is one, that a process of the test has died: its echoes may come."""
    for handler in logging.getLogger("recfs").handlers:
        if isinstance(handler, LogGuard):
            handler.possible += [echo for echo in ECHOES if echo not in handler.possible]
