"""The sweeps that look for orphans: bytes without a row and rows without bytes, on the disk and in the bucket.

Three of them, which do the same and differ in what they do about it: "orphans" tells, "orphans-adopt" makes files of
bytes, "orphans-delete" has go what is certainly nobody's. Everything is looked at twice: once to know what there is,
and whether it is not rather the disk that is missing; then, where anything is to be done, once more, acting on each
where it is found. Nothing is remembered between the two, so that neither memory nor a death in between matters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from recfs.core.sweeping import Schedule
from recfs.core.units import format_size
from recfs.core.upkeep.leftovers import Deed, Finding, Mode, Now, Where, judge, judge_missing, too_many_missing
from recfs.errors import IoFailure
from recfs.fs.leftovers.local import Gone, Lying
from recfs.ports.object_errors import ObjectStoreError
from recfs.ports.sweep import Progress, Sweep
from recfs.state.problems import reason_of
from recfs.state.work.outcome import MOST_NAMED
from recfs.tier.leftovers import Lost, Strange
from recfs.tier.ownership import DOUBT_FACT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from recfs.fs.leftovers.adoption import Adoption
    from recfs.fs.leftovers.local import LocalLeftovers
    from recfs.state.tree import Tree
    from recfs.tier.leftovers import BucketLeftovers

PART = "orphans"
PATIENCE_S = 6 * 3600.0
OLDER_FACT = "orphans_doubt_ns"
"""Store-wide fact: when a start last found the catalogue and the home tree to be of two times (wall clock)."""

Orphan = Lying | Gone | Strange | Lost


@dataclass(slots=True)
class Survey:
    """What one run has found."""

    mode: Mode
    files: int = 0
    """Rows that were looked at, on the disk."""
    objects: int = 0
    counts: Counter[tuple[Where, str]] = field(default_factory=Counter)
    size_bytes: int = 0
    deeds: Counter[Deed] = field(default_factory=Counter)
    """What the mode would do."""
    found: list[Finding] = field(default_factory=list)
    bucket_unseen: str | None = None
    """Why the bucket was not looked at, or not to its end."""
    unread: list[str] = field(default_factory=list)
    """Why directories of the disk were not looked into, a reason for each."""
    done: Counter[Deed] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        """Count it, and name it among the first."""
        self.counts[finding.where, finding.what] += 1
        self.size_bytes += finding.size_bytes if finding.what == "bytes" else 0
        self.deeds[finding.deed(self.mode)] += 1
        if len(self.found) < MOST_NAMED:
            self.found.append(finding)

    def of(self, what: str) -> int:
        """How many there are."""
        return sum(count for (_, kind), count in self.counts.items() if kind == what)

    def missing(self, *, far: bool) -> int:
        """How many files have lost their bytes in the bucket, or on the disk; what was removed is none."""
        near = (Where.HOME, Where.CACHE)
        return sum(self.counts[where, "row"] for where in ((Where.BUCKET,) if far else near))

    def words(self) -> str:
        """The run in a few words."""
        strays, rows = self.of("bytes"), self.of("row")
        told = f"{strays:,} without a row, {format_size(self.size_bytes)}; {rows:,} rows without bytes"
        if not strays and not rows:
            told = f"none among {self.files:,} files" + (f" and {self.objects:,} objects" if self.objects else "")
        did = [f"{count:,} {_DID[deed]}" for deed, count in self.done.items() if count]
        if self.bucket_unseen is not None:
            did.append(f"the bucket was not looked at to its end: {self.bucket_unseen}")
        if self.unread:
            did.append(f"{_directories(self.unread)}: {self.unread[0]}")
        return "; ".join([told, *did])

    def as_json(self) -> dict[str, Any]:
        """For `recfs sweep orphans`."""
        return {
            "mode": self.mode.value,
            "files": self.files,
            "objects": self.objects,
            "bytes": self.size_bytes,
            "counts": [
                {"where": where.value, "what": what, "count": count} for (where, what), count in self.counts.items()
            ],
            "found": [
                {
                    "where": each.where.value, "what": each.what, "name": each.name, "size_bytes": each.size_bytes,
                    "age_s": each.age_s, "why": each.why, "adopt": each.adopt.value, "delete": each.delete.value,
                }
                for each in self.found
            ],
            "missing": self.missing(far=False) + self.missing(far=True),
            "more": self.counts.total() - len(self.found),
            "done": {deed.value: count for deed, count in self.done.items()},
            "bucket_unseen": self.bucket_unseen,
            "unread": self.unread[:MOST_NAMED],
        }  # fmt: skip


def _directories(unread: list[str]) -> str:
    count = len(unread)
    return f"{count:,} {'directory' if count == 1 else 'directories'} could not be read"


_DID = {
    Deed.ADOPT: "adopted", Deed.FORGET: "known to be in S3 alone", Deed.UPLOAD: "to be uploaded again",
    Deed.DELETE: "deleted", Deed.SET_ASIDE: "moved to lost+found",
}  # fmt: skip


class Orphans:
    """All three of them."""

    def __init__(
        self, tree: Tree, local: LocalLeftovers, far: BucketLeftovers | None, adoption: Adoption,
        *, every_s: float, mode: Mode, grace_s: float,
    ) -> None:  # fmt: skip
        """*far* None: without S3. *mode*: of the look that is due every *every_s*; the others are asked for."""
        self._tree = tree
        self._local = local
        self.far = far
        self.adoption = adoption
        self.every_s = every_s
        self.mode = mode
        self.grace_s = grace_s
        self._progress = {each: Progress() for each in Mode}
        self._last: dict[Mode, Survey] = {}
        self._doubts: dict[bool, int] = {}

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """For the registry."""
        return [
            Sweep(
                name_of(mode), PART,
                Schedule.every(self.every_s if mode is self.mode else 0.0, patience_s=PATIENCE_S),
                partial(self._look, mode), complete, self._act, mounted=True, progress=self._progress[mode],
            )
            for mode in Mode
        ]  # fmt: skip

    def last(self, mode: Mode) -> dict[str, Any] | None:
        """What the last run of this daemon in that mode has found, as JSON. Atomic."""
        survey = self._last.get(mode)
        return survey.as_json() if survey is not None else None

    def restored(self) -> None:
        """Catalogue and home tree are of two times: what is there from before now may be of files it does not know."""
        self._tree.behind.meta(OLDER_FACT, str(self._tree.clock.now_ns()))

    # --- looking -------------------------------------------------------------------------------------------------

    async def _look(self, mode: Mode) -> Survey:
        survey, progress = Survey(mode), self._progress[mode]
        progress.total = self._tree.root.rfiles
        await self._learn_doubts()

        async def count(orphan: Orphan) -> None:
            finding = self._judged(orphan)
            if finding is not None:
                survey.add(finding)

        survey.unread = await self._local.look(progress, count)
        survey.files = progress.done
        progress.total = None
        if self.far is not None and not progress.is_stopping:
            try:
                await self.far.look(progress, count, ask_all=False)
            except ObjectStoreError as error:
                survey.bucket_unseen = reason_of(error)
            survey.objects = progress.done - survey.files
        self._last[mode] = survey
        return survey

    def _judged(self, orphan: Orphan) -> Finding | None:
        if isinstance(orphan, (Gone, Lost)):
            return judge_missing(orphan.missing)
        clock = self._tree.clock
        now = Now(clock.now_ns(), clock.calendar_ns())
        return judge(orphan.stray, now, self.grace_s, self._doubts[isinstance(orphan, Strange)])

    async def _learn_doubts(self) -> None:
        """When bytes and catalogue were last of two times, by whether the bytes lie in the bucket."""
        await self._tree.behind.flush()
        facts = await self._tree.catalogue.meta()
        older = _number(facts, OLDER_FACT)
        self._doubts = {False: older, True: max(older, _number(facts, DOUBT_FACT))}

    # --- acting --------------------------------------------------------------------------------------------------

    async def _act(self, survey: Survey, going_on: trio.Nursery) -> str:
        """Raises IoFailure where so much is missing that nothing else can be believed."""
        problems, progress = self._tree.behind.problems, self._progress[survey.mode]
        self._tell_missing(survey)
        if survey.bucket_unseen is not None:
            problems.note(PART, "bucket", IoFailure(f"not looked at: {survey.bucket_unseen}"), "the bucket")
        else:
            problems.solved(PART, "bucket")
        if survey.unread:
            why = IoFailure(f"{_directories(survey.unread)}: {survey.unread[0]}")
            problems.note(PART, "unread", why, "the disk")
        else:
            problems.solved(PART, "unread")
        if sum(count for deed, count in survey.deeds.items() if deed is not Deed.NONE):
            progress.done, progress.total = 0, None
            do = partial(self._do, survey)
            await self._local.look(progress, do)
            if self.far is not None and survey.bucket_unseen is None and not progress.is_stopping:
                await self.far.look(progress, do, ask_all=True)
            await self._tree.behind.durable()
        return survey.words()

    def _tell_missing(self, survey: Survey) -> None:
        problems = self._tree.behind.problems
        for far, looked_at, where in ((False, survey.files, "the disk"), (True, survey.objects, "the bucket")):
            rows = survey.missing(far=far)
            looked_at = max(looked_at, rows)
            if too_many_missing(rows, looked_at):
                raise IoFailure(
                    f"{rows:,} of {looked_at:,} files are not where they should be on {where}: is all of it there?"
                    f" Nothing was done; `recfs sweep orphans` names them"
                )
            if rows:
                why = IoFailure(f"{rows:,} files have lost their bytes there; `recfs sweep orphans` names them")
                problems.note(PART, ("missing", far), why, where)
            else:
                problems.solved(PART, ("missing", far))

    async def _do(self, survey: Survey, orphan: Orphan) -> None:
        """What is to be done about it now; what fails is told, and the others go on."""
        finding = self._judged(orphan)
        if finding is None or self._progress[survey.mode].is_stopping:
            return
        deed = finding.deed(survey.mode)
        if deed is not Deed.NONE:
            with self._tree.behind.problems.aside(PART, (finding.where, finding.name), finding.name):
                survey.done[deed] += await self._done(orphan, deed)

    async def _done(self, orphan: Orphan, deed: Deed) -> int:
        """Returns how many that were."""
        if isinstance(orphan, Gone):
            return int(await self._local.forget(orphan))
        if isinstance(orphan, Lying):
            return await self.adoption.entry(orphan) if deed is Deed.ADOPT else int(await self._local.remove(orphan))
        assert self.far is not None
        if isinstance(orphan, Lost):
            return int(await self.far.upload_again(orphan))
        if deed is Deed.ADOPT:
            still = partial(self.far.is_nobodys, orphan.info)
            return int(await self.adoption.object(orphan.info, still) is not None)
        return int(await self.far.delete(orphan))


def name_of(mode: Mode) -> str:
    """The sweep's name."""
    return "orphans" if mode is Mode.REPORT else f"orphans-{mode}"


def complete(survey: Survey) -> Survey | None:
    """The decision: what was found is told, and so is that nothing was."""
    return survey


def _number(facts: Mapping[str, str], name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdecimal() else 0


__all__ = ["Orphans", "Survey", "name_of"]
