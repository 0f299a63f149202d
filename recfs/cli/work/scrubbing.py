"""The background scrub, in a line: for `recfs status` and `recfs verify --status`."""

from typing import Any

from recfs.cli.common import output


def scrub_line(found: dict[str, Any]) -> str:
    """How far the scrub is, for people."""
    at = f" {output.show_name(found['at'])}" if found["at"] else ""
    told = (
        f"{found['doing']}{at}: {found['files']:,} of {found['total_files']:,} files, "
        f"{output.size(found['read_bytes'])} read, {output.number_of(found['problems'], 'problem')}"
    )
    if found["began_s_ago"] is not None:
        told += f"; round begun {output.duration(found['began_s_ago'])} ago"
    if found["ended_s_ago"] is not None:
        told += f", ended {output.duration(found['ended_s_ago'])} ago"
    return told
