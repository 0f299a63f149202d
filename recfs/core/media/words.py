"""Where a file stands, in the words that applications have for uploads: one mapping from recfs's own states.

| word | what recfs knows |
|---|---|
| (none) | it is being written, or a shared file is shown: there is nothing to be told yet |
| uploaded | its writer has closed it; its checksums are being made (`sealing`) |
| validating | it is committed, and is to be looked into (`media: pending`) |
| processing | it is on its way: to S3 (its upload is due), or back from there (`fetching`) |
| completed | it is where it belongs, and nothing speaks against it |
| failed | it is `incomplete` or `corrupt`, its media is `broken`, or its upload is refused |
| archived | its bytes are in an archive class of S3 |
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from recfs.core.media.verdicts import Verdict
from recfs.core.model import State


class Word(StrEnum):
    """A word of applications; part of the interface."""

    UPLOADED = "uploaded"
    VALIDATING = "validating"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    ARCHIVED = "archived"


class Code(StrEnum):
    """Why a file failed, or what it waits for; part of the interface."""

    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"
    BROKEN = "media_broken"
    UNKNOWN = "media_unknown"
    """It could not be looked into; it is no failure of the file."""
    UPLOAD = "upload_failed"
    """The last attempt failed; another one comes."""


class Known(NamedTuple):
    """What recfs knows of a file. Times are nanoseconds of the wall clock; 0: not known, or not yet."""

    state: State
    changed_ns: int = 0
    """When it was last written to."""
    touched_ns: int = 0
    """When it, or what is known of it (its name, mode, times), last changed: it has had its bytes since then."""
    verdict: str = ""
    """One of `Verdict`'s words; empty: its name is none that is looked into."""
    reason: str = ""
    looks: int = 0
    """Looks into it that failed."""
    queued_ns: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    """Of the look into it."""
    upload_due: bool = False
    upload_attempts: int = 0
    upload_error: str = ""
    stored_ns: int = 0
    """When S3 confirmed these bytes."""


def word_of(known: Known) -> Word | None:
    """The word for it."""
    match known.state:
        case State.WRITING:
            return None
        case State.SEALING:
            return Word.UPLOADED
        case State.INCOMPLETE | State.CORRUPT:
            return Word.FAILED
        case _ if known.verdict == Verdict.BROKEN:
            return Word.FAILED
        case State.ARCHIVED:
            return Word.ARCHIVED
        case _ if known.verdict == Verdict.PENDING:
            return Word.VALIDATING
        case State.FETCHING | State.UPLOADING:
            return Word.PROCESSING
        case _ if known.upload_due and not known.state.is_remote:
            return Word.PROCESSING
    return Word.COMPLETED


def _why(known: Known) -> tuple[str, str]:
    """Code and message; both empty where there is nothing to say."""
    if known.state is State.INCOMPLETE:
        return Code.INCOMPLETE, "its writer died, or was stopped at a limit, before all was written"
    if known.state is State.CORRUPT:
        return Code.CORRUPT, "its bytes are not those of its checksum"
    if known.verdict == Verdict.BROKEN:
        return Code.BROKEN, known.reason
    if known.upload_attempts and known.upload_error:
        return Code.UPLOAD, known.upload_error
    if known.verdict == Verdict.UNKNOWN:
        return Code.UNKNOWN, known.reason
    return "", ""


def told(known: Known) -> dict[str, Any]:
    """All of it, for programs: word, times of each step (ns of the wall clock), code, message, attempts."""
    word = word_of(known)
    code, message = _why(known)
    is_there = known.state.is_whole or known.state.is_remote
    uploaded_ns = known.queued_ns or known.changed_ns
    if known.queued_ns and known.touched_ns:  # it may have been asked for once more
        uploaded_ns = min(known.queued_ns, known.touched_ns)
    steps = {
        Word.UPLOADED: uploaded_ns if word is not None else 0,
        Word.VALIDATING: known.began_ns,
        Word.PROCESSING: known.ended_ns if known.upload_due or known.stored_ns else 0,
        Word.COMPLETED: max(known.stored_ns, known.ended_ns, uploaded_ns)
        if word in (Word.COMPLETED, Word.ARCHIVED) and is_there else 0,
        Word.FAILED: (known.ended_ns or known.changed_ns) if word is Word.FAILED else 0,
    }  # fmt: skip
    return {
        "status": word.value if word is not None else None,
        "times_ns": {step.value: at_ns for step, at_ns in steps.items() if at_ns},
        "code": str(code) or None,
        "message": message or None,
        "retries": max(known.looks, known.upload_attempts),
    }


__all__ = ["Code", "Known", "Word", "told", "word_of"]
