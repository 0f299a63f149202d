"""What is special about single methods of a daemon: who can answer them, and how long that may take."""

from typing import Final

LONG_S: Final = 7 * 86_400.0
"""For what takes as long as files are large, or S3 is slow; a daemon that ends breaks the connection off."""

ASK_S3: Final = frozenset(
    {
        *("fetch", "pin", "tier_run", "restore", "presign", "lifecycle_show", "lifecycle_apply"),
        *("sweep_archive", "sweep_multiparts", "sweep_versions", "bucket_owner", "bucket_claim"),
        *("import_list", "import_copies"),
    }
)
"""Those that wait for S3 most of the time: who waits is told so."""
LONG: Final = ASK_S3 | {
    *("upgrade", "evict", "backup_now", "user_remove", "derive", "chunks", "chunks_extract"),
    *("sweep_expired", "trash_list", "trash_restore", "trash_purge"),
}
"""Those whose answer may be days away."""
TELL_THEMSELVES: Final = frozenset({"drain", "stop", "leave", "events"})
"""Those whose command says itself what it waits for."""

_TAKES_ONE: Final = "this takes one; `recfs mount` starts it"
LIVE_ONLY: Final = {
    "drain": "what waits is done after the next `recfs mount`",
    "stop": "nothing to stop",
    "leave": "nothing to be left",
    "reload": "the next `recfs mount` reads the configuration",
    "upgrade": "the next `recfs mount` starts what lies on the disk",
} | dict.fromkeys(
    (
        *("queue_retry", "queue_drop", "evict", "fetch", "pin", "tier_run", "restore", "presign"),
        *("lifecycle_show", "lifecycle_apply", "sweep_list", "sweep_run", "sweep_wait", "sweep_stop"),
        *("sweep_archive", "sweep_multiparts", "sweep_orphans", "sweep_versions"),
        *("watch_status", "watch_scan", "watch_accept"),
        *("verify_status", "verify_begin", "verify_wait", "verify_stop", "versions_list", "versions_prune"),
        *("derive", "derive_wait", "chunks_extract", "chunks_wait", "cache_wait", "cache_release", "dedupe"),
        *("import_begin", "import_wait", "import_stop"),
        *("probe", "top", "settings", "upgraded"),
    ),
    _TAKES_ONE,
)
"""What only a daemon does, and what to say without one."""
WRITING: Final = frozenset(
    {
        *("quota_set", "user_add", "user_remove", "bucket_owner", "bucket_claim", "backup_now", "verify"),
        *("sweep_temp", "sweep_expired", "trash_list", "trash_restore", "trash_purge"),
        *("recording_expire", "recording_keep", "recording_set_expiry", "chunks", "next_version"),
        *("cache_get", "cache_put", "cache_stats", "cache_purge"),
        *("import_objects", "import_list", "import_copies"),
    }
)
"""What changes the store, and so takes it whole where no daemon runs."""
