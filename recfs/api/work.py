"""The services whose work commands start, wait for and tell of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.fs.session import Sessions
    from recfs.fs.trash import Trash
    from recfs.services.access.users import Users
    from recfs.services.backups import Backups
    from recfs.services.clearing.sweeper import Sweeper
    from recfs.services.clearing.versions import VersionSweep
    from recfs.services.deriving.asking import Asking
    from recfs.services.deriving.chunking import Chunking
    from recfs.services.deriving.deriving import Deriving
    from recfs.services.draining import Draining
    from recfs.services.expiry import Expiry
    from recfs.services.far.archiving import Archiving
    from recfs.services.far.claiming import Claiming
    from recfs.services.far.local_copies import LocalCopies
    from recfs.services.far.multiparts import Multiparts
    from recfs.services.far.queue_changes import QueueChanges
    from recfs.services.far.tier_run import TierRun
    from recfs.services.importing.runs import Importing
    from recfs.services.orphans import Orphans
    from recfs.services.probing import Probing
    from recfs.services.recount import Recount
    from recfs.services.reuse.dedupe import Dedupe
    from recfs.services.reuse.numbering import Numbering
    from recfs.services.reuse.processing import ProcessingCache
    from recfs.services.verification.runs import Verifications
    from recfs.services.verification.scrub import Scrub
    from recfs.services.watcher import Watcher


@dataclass(frozen=True, slots=True)
class FarWork:
    """Services behind the S3 commands."""

    copies: LocalCopies
    tier_run: TierRun
    queue: QueueChanges
    claiming: Claiming


@dataclass(frozen=True, slots=True)
class UpkeepWork:
    """Services behind the commands that look after files."""

    sweeper: Sweeper
    trash: Trash
    expiry: Expiry
    archiving: Archiving | None
    """None without [s3], and without a rule for it."""
    backups: Backups
    multiparts: Multiparts | None
    """None without [s3]."""
    orphans: Orphans
    versions: VersionSweep
    watcher: Watcher | None
    """None where it is turned off."""
    verifications: Verifications
    scrub: Scrub | None
    """None where the configuration has none."""
    importing: Importing | None
    """None without [s3]."""


@dataclass(frozen=True, slots=True)
class ReuseWork:
    """Services behind what saves work, for programs as for people: each request has the rights of whoever asks."""

    sessions: Sessions
    operators: frozenset[int]
    writers: frozenset[int]
    """Whose results are given to everybody, besides the operators'."""
    numbering: Numbering
    processing: ProcessingCache
    dedupe: Dedupe


@dataclass(frozen=True, slots=True)
class MediaWork:
    """Services behind the commands that make something of recordings."""

    asking: Asking
    deriving: Deriving
    chunking: Chunking


@dataclass(frozen=True, slots=True)
class Work:
    """Services behind all commands."""

    upkeep: UpkeepWork
    draining: Draining
    recount: Recount
    users: Users
    reuse: ReuseWork
    media: MediaWork
    probing: Probing | None
    """None: nothing is looked into ([media] enabled = false)."""
    far: FarWork | None
    """None without [s3]."""
