"""Why a row of the S3 queue waits though nothing has failed: its `error`, by which such a row is known.

Most come of requests that S3 gave no answer to (`tier/queue/unanswered.py`).
"""

LOOKED_AT = "S3 has it, and left earlier requests for its name unanswered: looked at until none can come any more"
"""Of an upload that S3 has confirmed, and that does not count yet."""
UNKNOWN_ID = "S3 left requests to begin an upload in parts unanswered: what came of them is aborted when none can come"
"""Of an abort of what may have been begun under a key."""
DESCRIBED_AGAIN = (
    "S3 left earlier requests for the name unanswered: the attributes are written again when none can come"
)
"""Of a move to where the object is."""
NOT_YET = "S3 left earlier requests for the new name unanswered: waits until none can come any more"
"""Of a move that is not made yet."""
UNDECIDED = (
    "S3 left an upload of the file unanswered: what lies under its name is looked at when none can come any more"
)
"""Of a move to where the object is, whose bytes nobody knows."""
OUTDATED = "the file's next version is to replace it"
"""Of a deletion of what was stored too late."""
ONCE_MORE = "S3 left earlier requests for it unanswered: it is deleted once more when none can come any more"
"""Of a deletion that was carried out before."""
COMES_HOME = "it goes when the rows say that the file is here"
"""Of a deletion of what was brought home."""

__all__ = [
    "COMES_HOME", "DESCRIBED_AGAIN", "LOOKED_AT", "NOT_YET", "ONCE_MORE", "OUTDATED", "UNDECIDED", "UNKNOWN_ID",
]  # fmt: skip
