"""What a store wants of its S3 server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.ports.objects import ARCHIVE_CLASSES

if TYPE_CHECKING:
    from recfs.config import Config


@dataclass(frozen=True, slots=True)
class Wants:
    """What a configuration makes use of."""

    classes: frozenset[str] = frozenset()
    """Storage classes that new objects get."""
    archive: bool = False
    """Objects come to lie in archive classes, by upload or by transition."""
    transitions: bool = False
    tags: bool = False
    sse: str = "none"

    @classmethod
    def of(cls, config: Config) -> Wants:
        """Those of a configuration with [s3]."""
        section = config.s3
        if section is None:
            return cls()
        routed = {rule.storage_class for rule in config.route if rule.to == "s3"}
        classes = {name for name in {section.storage_class, *routed} if name is not None}
        later = {each.storage_class for each in config.lifecycle.transitions}
        return cls(
            frozenset(classes), bool((classes | later) & ARCHIVE_CLASSES), bool(later), bool(section.tags), section.sse
        )
