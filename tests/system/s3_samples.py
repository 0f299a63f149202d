"""What a daemon answers of the S3 tier, as the fake daemon gives it."""

from typing import Any

MIB = 1 << 20
PATH = "users/5/recordings/142/source.mp4"

TOTALS = {
    "rows": 3,
    "running": 1,
    "failed": 1,
    "pending": 0,
    "waiting": 1,
    "uploads": 2,
    "deletes": 1,
    "moves": 0,
    "aborts": 0,
    "unsent_bytes": 6 * MIB,
    "sent_bytes": MIB,
}
FAR = {
    "url": "s3://bucket/prefix/",
    "queue": TOTALS,
    "unsent_bytes": 6 * MIB,
    "local_bytes": 3 << 30,
    "budget_bytes": 20 << 30,
    "breaker": {"state": "closed", "error": None},
    "problem": None,
    "tier_run": None,
}
_RUNNING: dict[str, Any] = {
    "id": 7,
    "kind": "upload",
    "ino": 17,
    "path": PATH,
    "key": None,
    "state": "running",
    "why": "",
    "size_bytes": 5 * MIB,
    "sent_bytes": MIB,
    "attempts": 0,
    "error": "",
    "next_try_s": None,
    "created_ns": 1_790_000_000_000_000_000,
}
FAILED = _RUNNING | {
    "id": 8,
    "ino": 18,
    "path": "users/5/recordings/142/audio.mp3",
    "state": "failed",
    "why": "the server said no",
    "size_bytes": MIB,
    "sent_bytes": 0,
    "attempts": 3,
    "error": "the server said no",
    "next_try_s": 42.0,
}
_DELETION = _RUNNING | {
    "id": 9,
    "kind": "delete",
    "ino": 0,
    "path": None,
    "key": "users/5/recordings/142/old.mp4",
    "state": "waiting",
    "why": "kept for the trash's retention",
    "size_bytes": 0,
    "sent_bytes": 0,
    "next_try_s": 3600.0,
}
QUEUE = {
    "rows": [_RUNNING, FAILED, _DELETION],
    "more": 0,
    "totals": TOTALS,
    "breaker": {"state": "closed", "error": None},
}
OUTCOME: dict[str, Any] = {"files": 2, "bytes": 6 * MIB, "already": 1, "kept": [], "kept_files": 0}
PINNED = OUTCOME | {"fetched": OUTCOME | {"files": 1, "bytes": MIB, "already": 0}}
EXPLAINED: dict[str, Any] = {
    "path": PATH,
    "exists": True,
    "size_bytes": 5 * MIB,
    "age_s": 86_400.0,
    "assumed": [],
    "s3": "s3://bucket/prefix/",
    "rules": [
        {
            "rule": 1,
            "conditions": "users/**, min_size 8 MiB",
            "to": "s3",
            "matched": False,
            "decides": False,
            "why": "5 MiB is below min_size",
        },
        {"rule": 2, "conditions": "users/**", "to": "s3", "matched": True, "decides": True, "why": "matches"},
    ],
    "decision": {
        "store": "s3",
        "storage_class": "GLACIER_IR",
        "keep_local_s": 0.0,
        "rule": 2,
        "reason": "rule 2 (users/**)",
    },
    "now": {"state": "committed", "size_bytes": 5 * MIB, "location": "local", "s3": None, "queued": False},
    "move": {"step": "upload", "reason": "rule 2 (users/**)"},
}
TIER_RUN: dict[str, Any] = {
    "dry_run": True,
    "files": 1234,
    "steps": {
        "upload": {"files": 1, "bytes": 5 * MIB},
        "unqueue": {"files": 0, "bytes": 0},
        "bring home": {"files": 0, "bytes": 0},
        "store anew": {"files": 0, "bytes": 0},
    },
    "moved": [
        {
            "path": PATH,
            "state": "committed",
            "size_bytes": 5 * MIB,
            "step": "upload",
            "reason": "rule 2 (users/**)",
        }
    ],
    "more": 0,
    "kept": [],
    "kept_files": 0,
}
RESTORE = {
    "path": PATH,
    "key": PATH,
    "storage_class": "GLACIER",
    "state": "restoring",
    "requested": True,
    "days": 7,
    "tier": "Standard",
}
PRESIGNED = {
    "path": PATH,
    "key": PATH,
    "method": "GET",
    "url": "https://s3.invalid/bucket/source.mp4?X-Amz-Expires=3600",
    "expires_s": 3600,
    "expires_ns": 1_790_000_000_000_000_000,
}
RULE: dict[str, Any] = {
    "id": "recfs-abort-multipart",
    "prefix": "",
    "enabled": True,
    "transitions": [],
    "expire_days": None,
    "abort_multipart_days": 7,
}
_TRANSITION = RULE | {
    "id": "recfs-transition-users",
    "prefix": "users/",
    "transitions": [{"days": 30, "storage_class": "GLACIER"}],
    "abort_multipart_days": None,
}
LIFECYCLE: dict[str, Any] = {
    "configured": [RULE, _TRANSITION],
    "bucket": [RULE],
    "missing": ["recfs-transition-users"],
    "superfluous": [],
    "differs": True,
}
ANSWERS: dict[str, Any] = {
    "queue": QUEUE,
    "queue_retry": {"retried": [7, 8], "kept": [], "gone": []},
    "queue_drop": {"dropped": [7], "kept": [], "gone": []},
    "evict": OUTCOME,
    "fetch": OUTCOME,
    "pin": PINNED,
    "route_explain": EXPLAINED,
    "tier_run": TIER_RUN,
    "restore": RESTORE,
    "presign": PRESIGNED,
    "lifecycle_show": LIFECYCLE,
    "lifecycle_apply": LIFECYCLE | {"dry_run": False, "applied": True},
}
