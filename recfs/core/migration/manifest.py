"""What a plain tree does not hold of a store: lives of recordings, limits and uids of users, extended attributes."""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from recfs.core.layout import Role, is_id, role_of
from recfs.core.life import Status
from recfs.errors import InvalidArgument, InvalidPath, NameTooLong

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAME = b"recfs-manifest.json"
"""Of the file, beside the tree that it is about."""
FORMAT = 1
LIMITS = ("max_bytes", "max_files", "max_file_size", "max_monthly_uploads")
_ID_MAX = (1 << 32) - 2
_NS_MAX = 1 << 63
_RECORDING_DEPTH = 4
_OWN = b"user."
_COMPUTED = b"user.recfs."


@dataclass(frozen=True, slots=True)
class Life:
    """What was said of a recording."""

    status: Status = Status.ACTIVE
    created_ns: int | None = None
    expires_at_ns: int | None = None
    """The date that was set; None: none was."""
    keep: bool = False
    note: str = ""
    set_by: str = ""

    @property
    def says_nothing(self) -> bool:
        """Whether it is as every recording is made."""
        return self.status is Status.ACTIVE and self.expires_at_ns is None and not self.keep and not self.note


@dataclass(frozen=True, slots=True)
class User:
    """What was said of a user."""

    limits: Mapping[str, int | str] = field(default_factory=dict)
    """The user's own, by the names of `LIMITS`: a number, or "unlimited"."""
    uid: int | None = None
    """None: the user had none (`recfs user add`)."""
    gid: int | None = None
    mode: int | None = None


@dataclass(slots=True)
class Manifest:
    """All of it."""

    version: str = ""
    """Of the recfs that wrote it."""
    made_ns: int = 0
    users: dict[str, User] = field(default_factory=dict)
    recordings: dict[str, Life] = field(default_factory=dict)
    """By path, `users/4/recordings/7`."""
    attributes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    """Extended attributes by path and name."""

    def text(self) -> str:
        """As the file has it: JSON in ASCII; bytes of names that are not UTF-8 are `\\udc80` to `\\udcff`."""
        document = {
            "recfs": self.version,
            "format": FORMAT,
            "made_ns": self.made_ns,
            "users": {name: _user_json(each) for name, each in sorted(self.users.items())},
            "recordings": {path: _life_json(each) for path, each in sorted(self.recordings.items())},
            "attributes": {
                os.fsdecode(path): {
                    os.fsdecode(name): base64.b64encode(value).decode("ascii") for name, value in sorted(own.items())
                }
                for path, own in sorted(self.attributes.items())
            },
        }
        return json.dumps(document, indent=1) + "\n"

    def without(self, top: bytes) -> Manifest:
        """What it says of other things than *top* and all below it."""
        prefix = top + b"/"
        text = os.fsdecode(top)

        def is_other(path: bytes) -> bool:
            return path != top and not path.startswith(prefix)

        return Manifest(
            self.version,
            self.made_ns,
            {user: each for user, each in self.users.items() if f"users/{user}" != text},
            {path: each for path, each in self.recordings.items() if is_other(os.fsencode(path))},
            {path: each for path, each in self.attributes.items() if is_other(path)},
        )

    def add(self, other: Manifest) -> None:
        """Take over what *other* says."""
        self.users |= other.users
        self.recordings |= other.recordings
        self.attributes |= other.attributes

    def add_of(self, other: Manifest, paths: Iterable[bytes]) -> None:
        """Take over what *other* says of files, and of the recordings that they are in, where nothing is said yet."""
        for path in paths:
            recording = os.fsdecode(b"/".join(path.split(b"/")[:_RECORDING_DEPTH]))
            if recording in other.recordings:
                self.recordings.setdefault(recording, other.recordings[recording])
            if path in other.attributes:
                self.attributes.setdefault(path, other.attributes[path])


def _user_json(user: User) -> dict[str, Any]:
    mode = None if user.mode is None else f"{user.mode:04o}"
    return {"limits": dict(user.limits), "uid": user.uid, "gid": user.gid, "mode": mode}


