"""Whose a bucket's prefix is: the mark that lies in it, and what a store makes of the mark it finds.

The mark is a small object that names the store by its id (a UUID made with the store), for machines, and by host and
root, for people. Its token changes with every daemon that takes the prefix into use, so that two daemons on copies of
one store, which have the same id, notice one another: whoever finds another token than its own was followed by another.
"""

import json
from dataclasses import asdict, dataclass
from enum import Enum

MARK_KEY = ".recfs/store.json"
"""No path in a mount begins so."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """Who uses the prefix."""

    store: str
    """The store's id."""
    token: str
    """Of the daemon that used it last."""
    host: str
    root: str
    since: str
    """When that daemon took it into use, as UTC in ISO 8601."""

    def __str__(self) -> str:
        return f"the store {self.root} on {self.host} (id {self.store}, in use since {self.since})"

    def to_json(self) -> bytes:
        """As it lies in the bucket."""
        text = json.dumps({"recfs": _FORMAT, **asdict(self)}, indent=1)
        return text.encode("utf-8", "backslashreplace") + b"\n"


def read_mark(data: bytes) -> Mark:
    """The mark of what lies in the bucket. One that cannot be understood is nobody's that is known here."""
    try:
        known = json.loads(data)
        found = Mark(*(str(known[name]) for name in ("store", "token", "host", "root", "since")))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Mark("unknown", "", "an unknown host", "of another version", "an unknown time")
    return found


class Verdict(Enum):
    """What a store may make of a prefix."""

    OURS = "ours"
    """It is this store's, and no other daemon has used it since."""
    FREE = "free"
    """Nobody's: this store may put its mark there."""
    RETURNED = "returned"
    """This store's, but last used by a daemon that this one knows nothing of: a copy of the store, or one restored."""
    FOREIGN = "foreign"
    """Another store's."""
    UNKNOWN = "unknown"
    """There are objects, and neither a mark nor anything this store knows of."""
    FOLLOWED = "followed"
    """Another daemon has taken a copy of this store into use since."""
    LOST = "lost"
    """There is no mark, and objects of this store are gone as well: the bucket was emptied, or it is another one."""


def verdict_on(
    mark: Mark | None, store: str, tokens: frozenset[str],
    *, running: bool, knows: bool, empty: bool, gone: bool = False,
) -> Verdict:  # fmt: skip
    """Whose the prefix is.

    *tokens*: those of this store's daemons. *running*: whether this daemon has put its own there before. *knows*:
    whether this store has objects there; *empty*: whether nothing lies there; *gone*: whether some of those objects are
    not there any more.
    """
    if mark is None and gone:
        return Verdict.LOST
    if mark is None:
        return Verdict.FREE if knows or empty or running else Verdict.UNKNOWN
    if mark.store != store:
        return Verdict.FOREIGN
    if mark.token in tokens:
        return Verdict.OURS
    return Verdict.FOLLOWED if running else Verdict.RETURNED


def lost_words(url: str, files: int) -> str:
    """What there is to say of a prefix that lost this store's mark and objects; *files* are nowhere else."""
    count = "1 file is" if files == 1 else f"{files:,} files are"
    return f"{url} has lost the mark and objects of this store: it was emptied, or is another one; {count} in S3 only"


LOST_REMEDY = (
    "bring the objects back (from versions or a copy of the bucket), or set [s3] endpoint and bucket right; or go on in"
    " what is there with `recfs bucket claim`, which brings nothing back"
)
