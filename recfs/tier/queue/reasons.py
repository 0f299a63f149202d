"""Why a row of the S3 queue waits though nothing has failed: its `error`, by which such a row is known.

Each comes of requests that S3 gave no answer to (`tier/queue/unanswered.py`).
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
ONCE_MORE = "S3 left earlier requests for it unanswered: it is deleted once more when none can come any more"
"""Of a deletion that was carried out before."""

__all__ = ["DESCRIBED_AGAIN", "LOOKED_AT", "NOT_YET", "ONCE_MORE", "UNKNOWN_ID"]
