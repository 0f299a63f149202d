"""The file of a plan: read with errors that name file and line, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.core.migration.escapes import unescaped
from recfs.core.migration.plan import FIRST_LINE, Plan, parsed
from recfs.errors import Exists, InvalidArgument, IoFailure, NotFound
from recfs.migration.regular import opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ELSEWHERE = "elsewhere"
"""The key of a plan's header that has the directories outside the old tree, as a JSON list of escaped real paths."""
_SUM = "lines"
"""The key of a plan's last line, which has the sha256 of all others: by it is known whether people edited the plan."""
_BOM = b"\xef\xbb\xbf"
_LINE_MAX = 1 << 22
"""Bytes of one line at most: two paths of 4,095 bytes, however they are escaped, and what a recording's line tells."""


def state_of(plan: Path) -> Path:
    """The file beside a plan that keeps how far its run is. Absolute: rsync works in another directory."""
    return plan.absolute().with_name(f"{plan.name}.state")


def elsewhere_of(plan: Plan) -> list[bytes]:
    """The directories outside the old tree of which a plan takes files. Raises InvalidArgument."""
    try:
        told = json.loads(plan.made_of.get(ELSEWHERE, "[]"))
        if not isinstance(told, list):
            raise TypeError("another kind of value")
        found = [unescaped(each) for each in told]
    except (ValueError, TypeError, InvalidArgument) as error:
        raise InvalidArgument(f"what the plan says of {ELSEWHERE} is no list of directories: {error}") from None
    if not all(each.startswith(b"/") for each in found):
        raise InvalidArgument(f"what the plan says of {ELSEWHERE} has a path that is not absolute")
    return [each.rstrip(b"/") for each in found]


def load(path: Path) -> Plan:
    """Read the plan in the file *path*.

    Raises NotFound where there is no file, IoFailure where it cannot be read, and InvalidArgument that names the file
    and the line where it is no plan, or where an editor broke it.
    """
    try:
        with open(opened(os.fspath(path)), "rb") as file:
            try:
                return parsed(_text(iter(lambda: file.readline(_LINE_MAX + 1), b"")))
            except InvalidArgument as error:
                raise InvalidArgument(f"{path}: {error}") from None
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no plan; `recfs migrate plan` writes one") from None
    except OSError as error:
        raise IoFailure(f"{path}: the plan cannot be read: {error.strerror}") from None


def save(plan: Plan, path: Path, *, force: bool = False) -> None:
    """Write *plan* to *path*, for its owner alone (mode 0600), whole or not at all: durable when this returns.

    What is there already is replaced where that loses nothing: a plan that nobody edited and of which no run has
    begun. With *force* a run's state is kept beside the new plan, and goes on from there.

    Raises Exists for anything else, unless *force*, and always for what is no plan; IoFailure where the disk refuses.
    """
    refuse_to_lose(path, force=force)
    try:
        fd, made = tempfile.mkstemp(prefix=f".{path.name[:200]}.", dir=path.parent)  # with mode 0600
        try:
            with open(fd, "wb") as file:
                file.writelines(_with_sum(plan))
                file.flush()
                os.fsync(fd)
            os.replace(made, path)
        except BaseException:
            os.unlink(made)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise IoFailure(f"{path}: the plan cannot be written: {error.strerror}") from None


def is_edited(path: Path) -> bool:
    """Whether somebody changed the plan in *path* since it was written. Raises OSError where it cannot be read."""
    told: bytes | None = None
    found = hashlib.sha256()
    with open(opened(os.fspath(path)), "rb") as file:
        for line in file:
            if told is None and line.startswith(f"#: {_SUM} = ".encode()):
                told = line.rpartition(b" ")[2].strip()
            else:
                found.update(line)
    return told != found.hexdigest().encode()


def refuse_to_lose(path: Path, *, force: bool) -> None:
    """Raise what `save` would raise before it writes.

    The state of a run whose plan is gone is not lost either, and not taken for that of another plan.
    """
    try:
        with open(opened(os.fspath(path)), "rb") as file:
            first = file.readline(len(FIRST_LINE) + 8).removeprefix(_BOM).rstrip()
        edited = first == FIRST_LINE.encode() and is_edited(path)
    except FileNotFoundError:
        first, edited = FIRST_LINE.encode(), False
    except OSError as error:
        raise IoFailure(f"{path}: it cannot be looked into: {error.strerror}") from None
    if first != FIRST_LINE.encode():
        raise Exists(f"{path} is there already, and no plan of a migration: name another file")
    if force:
        return
    state = state_of(path)
    if os.path.lexists(state):
        raise Exists(f"a run of {path} has begun ({state.name}): name another file, or use --force")
    if edited:
        raise Exists(f"{path} was edited since it was written: name another file, or use --force")


def _with_sum(plan: Plan) -> Iterator[bytes]:
    """The lines of the file, and at its end their sum."""
    found = hashlib.sha256()
    for line in Plan({key: value for key, value in plan.made_of.items() if key != _SUM}, plan.entries).lines():
        data = f"{line}\n".encode()
        found.update(data)
        yield data
    yield f"#: {_SUM} = {found.hexdigest()}\n".encode()


def _text(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if len(line) > _LINE_MAX:
            raise InvalidArgument(f"line {number}: it has more than {_LINE_MAX:,} bytes")
        try:
            yield (line.removeprefix(_BOM) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"line {number}: byte {error.start + 1} is no UTF-8: an editor saved the plan in another encoding"
            ) from None


__all__ = ["ELSEWHERE", "elsewhere_of", "is_edited", "load", "refuse_to_lose", "save", "state_of"]