def _life_json(life: Life) -> dict[str, Any]:
    return {
        "status": life.status.value,
        "created_ns": life.created_ns,
        "expires_at_ns": life.expires_at_ns,
        "keep": life.keep,
        "note": life.note,
        "set_by": life.set_by,
    }


def parsed(text: str | bytes) -> Manifest:
    """Read a manifest, which anybody may have written. Raises InvalidArgument that says what is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the manifest is no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        _refuse(f"it is not of format {FORMAT}")
    found = Manifest(_text(document, "recfs"), _number(document, "made_ns", _NS_MAX) or 0)
    for user, told in _table(document, "users").items():
        if not is_id(os.fsencode(user)):
            _refuse(f"{user[:40]!r} is no user id")
        found.users[user] = _parsed_user(_object(told, user))
    for path, told in _table(document, "recordings").items():
        found.recordings[_recording(path)] = _parsed_life(_object(told, path))
    for path, told in _table(document, "attributes").items():
        found.attributes[os.fsencode(path)] = _parsed_attributes(_object(told, path))
    return found


def _parsed_user(told: dict[str, Any]) -> User:
    limits: dict[str, int | str] = {}
    for name, limit in _table(told, "limits").items():
        if name not in LIMITS or not (limit == "unlimited" or _is_number(limit, _NS_MAX)):
            _refuse(f"{name[:40]!r}: {str(limit)[:40]!r} is no limit")
        limits[name] = limit
    mode = told.get("mode")
    if mode is not None and not (isinstance(mode, str) and 1 <= len(mode) <= 5 and set(mode) <= set("01234567")):
        _refuse(f"{str(mode)[:40]!r} is no mode")
    uid, gid = (_number(told, name, _ID_MAX + 1) for name in ("uid", "gid"))
    return User(limits, uid, gid, None if mode is None else int(mode, 8))


def _parsed_life(told: dict[str, Any]) -> Life:
    keep = told.get("keep", False)
    try:
        status = Status(told.get("status", "active"))
    except ValueError:
        _refuse(f"{str(told.get('status'))[:40]!r} is no status of a recording")
    if not isinstance(keep, bool):
        _refuse("keep is true or false")
    created_ns, expires_at_ns = (_number(told, name, _NS_MAX) for name in ("created_ns", "expires_at_ns"))
    return Life(status, created_ns, expires_at_ns, keep, _text(told, "note"), _text(told, "set_by"))


def _parsed_attributes(told: dict[str, Any]) -> dict[bytes, bytes]:
    found = {}
    for name, value in told.items():
        try:
            found[os.fsencode(name)] = base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            _refuse(f"the attribute {name[:40]!r} is not in base64")
    return found


def is_own_attribute(name: bytes) -> bool:
    """Whether an extended attribute is a file's own: `user.*`, but for what recfs computes and lets operators set."""
    return name.startswith(_OWN) and name != _OWN and not name.startswith(_COMPUTED) and b"\0" not in name


def _recording(path: str) -> str:
    parts = tuple(os.fsencode(path).split(b"/"))
    try:
        if parts[0] == b"users" and role_of(parts) is Role.RECORDING:
            return path
    except (InvalidPath, NameTooLong):
        pass
    _refuse(f"{path[:80]!r} is no recording")


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    return _object(document.get(key, {}), key)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{what[:80]!r} is no object")
    return value


def _is_number(value: object, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _number(document: dict[str, Any], key: str, end: int) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or not _is_number(value, end):
        _refuse(f"{key}: {str(value)[:40]!r} is no number below {end}")
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key) or ""
    if not isinstance(value, str):
        _refuse(f"{key}: {str(value)[:40]!r} is no text")
    return value


def _refuse(why: str) -> NoReturn:
    raise InvalidArgument(f"the manifest is not one of recfs: {why}")


__all__ = ["FORMAT", "LIMITS", "NAME", "Life", "Manifest", "User", "is_own_attribute", "parsed"]
