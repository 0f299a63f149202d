"""The daemon as the gateway knows it: questions on its control socket, each answered or given up in a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recfs.client.asking import SILENCE_S, Question
from recfs.client.errors import DaemonUnreachable
from recfs.client.waiting import abandoned
from recfs.web.limiters import Limiters


class Daemon:
    """Asks the daemon by the socket of [gateway], or another one."""

    def __init__(self, socket: Path | None, limiters: Limiters) -> None:
        self._socket = socket
        self._limiters = limiters

    @property
    def known(self) -> bool:
        """Whether there is one to ask."""
        return self._socket is not None

    async def ask(self, method: str, /, *, patience_s: float = SILENCE_S, **params: Any) -> Any:
        """Ask, and give the answer. Raises DaemonUnreachable, DaemonRefused: both are rows of the problems.

        Who is cancelled gives the question up at once. *patience_s*: for what takes the daemon longer.
        """
        if self._socket is None:
            raise DaemonUnreachable("no control socket is configured")
        question = Question(self._socket, patience_s)
        async with self._limiters.waits:
            return await abandoned(lambda: question.ask(method, params), question.stop)


__all__ = ["Daemon"]
