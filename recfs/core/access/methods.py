"""Which control methods there are, and which of them somebody who is not the operator may be given."""

from typing import Final

from recfs.core.observing.acts import CONTROL_OPS

LOOKS: Final = frozenset({
    "events", "status", "stats", "stats_trend", "top", "settings", "quota_show", "user_list", "info", "ls_files",
    "recording_list", "recording_show", "sweep_list", "sweep_history", "sweep_wait", "queue", "route_explain",
    "trash_list", "watch_status", "verify_status", "verify_wait", "bucket_owner", "lifecycle_show", "drain",
    "versions_list", "derive_wait", "chunks_wait", "cache_get", "cache_wait", "cache_stats",
    "duplicates", "import_list", "import_wait",
})  # fmt: skip
"""Methods that change nothing, and are no acts. Any other is one."""

METHODS: Final = LOOKS | CONTROL_OPS.keys()
"""All there are."""

OPERATORS_ALONE: Final = frozenset({"stop", "leave", "upgrade", "upgraded"})
"""The end of the daemon is never for others to ask for."""

OF_ASKER: Final = ("next_version", "cache_get", "cache_put", "cache_wait", "cache_release")
"""Methods that see and do what whoever asks may see and do on the mount, and nothing else."""

GATEWAY_METHODS: Final = (
    "status", "stats", "stats_trend", "quota_show", "user_list", "info", "ls_files", "recording_list", "recording_show",
    "events", "trash_list", "queue", "duplicates", "cache_stats", *OF_ASKER,
)  # fmt: skip
"""What a second socket offers unless it is told otherwise: questions that nobody outside is asked for, and what is
done with the rights of whoever asks.
"""


def check_offered(methods: tuple[str, ...]) -> None:
    """Raise ValueError for what a second socket cannot offer."""
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"{method[:40]!r} is no method; there are {', '.join(sorted(METHODS - OPERATORS_ALONE))}")
        if method in OPERATORS_ALONE:
            raise ValueError(f"{method!r} is asked for on the store's own socket alone")
    if not methods:
        raise ValueError("an empty list offers nothing; leave `socket` out for no such socket")


__all__ = ["GATEWAY_METHODS", "LOOKS", "METHODS", "OF_ASKER", "OPERATORS_ALONE", "check_offered"]
