"""Makes a store's catalogue anew when no daemon runs: takes the root, builds the parts, puts the result in place."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from recfs import remote
from recfs.catalogue import rebuilding
from recfs.catalogue.salvage.old import open_old
from recfs.clock import SystemClock
from recfs.core.generation import Mark
from recfs.errors import NotAStore, OutOfSpace, RecfsError, StoreError, StoreFull
from recfs.fs.rebuild import BEGUN, Findings, Known, Options, Rebuild
from recfs.fs.rebuild.oldrows import OldRows
from recfs.fs.rebuild.site import Site, Tell
from recfs.ports.batch import Batch
from recfs.state.problems import reason_of
from recfs.stores import restoring
from recfs.stores.local import LocalStore
from recfs.stores.mounted import require_bare
from recfs.stores.presence import as_whom
from recfs.tier.queue.unanswered import Unanswered

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.ports.objects import ObjectStore

_MADE = "what recfs rebuild has made"
_ASIDE = "catalogue.db.before-rebuild-"
log = logging.getLogger("recfs.rebuild")


def rebuild(config: Config, options: Options, tell: Tell) -> Findings:
    """Make the catalogue anew. Raises RootBusy where a daemon runs, StoreError, ObjectStoreError."""
    return trio.run(rebuilt, config, options, tell)


async def rebuilt(
    config: Config, options: Options, tell: Tell = lambda phase, done, total: None, objects: ObjectStore | None = None
) -> Findings:
    """As `rebuild`, with trio running; *objects* in the place of the configured bucket."""
    store = LocalStore(config.root)
    with _told(config):
        _require_something(config)
        require_bare(store.root)
        store.open()
        try:
            ended = restoring.under_way(store.private)
            restoring.finish(store.private)
            if ended is not None and ended.settled:
                return _end(store, ended, Findings(ended_before=True))
            return await _run(config, options, tell, store, objects)
        finally:
            store.close()


def _require_something(config: Config) -> None:
    root = config.root
    if not any((root / name).exists() for name in (".recfs", "users", "shared", "temp")):
        raise NotAStore(
            f"nothing of a store lies at {root}: is its disk mounted? If the disk is new, and everything is in S3, make"
            f" {root / 'users'} first"
        )


async def _run(
    config: Config, options: Options, tell: Tell, store: LocalStore, objects: ObjectStore | None
) -> Findings:
    path, boot = store.catalogue_path, store.boot_id()
    old_facts = rebuilding.facts_of(path)
    clock = SystemClock(old_facts if options.salvage else {}, boot)
    objects = objects or remote.connect(config, Unanswered(clock))
    if config.s3 is None and "s3" in old_facts and not options.without_s3:
        raise StoreError(
            f"files of {config.root} are in {old_facts['s3']}, and the configuration has no [s3]: name it with"
            f" --config, or do without what is there (--without-s3)"
        )
    mark = Mark.decode(store.tree_mark())
    url = config.s3.url if config.s3 is not None else None
    of = json.dumps({"options": options.text(), "bucket": url, "mark": mark.count if mark is not None else None})
    catalogue = rebuilding.open_new(path)
    begun = (await catalogue.meta()).get(BEGUN)
    if begun is not None and begun != of:
        log.info(
            "what an earlier rebuild had done does not count: it was asked for something else, or the store changed"
        )
        catalogue.close()
        rebuilding.discard(path)
        catalogue = rebuilding.open_new(path)
    old = open_old(path) if options.salvage else None
    old_rows = OldRows(old)
    try:
        await catalogue.apply(Batch(meta={BEGUN: of}))
        site = Site(
            store, catalogue, objects, old_rows, options, config.route, config.commit.hash_threads,
            config.s3.threads if config.s3 is not None else 1, clock,
            frozenset({0, os.geteuid(), *([config.operator] if config.operator is not None else [])}), tell,
            numbers_tell=old_facts.get("identity") == store.identity(),
        )  # fmt: skip
        findings = await Rebuild(site, Known(old_facts, mark, boot, url)).run()
        findings.nothing_salvaged = options.salvage and (
            old is None or (not findings.salvaged and old_rows.unreadable > 0)
        )
        if findings.unseen.count and not options.leave_out:
            return findings
        await catalogue.apply(Batch(meta=clock.facts()))
    finally:
        if old is not None:
            old.close()
        catalogue.close()
    return _place(store, findings, clock.now_ns())


def _place(store: LocalStore, findings: Findings, now_ns: int) -> Findings:
    """The new catalogue, closed, takes the place of the old one: as one that is put back (`stores/restoring.py`)."""
    new = rebuilding.finished(store.catalogue_path)
    when = datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
    owner = os.stat(store.private)
    with contextlib.suppress(PermissionError):  # root makes that of another user
        os.chown(new, owner.st_uid, owner.st_gid)
    # A second name: without its note, what has the first one is taken for nothing.
    os.link(new, store.private / restoring.NEXT)
    restoration = restoring.Restoration(_MADE, f"{_ASIDE}{when}", settled=True)
    restoring.place(store.private, restoration)
    return _end(store, restoration, findings)


def _end(store: LocalStore, restoration: restoring.Restoration, findings: Findings) -> Findings:
    """It has its name: what is left is to forget how it was made."""
    rebuilding.discard(store.catalogue_path)
    before = store.private / restoration.aside
    findings.moved_to = str(before) if before.exists() else None
    findings.in_place = True
    return findings


@contextlib.contextmanager
def _told(config: Config) -> Iterator[None]:
    """What ends a rebuild is an error with its reason and what helps."""
    again = "nothing is lost: `recfs rebuild` goes on where it was"
    try:
        yield
    except OutOfSpace as error:
        raise StoreFull(f"store {config.root}: {error}; free some room; {again}") from error
    except RecfsError:
        raise
    except OSError as error:
        raise StoreError(f"store {config.root}: {reason_of(error)}; {as_whom(error) or again}") from error
