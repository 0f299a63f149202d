"""Whether a file is what its name says that it is."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from recfs.core.media.facts import NO_MEDIA
from recfs.core.media.kinds import Kind

if TYPE_CHECKING:
    from recfs.core.media.facts import Facts


class Verdict(StrEnum):
    """What is known of a file's content; the words are in the catalogue, and part of the interface."""

    PENDING = "pending"
    """It has not been looked into yet."""
    WHOLE = "whole"
    """It is what its name says, as far as was looked."""
    BROKEN = "broken"
    """It is not: it does not parse, or is cut off, or is something else. Its bytes are those that were written."""
    UNKNOWN = "unknown"
    """It could not be looked into, several times: that took too long, or the program crashed."""


def judge(kind: Kind, facts: Facts | None) -> str | None:
    """Why a file of this kind is broken that can be read, by what is in it; None: it is not."""
    if facts is None:
        return NO_MEDIA
    if kind is Kind.VIDEO and facts.video_codec is None:
        return "there are no moving pictures in it"
    if kind is Kind.AUDIO and facts.audio_codec is None:
        return "there is no sound in it"
    if kind is Kind.AUDIO and facts.video_codec is not None:
        return "it is a video"
    if facts.duration_s is not None and facts.duration_s <= 0:
        return "it has no duration"
    return None


MANY_STREAMS: Final = "it has more streams than are looked at"
"""Why nothing is said of a recording."""


def is_beyond_bounds(said: str) -> str | None:
    """Why a file could not be read that may be whole, by a program's last words; None: it is for the file alone."""
    if "exceeds max_streams" in said:
        return MANY_STREAMS
    if "Cannot allocate memory" in said:
        return "it takes more memory than a look may ([media] memory)"
    return None


def why_unreadable(said: str) -> str:
    """What a program's last words on a file come to, for people: without names and control codes."""
    if "moov atom not found" in said:
        return "its index (moov) is missing: it was not finished, or is cut off"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1].rpartition(": ")[2] if lines else ""
    if "whitelist" in said.lower():
        return "it is of no format that is recorded in"
    if last.startswith("Invalid data") or not last:
        return "it cannot be read as audio or video"
    return f"it cannot be read: {''.join(char if char.isprintable() else '?' for char in last)[:120]}"


__all__ = ["MANY_STREAMS", "Verdict", "is_beyond_bounds", "judge", "why_unreadable"]
