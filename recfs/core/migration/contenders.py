"""Which of several files a recording is given where it has room for one; what becomes of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recfs.core.layout import NAME_MAX_BYTES
from recfs.core.migration.claims import Claim, Evidence, File, Left, stem_of
from recfs.core.migration.names import parted, text_of
from recfs.core.migration.oldtree import Slot
from recfs.core.migration.plan import Action, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Digest = Callable[[File], bytes | str]
    """The sha256 of a file's bytes, or why it cannot be read."""

_RECORDINGS: Final = "users/{}/recordings/{}"


class Contest:
    """Decides about the files of one recording that would have one target. *digest* is asked where sizes are equal."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest

    def entries(self, group: Sequence[Claim]) -> Iterator[Entry | Left]:
        """What becomes of them all."""
        if len(group) == 1:
            yield entry(group[0], Action.COPY, target_of(group[0]), group[0].reason)
            return
        readable: list[Claim] = []
        for claim in group:
            why = self._unreadable(claim, group)
            if why:
                yield Left(claim.file, Action.UNREADABLE, f"it cannot be read: {why}")
            else:
                readable.append(claim)
        if readable:
            yield from self._among(readable)

    def _among(self, group: list[Claim]) -> Iterator[Entry | Left]:
        strongest = max(claim.evidence for claim in group)
        best = [claim for claim in group if claim.evidence == strongest]
        if not all(self._same(best[0], each) or _twins(best[0], each) for each in best[1:]):
            listed = ", ".join(sorted(text_of(claim.file.path) for claim in best)[:5])
            for claim in group:
                told = f"{_whose(claim)} has one {claim.slot.word}, and these differ: {listed}"
                yield Left(claim.file, Action.AMBIGUOUS, told)
            return
        # What has one name in both places is one thing made twice. The newest counts, of equally new ones what the
        # database names.
        contest = [claim for claim in group if claim in best or _twins(best[0], claim)]
        winner = max(contest, key=lambda claim: (claim.file.mtime_ns, claim.evidence))
        equals = [claim for claim in contest if self._same(claim, winner)]
        winner = max(equals, key=lambda claim: (claim.evidence, claim.file.mtime_ns))
        target = target_of(winner)
        yield entry(winner, Action.COPY, target, winner.reason + _instead_of(winner, best))
        aside: list[tuple[Claim, bytes]] = []
        for claim in group:
            if claim is winner:
                continue
            if self._same(claim, winner):
                yield entry(claim, Action.DUPLICATE, target, f"same bytes as {text_of(winner.file.path)}")
            elif claim not in contest:
                told = f"{_whose(claim)} has another {claim.slot.word}: {text_of(winner.file.path)}"
                yield Left(claim.file, Action.UNMATCHED, told)
            elif twin := next((each for each in aside if self._same(each[0], claim)), None):
                yield entry(claim, Action.DUPLICATE, twin[1], f"same bytes as {text_of(twin[0].file.path)}")
            else:
                beside = aside_of(target_of(claim), len(aside))
                aside.append((claim, beside))
                yield entry(claim, Action.ASIDE, beside, f"it differs from {text_of(winner.file.path)}, which is newer")

    def _unreadable(self, claim: Claim, group: Sequence[Claim]) -> str:
        if sum(each.file.size == claim.file.size for each in group) < 2:
            return ""
        found = self._digest(claim.file)
        return found if isinstance(found, str) else ""

    def _same(self, one: Claim, other: Claim) -> bool:
        if one.file.size != other.file.size:
            return False
        if one.file.inode is not None and one.file.inode == other.file.inode:
            return True
        return self._digest(one.file) == self._digest(other.file)


def _twins(one: Claim, other: Claim) -> bool:
    """Whether both are of one name, in two places."""
    folders = {claim.file.path.rpartition(b"/")[0] for claim in (one, other)}
    return len(folders) == 2 and stem_of(one.file) == stem_of(other.file)


def _whose(claim: Claim) -> str:
    return f"recording {claim.recording} (user {claim.user})"


def _instead_of(winner: Claim, best: Sequence[Claim]) -> str:
    if winner.evidence is Evidence.DATABASE or best[0].evidence is not Evidence.DATABASE:
        return ""
    return f"; newer than {text_of(best[0].file.path)}, which the database names"


def recording_of(user: str, recording: str) -> bytes:
    """The directory of a recording, below the mount."""
    return _RECORDINGS.format(user, recording).encode("ascii")


def target_of(claim: Claim) -> bytes:
    """Where a file goes that its recording is given, below the mount."""
    within = recording_of(claim.user, claim.recording)
    if claim.slot is Slot.TRANSCRIPTION:
        return b"/".join((within, claim.slot.stem, claim.inner))
    extension = parted(claim.file.path.rpartition(b"/")[2])[1] or claim.slot.extension
    return b"%b/%b.%b" % (within, claim.slot.stem, extension)


def aside_of(target: bytes, number: int) -> bytes:
    """A name beside *target* for what is older: `audio.older.mp3`, `audio.older-2.mp3`."""
    folder, _, name = target.rpartition(b"/")
    stem, dot, extension = name.rpartition(b".")
    if not dot or not stem:
        stem, dot, extension = name, b"", b""
    told = b".older" + (b"-%d" % (number + 1) if number else b"")
    room = NAME_MAX_BYTES - len(told) - len(dot) - len(extension)
    if len(stem) > room:
        stem = stem[: max(room, 1)].decode("utf-8", "ignore").encode() or stem[: max(room, 1)]
    return b"%b/%b%b%b%b" % (folder, stem, told, dot, extension)


def entry(claim: Claim, action: Action, target: bytes, reason: str) -> Entry:
    """The plan's line for it."""
    return Entry(action, claim.file.size, target, claim.file.path, reason)


__all__ = ["Contest", "aside_of", "entry", "recording_of", "target_of"]
