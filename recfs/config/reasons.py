"""Why a setting takes more than a reload: what was made with it and is in use."""

from __future__ import annotations

from typing import Final

_SERVICE: Final = "whoever goes by it is there from the start on, or is not"
_WORKERS: Final = "threads and workers are made at the start, and are at work"
_SOCKET: Final = "its socket is open, and programs are connected to it"
_CLIENT: Final = "clients of the bucket were made with it, and have requests under way"
_REASONS: Final = {
    "root": "a daemon has one store, and its lock",
    "mountpoint": "programs have files open below it",
    "allow_other": "the kernel knows it of a mount from its beginning",
    "passthrough": "it is agreed with the kernel when a mount is made",
    "existing": "what a home tree held before is looked at by the start",
    "operator": "the start has compared it with the uids of all users",
    "log.file": "the file is open, and what is written to it under way",
    "catalogue": "the catalogue is open with it, and its rows are in memory",
    "commit.hash_threads": _WORKERS,
    "deriving.jobs": _WORKERS,
    "deriving.every": _WORKERS,
    "media.workers": _WORKERS,
    "media.user": _WORKERS,
    "upload": _WORKERS,
    "audit": "its file or socket is open, and lines are under way",
    "backup": "backups lie there, and one may be under way",
    "gateway": _SOCKET,
    "metrics": _SOCKET,
    "serve": "it is the gateway's, another process",
    "processing_cache": "the cache is open with it, and results are being kept",
    "scrub.level": "a verification of all files goes on by it",
    "s3": _CLIENT,
}


def why(key: str) -> str:
    """Give the reason for which a setting stays as it is, as a clause."""
    if key.endswith(".enabled"):
        return _SERVICE
    return _REASONS.get(key) or _REASONS.get(key.partition(".")[0]) or _SERVICE


__all__ = ["why"]
