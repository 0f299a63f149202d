"""A store taken into use by a command when no daemon runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import trio

from recfs.api.answers import Answers
from recfs.api.asking import acts_for
from recfs.api.control import Peer
from recfs.api.observing import acts_of
from recfs.config import config_for_root
from recfs.errors import ControlError, first_error_alone
from recfs.parts import DRAIN_S, NoKernelCache, opened

if TYPE_CHECKING:
    from recfs.config import Config


class Offline:
    """A store taken into use by a command, nothing mounted. Each call starts, answers and finishes what it began."""

    def __init__(self, config: Config) -> None:
        # Defaults are nobody's decision: what the store's own configuration has its trash keep is not given up. What a
        # shell has in its environment need not be what the daemon had.
        is_known = config not in (config_for_root(config.root), config_for_root(config.root, os.environ))
        self._config = config if is_known else config.giving_nothing_up()

    def call(self, method: str, **params: Any) -> Any:
        """Answer one control method. Raises RecfsError, KeyboardInterrupt."""
        try:
            with first_error_alone():
                return trio.run(self._call, method, params)
        except* KeyboardInterrupt:
            pass
        raise KeyboardInterrupt  # alone, as an error

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        async with opened(self._config, NoKernelCache()) as parts, trio.open_nursery() as nursery:
            await parts.serve(nursery, s3=False)  # whoever sets a quota does not want to wait for uploads
            answers = Answers(
                self._config, parts.store, parts.vfs, parts.tier, parts.committer, parts.publisher, parts.work,
                parts.timekeeper, parts.reports, parts.observing, None, lambda: None, parts.recovered,
            )  # fmt: skip
            handler = answers.handlers().get(method)
            if handler is None:
                raise ControlError(f"{method} needs a running daemon")
            observer = acts_of(parts.observing)
            failed = ""
            try:
                with acts_for(method, os.getuid(), os.getgid(), os.getpid(), "control"):
                    return await handler(params)
            except Exception as error:
                failed = type(error).__name__
                raise
            finally:
                if observer is not None:
                    observer(method, params, Peer(os.getpid(), os.getuid(), os.getgid()), failed)
                with trio.move_on_after(DRAIN_S, shield=True):
                    await parts.work.draining.drain(uploads=False)
                parts.behind.meta("clean", "1")
                nursery.cancel_scope.cancel()


@contextlib.contextmanager
def offline(config: Config) -> Iterator[Offline]:
    """The store's control methods without a daemon. Raises RootBusy at the first call if one runs after all."""
    yield Offline(config)
