"""What becomes of each file of the old tree, from what was found and what the database says; nothing is guessed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recfs.core.layout import PATH_MAX_BYTES
from recfs.core.migration.claims import Claim, Evidence, Evidences, File, Left, Named
from recfs.core.migration.contenders import Contest, entry, recording_of
from recfs.core.migration.names import text_of
from recfs.core.migration.oldtree import Kind, Place, Slot, is_media
from recfs.core.migration.plan import MOVED, Action, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from recfs.core.migration.contenders import Digest
    from recfs.core.migration.rows import Row

_SHARED = b"shared/thumbnails/"
_Thing = tuple[str, str, Slot, bytes]


@dataclass(slots=True)
class Decided:
    """What becomes of all files."""

    entries: list[Entry] = field(default_factory=list)
    """By source."""
    columns: dict[bytes, dict[str, str]] = field(default_factory=dict)
    """By the directory of a recording: what columns of the database become, paths below the mount."""


def decide(
    files: Iterable[File],
    rows: Sequence[Row] | None,
    named: Named,
    digest: Digest,
    expired: Mapping[tuple[str, str], str],
) -> Decided:
    """Decide of all *files*.

    *rows* are None without a database; *named* is what their paths name; *expired* are recordings (user, recording)
    that are not to be migrated, with the reason.
    """
    return _Matching(rows, named, digest, expired).decided(files)


class _Matching:
    def __init__(
        self, rows: Sequence[Row] | None, named: Named, digest: Digest, expired: Mapping[tuple[str, str], str]
    ) -> None:
        self._rows = rows
        self._named = named
        self._digest = digest
        self._expired = expired
        self._evidences = Evidences(rows, named)
        self._claims: dict[_Thing, list[Claim]] = defaultdict(list)
        self._entries: list[Entry] = []
        self._columns: dict[bytes, dict[str, str]] = {}

    def decided(self, files: Iterable[File]) -> Decided:
        templates: dict[bytes, File] = {}
        thumbnails: list[tuple[File, Place]] = []
        nameless: list[tuple[File, Place]] = []
        for file in (*files, *self._named.elsewhere):
            found = self._evidences.of(file)
            if isinstance(found, Left):
                self._leave(found)
            elif isinstance(found, Claim):
                self._claims[found.thing].append(found)
            elif found.kind is Kind.TEMPLATE:
                templates[found.inner] = file
                self._entries.append(Entry(Action.COPY, file.size, _SHARED + found.inner, file.path, "template"))
            elif found.kind is Kind.THUMBNAIL:
                thumbnails.append((file, found))
            elif found.kind is Kind.OF_RECORDING:
                nameless.append((file, found))
            else:
                self._leave(Left(file, Action.UNMATCHED, "no row names it, and no rule is for its directory"))
        self._by_stem(nameless)
        for file, place in thumbnails:
            self._entries.append(self._thumbnail(file, place, templates.get(place.inner)))
        self._entries += self._of_recordings()
        entries = sorted(_possible(self._entries), key=lambda each: each.source)
        return Decided(entries, self._columns_of(entries))

    def _leave(self, left: Left) -> None:
        self._entries.append(Entry(left.action, left.file.size, b"", left.file.path, left.reason))

    def _thumbnail(self, file: File, place: Place, template: File | None) -> Entry:
        """A user's; a copy of the template of its name is seen without being copied."""
        target = f"users/{place.user}/thumbnails/".encode("ascii") + place.inner
        if template is None:
            return Entry(Action.COPY, file.size, target, file.path, "the user's own thumbnail")
        if template.size == file.size:
            mine = self._digest(file)
            if isinstance(mine, str):
                return Entry(Action.UNREADABLE, file.size, b"", file.path, f"it cannot be read: {mine}")
            if mine == self._digest(template):
                return Entry(Action.SKIP, file.size, b"", file.path, f"same bytes as {text_of(template.path)}")
        return Entry(Action.COPY, file.size, target, file.path, f"it differs from {text_of(template.path)}")

    def _by_stem(self, nameless: list[tuple[File, Place]]) -> None:
        groups: dict[_Thing, list[tuple[File, Row]]] = defaultdict(list)
        for file, place in nameless:
            slot = place.slot
            if slot is None or slot is Slot.TRANSCRIPTION or place.user is None or not is_media(file.path):
                self._leave(Left(file, Action.UNMATCHED, "no row names it, and no id of a recording is in its path"))
                continue
            rows = self._evidences.rows_of_stem(file, place.user)
            if not rows:
                self._leave(Left(file, Action.UNMATCHED, "no row names it"))
            elif len(rows) > 1:
                told = ", ".join(row.id for row in rows[:5])
                self._leave(Left(file, Action.AMBIGUOUS, f"several recordings have its name: {told}"))
            else:
                groups[place.user, rows[0].id, slot, b""].append((file, rows[0]))
        for thing, group in groups.items():
            for file, row in self._of_right_size(thing, group):
                user, recording, slot, inner = thing
                reason = f"the name of recording {row.id}"
                self._claims[thing].append(Claim(file, user, recording, slot, inner, Evidence.STEM, reason))

    def _of_right_size(self, thing: _Thing, group: list[tuple[File, Row]]) -> Iterator[tuple[File, Row]]:
        """Those that have the size which the database tells, where it tells one and names no file that is there."""
        is_there = thing in self._claims
        for file, row in group:
            size = row.sizes.get(thing[2])
            if is_there or size is None or size == file.size:
                yield file, row
            else:
                told = f"it has the name of recording {row.id}, but by the database {size:,} bytes"
                self._leave(Left(file, Action.UNMATCHED, told))

    def _of_recordings(self) -> Iterator[Entry]:
        contest = Contest(self._digest)
        for (user, recording, *_), group in self._claims.items():
            why = self._expired.get((user, recording))
            if why is not None:
                for claim in group:
                    yield entry(claim, Action.SKIP, b"", f"recording {recording} has expired: {why}")
                continue
            for each in contest.entries(sorted(group, key=lambda claim: claim.file.path)):
                if isinstance(each, Left):
                    self._leave(each)
                else:
                    yield each

    def _columns_of(self, entries: Iterable[Entry]) -> dict[bytes, dict[str, str]]:
        """What the columns of the database become."""
        if self._rows is None:
            return {}
        found: dict[bytes, dict[str, str]] = defaultdict(dict)
        targets = {each.source: each for each in entries if each.target}
        for path, rows in self._named.files.items():
            if path in targets:
                for row, slot, _ in rows:
                    if slot is not Slot.TRANSCRIPTION:  # of which a file in another part says nothing
                        found[row.where][slot.value] = text_of(targets[path].target)
        for (user, recording, slot, _), group in self._claims.items():
            where = recording_of(user, recording)
            for claim in group:
                each = targets.get(claim.file.path)
                if each is not None and each.action is Action.COPY:
                    path = where + b"/" + slot.stem if slot is Slot.TRANSCRIPTION else each.target
                    found[where][slot.value] = text_of(path)
        return found


def _possible(entries: list[Entry]) -> Iterator[Entry]:
    """The entries, but for targets that no file can have beside the others: these are left to a person."""
    wanted = [each.target for each in entries if each.action in MOVED]
    folders = {folder for target in wanted for folder in _above(target)}
    times: dict[bytes, int] = defaultdict(int)
    for target in wanted:
        times[target] += 1
    refused = {
        target: why
        for target in wanted
        if (
            why := f"its target would have {len(target):,} bytes, more than a path may have"
            if len(target) > PATH_MAX_BYTES
            else f"its target {text_of(target)} is a directory of other files"
            if target in folders
            else f"its target {text_of(target)} is that of several files"
            if times[target] > 1
            else ""
        )
    }
    for each in entries:
        if each.target in refused:
            yield Entry(Action.AMBIGUOUS, each.size, b"", each.source, refused[each.target])
        else:
            yield each


def _above(target: bytes) -> Iterator[bytes]:
    """The directories above a target, within a recording or among thumbnails."""
    at = target.rfind(b"/")
    while at > 0:
        yield target[:at]
        at = target.rfind(b"/", 0, at)


__all__ = ["Decided", "decide"]
