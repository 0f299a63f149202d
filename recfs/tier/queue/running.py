"""How far the work on rows of the S3 queue is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Running:
    """What of a row is being done right now."""

    what: str = ""
    done_bytes: int = 0
    """Of the parts that are confirmed; without parts, what has gone out."""
    parts: dict[int, int] = field(default_factory=dict)
    """What has gone out of each part under way; set by its thread."""

    @property
    def sent_bytes(self) -> int:
        """What has gone out."""
        return self.done_bytes + sum(list(self.parts.values()))
