"""Whether a text is JSON (RFC 8259), SubRip or WebVTT (w3.org/TR/webvtt1) subtitles.

Small texts are checked where they are. Large ones are checked by a caged Python to which the source of this module is
handed (`media/checks.py`), so it imports the standard library alone.
"""

import json
import re
import sys

_TIME = r"(?:\d{2,}:)?[0-5]\d:[0-5]\d"
_SRT_TIMES = re.compile(
    r"(?:\d+:)?[0-5]?\d:[0-5]?\d[,.]\d{1,3}[ \t]*-->[ \t]*(?:\d+:)?[0-5]?\d:[0-5]?\d[,.]\d{1,3}(?:[ \t].*)?"
)
_VTT_TIMES = re.compile(rf"{_TIME}\.\d{{3}}[ \t]+-->[ \t]+{_TIME}\.\d{{3}}(?:[ \t].*)?")
_NUMBER = re.compile(r"\d{1,9}")
LONGEST_LINE = 1 << 16
"""Characters."""


def _decoded(data: bytes) -> str:
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")  # no codec that would have to be loaded in the cage
    if "\0" in text:
        raise ValueError("it has a zero byte in it")
    return text


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def check_json(data: bytes) -> str | None:
    """Why it does not parse; None: it does."""
    try:
        # Numbers stay text: of a billion digits none is to be computed with.
        json.loads(_decoded(data), parse_int=str, parse_float=str, parse_constant=_refuse)
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except RecursionError:
        return "it is nested too deeply"
    except MemoryError:
        return "it takes too much memory"
    except ValueError as error:
        return str(error)[:200]
    return None


def check_srt(data: bytes) -> str | None:
    """Why it is no SubRip file with a cue at least; None: it is."""
    return _cues(data, _SRT_TIMES, numbered=True)


def check_vtt(data: bytes) -> str | None:
    """Why it is no WebVTT file; None: it is. One without a cue is valid."""
    first = data.removeprefix(b"\xef\xbb\xbf")[:7]
    if first[:6] != b"WEBVTT" or first[6:] not in (b"", b" ", b"\t", b"\r", b"\n"):
        return "it does not begin with WEBVTT"
    return _cues(data, _VTT_TIMES, numbered=False)


def _cues(data: bytes, times: "re.Pattern[str]", *, numbered: bool) -> str | None:
    try:
        text = _decoded(data)
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except ValueError as error:
        return str(error)
    cues, is_new = 0, True
    expected = ""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if len(line) > LONGEST_LINE:
            return f"line {number} is too long"
        if not line.strip():
            if expected:
                return f"line {number}: {expected}"
            is_new = True
        elif "-->" in line and (is_new or expected):
            if times.fullmatch(line.strip()) is None:
                return f"line {number}: its times cannot be read"
            cues, is_new, expected = cues + 1, False, ""
        elif expected:
            return f"line {number}: {expected}"
        elif is_new:
            if numbered and _NUMBER.fullmatch(line.strip()) is not None:
                expected = "the times of a cue are missing"
            elif numbered and not cues:
                return f"line {number}: neither the number of a cue nor its times"
            is_new = False
    if expected:
        return f"it ends where {expected}"
    return "it has no cue" if numbered and not cues else None


CHECKS = {"json": check_json, "srt": check_srt, "vtt": check_vtt}
"""By the words of `Checker`."""


def main(kind: str) -> None:
    """Check standard input; tell as JSON on standard output why it is none of that kind."""
    try:
        found = CHECKS[kind](sys.stdin.buffer.read())
    except MemoryError:
        found = "it takes too much memory"
    sys.stdout.write(json.dumps(found))
