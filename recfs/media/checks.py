"""Looks into an open file: what is in it, and whether it is what it should be. Nothing hostile is parsed in the daemon
but the few bytes by which containers say how long they are, and small texts.
"""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import ffmpeg
import trio

from recfs.core.media import texts
from recfs.core.media.facts import SHOW, Facts, facts_of
from recfs.core.media.formats import MOST_STREAMS, as_words, reading
from recfs.core.media.kinds import Checker, Kind
from recfs.core.media.recipes import progress_us
from recfs.core.media.structure import cut_off
from recfs.core.media.verdicts import MANY_STREAMS, is_beyond_bounds, judge, why_unreadable
from recfs.errors import MediaUnavailable
from recfs.media.runner import INPUT, Ended, Limits, Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.config.media import MediaSection

SMALL_BYTES: Final = 64 << 10
"""Texts up to this are checked by a thread of the daemon; larger ones take their memory elsewhere."""
TAIL_S: Final = 10.0
"""So much of the end is decoded where that is wanted."""
STUMP_S: Final = 10.0
"""Longest that ffprobe looks into what is known to be broken: whatever it says of it is extra."""
ESTIMATED: Final = "Estimating duration from bitrate"
"""What ffprobe warns of where nothing says how long a stream is (raw AAC, MP3 without a Xing header): it guesses."""
LEAST_BPS: Final = 100
"""What has fewer bits for each second is measured: its head says what cannot be, or it shows a picture an hour."""
PROBE: Final = (
    "-v", "warning", "-hide_banner", "-show_entries", SHOW, "-of", "json=c=1", *as_words(reading()), "-i", INPUT
)  # fmt: skip

WITHOUT_TAGS: Final = tuple(word.replace(":format_tags", "") for word in PROBE)


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How far files are looked into."""

    limits: Limits = field(default_factory=Limits)
    largest_text_bytes: int = 16 << 20
    """Texts beyond are not looked into."""
    decode_tail: bool = False
    """Whether the end is decoded, too: ffmpeg says of damage in the middle of the bytes."""

    @classmethod
    def of(cls, section: MediaSection) -> CheckSettings:
        """As they are configured."""
        limits = Limits(timeout_s=section.timeout, cpu_s=round(section.cpu), memory_bytes=section.memory)
        return cls(limits, section.largest_text, section.decode_tail)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found."""

    reason: str | None = None
    """Why it is broken; None: it is not."""
    facts: Facts | None = None
    is_sure: bool = True
    """False: it could not be looked into, and `reason` says why."""
    is_final: bool = False
    """Of one that is not sure: the next look at these bytes would come to the same."""


