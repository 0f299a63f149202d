"""The client library: what applications need to work with a recfs store, on a mount or on a plain directory.

    from recfs.client import StoragePathBuilder, atomic_write

It stands by itself: Python's standard library, and nothing of the daemon. With the extra `client` (pip install
'recfs[client]') coroutines run on trio, too, and `recfs://` is a file system of fsspec. docs/client.md has examples.

errors      what it raises besides OSError
uploads     names, kinds and sizes of uploads; what is kept of them     folding   letters of other alphabets
tree        ids and names; StoragePathBuilder                           places    which mount is meant
writing     atomic_write      versions   next_version      jobs   temp_job
storage     StorageBackend: save, load, delete, exists
file_facts  facts, wait_committed                                       media     what is in a recording
event_feed  what becomes of files                                       waiting   blocking calls from coroutines
processing_cache   what was made of the same bytes already              asking    questions to a daemon
filesystem  recfs:// for fsspec (not loaded from here)
"""

from recfs.client.errors import (
    ClientError,
    CommitTimeout,
    CursorLost,
    DaemonRefused,
    DaemonUnreachable,
    ExtraMissing,
    InvalidName,
    NotAMount,
    NotCommitted,
    UploadRefused,
    VerifyFailed,
)
from recfs.client.event_feed import Event, events
from recfs.client.file_facts import Facts, facts, facts_async, wait_committed, wait_committed_async
from recfs.client.jobs import temp_job
from recfs.client.places import default_root
from recfs.client.processing_cache import ProcessingCache
from recfs.client.storage import StorageBackend
from recfs.client.tree import Id, StoragePathBuilder
from recfs.client.uploads import (
    ALLOWED_EXTENSIONS,
    Upload,
    check_upload,
    extension_of,
    mime_type_of,
    note_upload,
    noted_upload,
    sanitize_name,
    upload_name,
)
from recfs.client.versions import next_version
from recfs.client.writing import AsyncFile, atomic_write

__all__ = [
    "ALLOWED_EXTENSIONS",
    "AsyncFile",
    "ClientError",
    "CommitTimeout",
    "CursorLost",
    "DaemonRefused",
    "DaemonUnreachable",
    "Event",
    "ExtraMissing",
    "Facts",
    "Id",
    "InvalidName",
    "NotAMount",
    "NotCommitted",
    "ProcessingCache",
    "StorageBackend",
    "StoragePathBuilder",
    "Upload",
    "UploadRefused",
    "VerifyFailed",
    "atomic_write",
    "check_upload",
    "default_root",
    "events",
    "extension_of",
    "facts",
    "facts_async",
    "mime_type_of",
    "next_version",
    "note_upload",
    "noted_upload",
    "sanitize_name",
    "temp_job",
    "upload_name",
    "wait_committed",
    "wait_committed_async",
]
