"""The ranges of what programs and disks hand in, and how it is brought into them.

Everything that reaches the catalogue is a 64-bit signed integer there. Times are kept in ns since 1970 in the range
of ext4, which is wider than 64 signed bits of nanoseconds and narrower than 64 bits: `stored_time` folds it.
"""

from typing import Final

from recfs.errors import FileTooLarge, InvalidArgument

MAX_INT: Final = 2**63 - 1
"""Largest integer of SQLite, of off_t, and so of a size: sqlite.org/datatype3.html, fallocate(2)."""
MIN_INT: Final = -(2**63)
MAX_ID: Final = 2**32 - 2
"""Largest uid and gid; 2**32 - 1 is (uid_t) -1, which means "leave it" (chown(2))."""

_NS: Final = 1_000_000_000
MIN_TIME_NS: Final = -(2**31) * _NS
"""1901-12-13 20:45:52: s_time_min of ext4 (fs/ext4/super.c)."""
MAX_TIME_NS: Final = 15_032_385_535 * _NS
"""2446-05-10 22:38:55: EXT4_EXTRA_TIMESTAMP_MAX (fs/ext4/ext4.h)."""


def time_ns(ns: int) -> int:
    """Give the time a file may have: clamped as ext4 does (timestamp_truncate, fs/inode.c), to the whole second."""
    if MIN_TIME_NS < ns < MAX_TIME_NS:
        return ns
    return MIN_TIME_NS if ns <= MIN_TIME_NS else MAX_TIME_NS


def stored_time(ns: int) -> int:
    """Give the 64-bit integer that stands for a time: from 2262 on the range continues below `MIN_TIME_NS`."""
    ns = time_ns(ns)
    return ns if ns <= MAX_INT else ns - 2**64


def loaded_time(stored: int) -> int:
    """Give the time that an integer of `stored_time` stands for."""
    return stored if stored >= MIN_TIME_NS else time_ns(stored + 2**64)


def total(number: int) -> int:
    """Give what the catalogue can keep of a sum: the sum itself, or `MAX_INT`, which stands for "that or more"."""
    if 0 <= number <= MAX_INT:
        return number
    return 0 if number < 0 else MAX_INT


def end_of(offset: int, length: int, most: int = MAX_INT) -> int:
    """Give where a range of a file ends. Raises InvalidArgument for a negative one, FileTooLarge beyond *most*."""
    if offset < 0 or length < 0:
        raise InvalidArgument(f"a range of {length} bytes at {offset}")
    end = offset + length
    if end > most:
        raise FileTooLarge(f"a range up to {end}: no file here has more than {most} bytes")
    return end
