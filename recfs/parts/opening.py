"""Takes a store into use, mounted or not, and its parts down in order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.catalogue.connection import is_full
from recfs.catalogue.earlier import is_earlier
from recfs.catalogue.headroom import give_up
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import RecfsError, StoreError, StoreFull
from recfs.parts.building import build
from recfs.parts.made import NoKernelFiles
from recfs.state.problems import reason_of
from recfs.stores import presence, restoring
from recfs.stores.local import LocalStore

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.parts.made import Parts
    from recfs.ports.kernel import KernelCache, KernelFiles
    from recfs.ports.objects import ObjectStore

log = logging.getLogger("recfs.daemon")


@contextlib.asynccontextmanager
async def opened(
    config: Config, kernel: KernelCache, files: KernelFiles | None = None, objects: ObjectStore | None = None,
    *, restores: bool = False, lock_fd: int = -1, kept_open: frozenset[int] = frozenset(),
    rows_come_first: bool = False,
) -> AsyncIterator[Parts]:  # fmt: skip
    """Lock the root, open and repair the store, build the parts; on leaving, write everything and close.

    *lock_fd*, *kept_open*: the root's lock, and which files are open for writing (inode numbers), where an earlier
    daemon leaves a mount to this one. *rows_come_first*: that daemon answered nothing that was not in the catalogue.

    *restores*: whoever opens it goes on with a restore of the catalogue that is under way, as far as the bucket goes.
    """
    store = LocalStore(config.root)
    if restoring.under_way(store.private) is None:
        presence.require(config.root, existing=config.existing)
    with _usable(config):
        store.open(lock_fd)
    async with contextlib.AsyncExitStack() as ends:
        ends.callback(_at_the_end, store.close)
        with _usable(config):
            if restoring.finish(store.private) is not None and config.s3 is not None and not restores:
                raise StoreError(
                    f"store {config.root}: its catalogue was restored, and has not been compared with the bucket yet:"
                    f" run `recfs restore-catalogue` again (--without-bucket does without)"
                )
            catalogue = _catalogue(store)
            ends.callback(_at_the_end, catalogue.close)
            parts = await build(
                config, store, catalogue, kernel, files or NoKernelFiles(), objects, kept_open, rows_come_first
            )
        try:
            yield parts
        finally:
            with trio.CancelScope(shield=True):
                _at_the_end(parts.backing_files.pool.close)
                _at_the_end(parts.timekeeper.keep)
                _at_the_end(parts.work.reuse.processing.close)
                try:
                    await _write_last(parts)
                finally:
                    _at_the_end(parts.generations.close)


def require_no_change_of_schema(config: Config) -> None:
    """Raise StoreError where a start would bring the catalogue up to date: no earlier version could go on after that.

    For a mount that another daemon serves, and is to take back should this one fail.
    """
    if is_earlier(LocalStore(config.root).catalogue_path):
        raise StoreError(
            f"store {config.root}: this version of recfs changes the schema of its catalogue, and so cannot go on"
            f" with a mount that an earlier one serves: unmount, and mount again"
        )


def _catalogue(store: LocalStore) -> SqliteCatalogue:
    """Open it; on a full disk with the room that was put aside for it. Raises StoreError."""
    expect_new = not store.has_files()
    for make_room in (store.drop_emergency_reserve, partial(give_up, store.catalogue_path)):
        if not is_full(store.catalogue_path):
            with contextlib.suppress(StoreFull):
                return open_catalogue(store.catalogue_path, expect_new=expect_new)
        make_room()
    return open_catalogue(store.catalogue_path, expect_new=expect_new)


@contextlib.contextmanager
def _usable(config: Config) -> Iterator[None]:
    """Whatever keeps the store as a whole from being opened is a StoreError with its reason, and no traceback."""
    try:
        yield
    except RecfsError:
        raise
    except Exception as error:
        log.debug("the store cannot be opened", exc_info=error)
        raise StoreError(f"store {config.root} cannot be opened: {reason_of(error)}") from error


def _at_the_end(close: Callable[[], object]) -> None:
    """Close one part; what it meets does not keep the others open."""
    try:
        close()
    except Exception as error:
        log.error("while closing: %s", reason_of(error))


async def _write_last(parts: Parts) -> None:
    """Write what is still dirty. Raises StoreError where that cannot be done, as on a full disk."""
    try:
        await parts.behind.flush()
        await parts.generations.end()
    except Exception as error:
        raise StoreError(
            f"the catalogue of {parts.store.root} could not be written to the end: {reason_of(error)}. The next start"
            f" finds again what was closed"
        ) from error
