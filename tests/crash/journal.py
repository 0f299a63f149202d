"""What a worker asked for and what it was told, in a file outside the mount: a line before each call, one after it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Call:
    """One call. Times are CLOCK_MONOTONIC, which all processes share."""

    number: int
    what: str
    with_: dict[str, Any]
    returned_ns: int | None = None
    """None: nobody was told what became of it."""
    result: Any = None
    error: int | None = None


class Journal:
    """The worker's side."""

    def __init__(self, path: Path, *, first: int = 1) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._next = first

    def _line(self, **what: Any) -> None:
        os.write(self._fd, json.dumps(what).encode() + b"\n")

    def intent(self, what: str, with_: Mapping[str, Any]) -> Call:
        """The call is about to be made."""
        call = Call(self._next, what, dict(with_))
        self._next += 1
        self._line(n=call.number, what=what, **{"with": call.with_})
        return call

    def returned(self, call: Call, *, result: Any = None, error: int | None = None) -> None:
        """It returned."""
        call.returned_ns, call.result, call.error = time.monotonic_ns(), result, error
        self._line(n=call.number, t=call.returned_ns, result=result, error=error)

    def wrong(self, text: str) -> None:
        """The worker saw something that must not be."""
        self._line(wrong=text)

    def end_line(self) -> None:
        """What was begun before was cut off."""
        os.write(self._fd, b"\n")

    def close(self) -> None:
        """No more of it."""
        os.close(self._fd)


@dataclass
class Told:
    """What a journal says."""

    calls: list[Call] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def read(path: Path) -> Told:
    """Everything noted so far. A line that was cut off (its writer was killed) is none."""
    told = Told()
    calls: dict[int, Call] = {}
    if not path.exists():
        return told
    for line in path.read_bytes().split(b"\n"):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if "wrong" in said:
            told.wrong.append(said["wrong"])
        elif "what" in said:
            calls[said["n"]] = Call(said["n"], said["what"], said["with"])
        else:
            call = calls[said["n"]]
            call.returned_ns, call.result, call.error = said["t"], said["result"], said["error"]
    told.calls = [calls[number] for number in sorted(calls)]
    return told


def ended(path: Path) -> None:
    """Note, in the place of a worker that was killed, that the kernel has closed its descriptors."""
    told = read(path)
    journal = Journal(path, first=max((call.number for call in told.calls), default=0) + 1)
    journal.end_line()
    journal.returned(journal.intent("exit", {}))
    journal.close()
