"""Builds what looks into the files of a store in use: what is in recordings, and whether they are whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recfs.media.checks import Checks, CheckSettings
from recfs.media.runner import Runner
from recfs.services.probing import PART, Probing
from recfs.state.media import MediaRows

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.disk.committed import CommittedFiles
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree


@dataclass(frozen=True, slots=True)
class Contents:
    """What looks into files."""

    rows: MediaRows
    runner: Runner
    checks: Checks
    probing: Probing | None
    """None: nothing is looked into ([media] enabled = false)."""

    def services(self, *, mounted: bool) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What has to run, by the name of its part; *mounted* False: for a command alone."""
        return [(PART, self.probing.run)] if self.probing is not None and mounted else []

    def reconfigure(self, config: Config) -> None:
        """Go by other settings from the next look on. Atomic."""
        self.checks.settings = CheckSettings.of(config.media)
        self.rows.upload_wait_s = config.media.upload_wait

    def as_json(self) -> dict[str, Any] | None:
        """For `recfs status`; None: nothing is looked into."""
        return self.probing.as_json() if self.probing is not None else None


def media_rows(config: Config, tree: Tree) -> MediaRows:
    """Have all that is committed from now on queued: before a start repairs anything."""
    section = config.media
    rows = MediaRows(tree.behind, tree.catalogue, tree.clock, enabled=section.enabled)
    rows.upload_wait_s = section.upload_wait
    tree.events.subscribe(rows)
    tree.behind.subscribe(rows)
    return rows


def build(
    config: Config, rows: MediaRows, tree: Tree, committed: CommittedFiles, known: Callable[[FileNode], None]
) -> Contents:
    """Put it together. *known* is told of each file once it is known what it is."""
    section = config.media
    runner = Runner(section.workers, section.user)
    checks = Checks(runner, CheckSettings.of(section))
    probing = Probing(rows, checks, tree, committed, workers=section.workers, known=known) if section.enabled else None
    return Contents(rows, runner, checks, probing)


__all__ = ["Contents", "build", "media_rows"]
