"""Sizes and durations as people write them, and back.

A size is an int number of bytes, a duration a float number of seconds, everywhere else in recfs. Parsers
raise ValueError with a message that says what was found and what is accepted; the caller adds which key or
option it was.
"""

import math
import re
from fractions import Fraction

MAX_SIZE_BYTES = 2**63 - 1
"""Largest size: off_t and SQLite's INTEGER both end here."""
MAX_DURATION_S = 36_500 * 86_400.0
"""Longest duration, 36500 days: nanoseconds since 1970 plus this still fit in 64 bits."""

SIZE_UNITS = "B, kB, MB, GB, TB, PB (powers of 1000), KiB, MiB, GiB, TiB, PiB (powers of 1024)"
DURATION_UNITS = "ms, s, m, h, d, w"

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE_FACTOR = {unit.lower(): 1024**power for power, unit in enumerate(_BINARY)} | {
    unit.lower(): 1000**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB", "PB"))
}
_DURATION_MS = {
    "ms": 1,
    "s": 1000,
    "sec": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_NUMBER_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([^\W\d_]*)")
_MAX_TEXT_CHARS = 64


def parse_size(value: object) -> int:
    """Turn "10 GiB", "500MB", "0.5 TB" or a whole number of bytes into bytes.

    Units are those of `SIZE_UNITS`, in any case, with or without a space; a number without a unit is bytes.
    A fraction of a larger unit is rounded down to a whole byte. Raises ValueError for anything else,
    negatives included.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        size = _size_of_text(value)
    else:
        raise ValueError(f'a size is a text such as "10 GiB" or a whole number of bytes, not {value!r}')
    if size < 0:
        raise ValueError(f"a size cannot be negative: {value!r}")
    if size > MAX_SIZE_BYTES:
        raise ValueError(f"larger than any file can be ({MAX_SIZE_BYTES} bytes): {value!r}")
    return size


def _size_of_text(text: str) -> int:
    stripped = text.strip()
    found = _NUMBER_UNIT.fullmatch(stripped) if len(stripped) <= _MAX_TEXT_CHARS else None
    if found is None:
        raise ValueError(f'not a size: {_short(text)}; write a number and a unit, such as "10 GiB" ({SIZE_UNITS})')
    number, unit = found.groups()
    factor = _SIZE_FACTOR.get(unit.lower() or "b")
    if factor is None:
        raise ValueError(f"unknown unit of size {unit!r} in {_short(text)}; use {SIZE_UNITS}")
    if factor == 1 and "." in number:
        raise ValueError(f"a size in bytes is a whole number: {_short(text)}")
    return int(Fraction(number) * factor)


def parse_duration(value: object) -> float:
    """Turn "24h", "100ms", "1h 30m" or a number of seconds into seconds.

    Units are those of `DURATION_UNITS` ("min" and "sec" too), in any case; several parts add up; a number
    without a unit is seconds. Raises ValueError for anything else, negatives and NaN included.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    elif isinstance(value, str):
        seconds = _seconds_of_text(value)
    else:
        raise ValueError(f'a duration is a text such as "24h" or a number of seconds, not {value!r}')
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"a duration cannot be negative or undefined: {value!r}")
    if seconds > MAX_DURATION_S:
        raise ValueError(f"longer than 36500d: {value!r}")
    return seconds


def _seconds_of_text(text: str) -> float:
    stripped = text.strip()
    refusal = f'not a duration: {_short(text)}; write a number and a unit, such as "24h" ({DURATION_UNITS})'
    if not stripped or len(stripped) > _MAX_TEXT_CHARS:
        raise ValueError(refusal)
    total_ms = Fraction(0)
    position = 0
    while position < len(stripped):
        found = _NUMBER_UNIT.match(stripped, position)
        if found is None:
            raise ValueError(refusal)
        number, unit = found.groups()
        is_whole_text = position == 0 and found.end() == len(stripped)
        factor = _DURATION_MS.get(unit.lower() if unit or not is_whole_text else "s")
        if factor is None:
            what = f"unknown unit of time {unit!r}" if unit else f"no unit after {number}"
            raise ValueError(f"{what} in {_short(text)}; use {DURATION_UNITS}")
        total_ms += Fraction(number) * factor
        position = found.end()
        while position < len(stripped) and stripped[position].isspace():
            position += 1
    return float(total_ms / 1000)


def format_size(size_bytes: int, *, exact: bool = False) -> str:
    """Write bytes for a person: "1.4 GiB", one decimal at most.

    With `exact` the result is a whole number of the largest unit that fits ("1536 MiB"), so that
    `parse_size` gives the same bytes back.
    """
    sign = "-" if size_bytes < 0 else ""
    size = abs(size_bytes)
    power = 0
    if exact:
        while size and power + 1 < len(_BINARY) and size % 1024 ** (power + 1) == 0:
            power += 1
        return f"{sign}{size // 1024**power} {_BINARY[power]}"
    # Compared after rounding, so that 1023.99 KiB is written "1 MiB" and not "1024 KiB".
    while power + 1 < len(_BINARY) and round(size / 1024**power, 1) >= 1024:
        power += 1
    return f"{sign}{_trimmed(f'{size / 1024**power:.1f}')} {_BINARY[power]}"


def format_duration(seconds: float, *, exact: bool = False) -> str:
    """Write seconds for a person: "250ms", "5.2s", "4m 5s", "1d 2h"; the two largest units, rounded down.

    With `exact` every unit down to the millisecond is written ("1d 2h 5.006s"), so that `parse_duration`
    gives the same milliseconds back.
    """
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    total_ms = round(seconds * 1000)
    if seconds == 0:
        return "0s"
    if total_ms < 1000:
        return f"{sign}{_trimmed(f'{seconds * 1000:.3f}') if not exact else total_ms}ms"
    if not exact and total_ms < 60_000:
        return f"{sign}{_trimmed(f'{total_ms // 100 / 10:.1f}')}s"
    minutes, ms = divmod(total_ms, 60_000)
    days, rest = divmod(minutes, 1440)
    whole = [(days, "d"), (rest // 60, "h"), (rest % 60, "m")]
    if exact:
        parts = [f"{count}{unit}" for count, unit in whole if count]
        if ms:
            parts.append(f"{_trimmed(f'{ms / 1000:.3f}')}s")
    else:
        whole.append((ms // 1000, "s"))
        first = next(index for index, (count, _unit) in enumerate(whole) if count)
        parts = [f"{count}{unit}" for count, unit in whole[first : first + 2] if count]
    return sign + " ".join(parts)


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".")


def _short(text: str) -> str:
    return repr(text if len(text) <= _MAX_TEXT_CHARS else text[: _MAX_TEXT_CHARS - 3] + "...")
