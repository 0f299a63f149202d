"""What a daemon that drains is waiting for, in words."""

import re
from collections.abc import Callable
from typing import Any

from recfs.cli.common import output
from recfs.cli.work.queue import summary


def lines_of(left: dict[str, Any]) -> list[str]:
    """Return one line per thing that is left, as `drain` answers it."""
    lines = []
    if left.get("sealing"):
        lines.append(f"{output.number_of(left['sealing'], 'closed file')} to be committed")
    if unhashed := left.get("unhashed"):
        lines.append(f"{yet_to_hash(unhashed)} to be hashed")
    lines += [hashed(file) for file in left.get("hashing") or ()]
    if left.get("settling"):
        lines.append(f"{output.number_of(left['settling'], 'entry', 'entries')} to be moved on the disk")
    if left.get("dirty"):
        lines.append(f"{output.number_of(left['dirty'], 'change')} to be saved")
    lines += [aside(item) for item in left.get("set_aside") or ()]
    if left.get("problem"):
        lines.append(f"the catalogue cannot be written: {output.show_name(left['problem'])}")
    return lines + of_queue(left.get("s3"))


def yet_to_hash(unhashed: dict[str, Any]) -> str:
    """Return how many files a rebuild has left to be hashed when there is time."""
    return f"{output.number_of(unhashed['files'], 'file')} of the rebuilt catalogue ({output.size(unhashed['bytes'])})"


def aside(item: dict[str, Any]) -> str:
    """Return what is set aside, why, and when it is tried again."""
    what = ": ".join(output.show_name(item[key]) for key in ("part", "path", "reason") if item[key])
    return what + next_try(item.get("next_try_s"), item["tries"])


def next_try(seconds: float | None, tries: int) -> str:
    """Return when what fails is tried again; "" where that is not known. `Teller` knows these words."""
    if seconds is None:
        return ""
    when = f"in {output.duration(float(round(seconds)))}" if seconds >= 1 else "now"
    return f"; next try {when} ({tries:,} so far)"


def hashed(file: dict[str, Any]) -> str:
    """Return how far the hashing of a file is, as `status` answers it."""
    line = f"{output.show_name(file['path'])} is hashed: {progress(file)}"
    return line if file["eta_s"] is None else f"{line}, {output.duration(file['eta_s'])} to go"


def progress(file: dict[str, Any]) -> str:
    """Return the part of a file that has been hashed."""
    return f"{output.size(file['done_bytes'])} of {output.size(file['total_bytes'])}"


def of_queue(far: dict[str, Any] | None) -> list[str]:
    """Return what is left of the S3 queue: the totals, and what fails or waits for another row by name."""
    rows = far.get("rows", []) if far is not None else []
    waiting = [row for row in rows if row["state"] in ("pending", "waiting") and row.get("why")]
    if far is None or not (waiting or any(far["totals"][state] for state in ("running", "failed", "pending"))):
        return []
    lines = [f"S3: {summary(far['totals'])}, {output.size(far['totals']['sent_bytes'])} sent"]
    lines += [failing(row) for row in rows if row["state"] == "failed"]
    lines += [f"{row['kind']} of {output.show_name(row['path'])} {output.show_name(row['why'])}" for row in waiting]
    return lines + down(far.get("breaker"))


def failing(row: dict[str, Any]) -> str:
    """Return what fails of the S3 queue, and why."""
    name = output.show_name(row["path"] or row["key"] or "?")
    return f"{row['kind']} of {name} fails: {output.show_name(row['error'])}" + next_try(
        row.get("next_try_s"), row.get("attempts", 0)
    )


def down(breaker: dict[str, Any] | None) -> list[str]:
    """Return that S3 is down, and why, where it is: what is left waits for it."""
    if breaker is None or breaker["state"] == "closed":
        return []
    return [f"S3 is down: {output.show_name(breaker['error'] or breaker['state'])}"]


def staying(found: dict[str, Any] | None) -> str | None:
    """Return what is not uploaded as long as its name looks temporary, with the remedy; None if there is nothing."""
    if not found or not found["files"]:
        return None
    names = ", ".join(map(output.show_name, found["paths"]))
    more = ", …" if found["files"] > len(found["paths"]) else ""
    count = output.number_of(found["files"], "file")
    return (
        f"{count}, {output.size(found['bytes'])}, by temporary names: {names}{more}; rename or remove what is left over"
    )


def of_status(status: dict[str, Any]) -> list[str]:
    """Return the same from an answer of `status`."""
    pipeline = status.get("pipeline") or {}
    far = status.get("s3")
    left = {key: pipeline.get(key) for key in ("sealing", "settling", "dirty", "problem")}
    waited_for = [item for item in status.get("set_aside") or () if item.get("next_try_s") is not None]
    lines = lines_of(left | {"set_aside": waited_for[:_NAMED]})
    lines += [hashed(file) for file in pipeline.get("files") or ()]
    if far is not None:
        lines += of_queue(queue_of(status))
        if far["problem"] and far["queue"]["failed"] and not down(far.get("breaker")):
            lines.append(output.show_name(far["problem"]))
    return lines


def queue_of(status: dict[str, Any]) -> dict[str, Any] | None:
    """Return what an answer of `status` tells of the queue, for `of_queue`."""
    far = status.get("s3")
    return None if far is None else {"totals": far["queue"], "breaker": far.get("breaker")}


_NAMED = 10
_COUNTDOWN = re.compile(r"; next try (in [^(;]*|now) ")


class Teller:
    """Prints what is waited for, whenever that has changed: a countdown alone is no change."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: list[str] = []

    def tell(self, lines: list[str]) -> None:
        """Print *lines* unless they are those of last time."""
        gist = [_COUNTDOWN.sub("", line) for line in lines]
        if lines and gist != self._last:
            self._say("waiting for " + "; ".join(lines))
        self._last = gist