class Checks:
    """Looks into files, one after another or several at a time."""

    def __init__(self, runner: Runner, settings: CheckSettings) -> None:
        self._runner = runner
        self.settings = settings
        self._threads = trio.CapacityLimiter(1)

    async def available(self, *, to_use: bool = True) -> str | None:
        """Why no recording can be looked into; None: it can. Unless it is *to_use* at once, nothing is run for that."""
        if not to_use:
            return await self._runner.absent("ffprobe")
        try:
            await self._runner.program("ffprobe")
        except MediaUnavailable as error:
            return str(error)
        return None

    async def look(self, kind: Kind, fd: int, size: int) -> Finding:
        """Look into a file of *size* bytes that is to be of that kind.

        Raises MediaUnavailable where the program for it is missing, OSError where it cannot be read.
        """
        if kind.checker is Checker.MEDIA:
            return await self._media(kind, fd, size)
        return await self._text(kind.checker, fd, size)

    # --- texts ---------------------------------------------------------------------------------------------------

    async def _text(self, checker: Checker, fd: int, size: int) -> Finding:
        if size > self.settings.largest_text_bytes:
            return Finding("it is larger than texts that are looked into", is_sure=False, is_final=True)
        if size <= SMALL_BYTES:
            return Finding(await trio.to_thread.run_sync(_check_small, checker, fd, size, limiter=self._threads))
        outcome = await self._runner.run_own(inspect.getsource(texts), (checker.value,), fd, self.settings.limits)
        if outcome.ended is Ended.WELL:
            return Finding(json.loads(outcome.output))
        return Finding(f"the look into it ended: {outcome.ended}", is_sure=False)

    # --- audio and video -----------------------------------------------------------------------------------------

    async def _media(self, kind: Kind, fd: int, size: int) -> Finding:
        if not size:
            return Finding("it is empty")
        cut = await trio.to_thread.run_sync(cut_off, partial(_pread, fd), size, limiter=self._threads)
        if cut is not None:
            return Finding(cut, await self._told_by_itself(fd))
        outcome = await self._runner.run("ffprobe", PROBE, fd, self.settings.limits)
        if outcome.ended is Ended.TOO_MUCH:  # a comment may be as long as a book
            outcome = await self._runner.run("ffprobe", WITHOUT_TAGS, fd, self.settings.limits)
        if outcome.ended is Ended.FAILED and (why := is_beyond_bounds(outcome.said)):
            return Finding(why, is_sure=False, is_final=True)
        if outcome.ended is Ended.FAILED:
            return Finding(why_unreadable(outcome.said))
        if outcome.ended is Ended.TOO_MUCH:
            return Finding("it says more of itself than is taken")
        if outcome.ended is not Ended.WELL:
            return Finding(f"ffprobe ended: {outcome.ended}", is_sure=False)
        try:
            facts = facts_of(outcome.output)
        except ValueError as error:
            return Finding(str(error))
        if facts is not None and facts.streams >= MOST_STREAMS:  # of a transport stream the rest is left out
            return Finding(MANY_STREAMS, is_sure=False, is_final=True)
        if facts is not None and (_is_unlikely(facts.duration_s, size) or ESTIMATED in outcome.said):
            facts = facts._replace(duration_s=await self._duration(fd) or facts.duration_s)
        reason = judge(kind, facts)
        if reason is None and self.settings.decode_tail:
            reason = await self._decode_tail(fd)
        return Finding(reason, facts)

    async def _told_by_itself(self, fd: int) -> Facts | None:
        """What the head of a recording says that is cut off, with how long it was to play; None: nothing."""
        limits = self.settings.limits
        short = replace(limits, timeout_s=min(limits.timeout_s, STUMP_S), cpu_s=min(limits.cpu_s, round(STUMP_S)))
        try:
            return facts_of((await self._optional("ffprobe", PROBE, fd, short)).encode())
        except ValueError:
            return None

    async def _duration(self, fd: int) -> float | None:
        """How long it plays, of one that does not say: browsers write such. All of it is read; None: nobody knows."""
        stream = ffmpeg.input(INPUT, **reading()).output("-", f="null", c="copy", map="0")
        stream = stream.global_args("-nostdin", "-v", "error", "-progress", "pipe:1", "-nostats")
        outcome = await self._optional("ffmpeg", stream.get_args(), fd, self.settings.limits)
        played_us = progress_us(outcome)
        return played_us / 1e6 if played_us is not None else None

    async def _optional(self, program: str, words: Sequence[str], fd: int, limits: Limits) -> str:
        """What a program says on standard output; nothing where it fails, or is missing."""
        try:
            outcome = await self._runner.run(program, words, fd, limits)
        except MediaUnavailable:
            return ""
        return outcome.output.decode("utf-8", "replace") if outcome.ended is Ended.WELL else ""

    async def _decode_tail(self, fd: int) -> str | None:
        stream = ffmpeg.input(INPUT, sseof=-TAIL_S, **reading()).output("-", f="null")
        words = stream.global_args("-nostdin", "-v", "error", "-xerror").get_args()
        try:
            outcome = await self._runner.run("ffmpeg", words, fd, self.settings.limits)
        except MediaUnavailable:
            return None
        if outcome.ended is Ended.FAILED or (outcome.ended is Ended.WELL and outcome.said.strip()):
            return f"its end cannot be decoded: {why_unreadable(outcome.said)}"
        return None


def _is_unlikely(duration_s: float | None, size: int) -> bool:
    """Whether a recording of *size* bytes does not play so long by what anybody records; None: it does not say."""
    return duration_s is None or size * 8 < duration_s * LEAST_BPS


def _pread(fd: int, offset: int, length: int) -> bytes:
    return os.pread(fd, length, offset) if 0 <= offset < 1 << 63 else b""


def _check_small(checker: Checker, fd: int, size: int) -> str | None:
    return texts.CHECKS[checker.value](os.pread(fd, size, 0))


__all__ = ["CheckSettings", "Checks", "Finding"]
