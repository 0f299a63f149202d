"""What each file of a made-up tree is to become: known when it is made, and kept outside the tree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recfs.core.migration.escapes import escaped, unescaped
from recfs.core.migration.plan import Action

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class File:
    """One name of the old tree that is no directory."""

    source: bytes
    """Path below the old tree."""
    becomes: Action
    target: bytes
    """Path below the mount; for `aside` what it begins with, a directory; for what is left or skipped empty."""
    kind: str
    """What is special about it, in one word or two; `plain` if nothing."""
    size: int
    sha256: str
    """Empty where there are no bytes to read: links, pipes."""
    mtime_ns: int


@dataclass(slots=True)
class Truth:
    """All that is known of a made-up tree."""

    old: bytes = b""
    """Absolute path of the tree."""
    database: bytes = b""
    """Absolute path of the platform's database."""
    files: list[File] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)
    """Rows with a path where no file is, by id of the recording, with the kind."""
    expiries: dict[str, str] = field(default_factory=dict)
    """When recordings expire that are migrated, by their path in the mount: ISO 8601, UTC."""
    expired: set[str] = field(default_factory=set)
    """Recordings that have expired, by the path that they would have in the mount."""

    def counts(self) -> Mapping[Action, tuple[int, int]]:
        """Files and bytes by what becomes of them."""
        files: Counter[Action] = Counter()
        sizes: Counter[Action] = Counter()
        for each in self.files:
            files[each.becomes] += 1
            sizes[each.becomes] += each.size
        return {action: (files[action], sizes[action]) for action in Action if files[action]}

    def kinds(self) -> Mapping[str, int]:
        """How many files there are of each kind."""
        return Counter(each.kind for each in self.files)

    def write(self, path: Path) -> None:
        """Write it as JSON into a new file; names of any bytes are written as in a plan.

        Raises FileExistsError where there is anything already, also a link that somebody else may have made.
        """
        document: dict[str, Any] = {
            "format": _FORMAT,
            "old": escaped(self.old),
            "database": escaped(self.database),
            "missing": self.missing,
            "expiries": self.expiries,
            "expired": sorted(self.expired),
            "files": [
                asdict(each) | {"source": escaped(each.source), "target": escaped(each.target)} for each in self.files
            ],
        }
        with path.open("x", encoding="utf-8") as file:  # O_EXCL follows no link (open(2))
            file.write(json.dumps(document, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read what `write` wrote. Raises ValueError for anything else."""
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ValueError(f"{path} is not the truth about a tree that scripts/old-tree made")
        return cls(
            unescaped(document["old"]),
            unescaped(document["database"]),
            [
                File(
                    **each
                    | {
                        "source": unescaped(each["source"]),
                        "target": unescaped(each["target"]),
                        "becomes": Action(each["becomes"]),
                    }
                )
                for each in document["files"]
            ],
            {int(row): kind for row, kind in document["missing"].items()},
            document["expiries"],
            set(document["expired"]),
        )


__all__ = ["File", "Truth"]
