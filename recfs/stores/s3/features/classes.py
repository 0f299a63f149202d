"""Storage classes: kept, refused where they are unknown, and those that a restore has to come before."""

from __future__ import annotations

from recfs.ports.object_errors import NotOffered, ObjectArchived, ObjectStoreError, RequestRefused, StoreOutage
from recfs.stores.s3.features.model import OFFERED, Feature, Seen, Weight, absent, wrong
from recfs.stores.s3.features.room import OutOfTime, Room

_UNKNOWN, _COMMON, _ARCHIVE = "RECFS_NO_SUCH_CLASS", "STANDARD_IA", "GLACIER"
_DATA = b"of a storage class\n"


def _kept(room: Room, at: str) -> Seen:
    """Those of the configuration; without any, a common one."""
    for name in sorted(room.wants.classes) or [_COMMON]:
        key = f"{at}{name}"
        try:
            room.put(key, _DATA, StorageClass=name)
        except (StoreOutage, OutOfTime):
            raise
        except ObjectStoreError as error:
            return absent(f"{name} is refused: {error.code}")
        info = room.client.head(key)
        there = "nothing" if info is None else info.storage_class
        if there != name:
            return wrong(f"{name} is taken, and the object is of class {there}")
    return OFFERED


def _unknown_refused(room: Room, at: str) -> Seen:
    try:
        room.put(f"{at}unknown", _DATA, StorageClass=_UNKNOWN)
    except (RequestRefused, NotOffered):
        return OFFERED
    return absent("an object of a class that does not exist is taken")


def _archived(room: Room, at: str) -> Seen:
    key = f"{at}cold"
    room.put(key, _DATA, StorageClass=_ARCHIVE)
    try:
        room.get(key)
    except ObjectArchived:
        return OFFERED
    return absent(f"an object of class {_ARCHIVE} is served at once, like any other")


def _restored(room: Room, at: str) -> Seen:
    key = f"{at}cold"
    room.put(key, _DATA, StorageClass=_ARCHIVE)
    room.client.restore(key, 1)
    info = room.client.head(key)
    if info is None or info.restore_state is None or info.restore_state == "archived":
        return wrong("a restore is taken, and nothing tells of it")
    return OFFERED


FEATURES = (
    Feature(
        "storage classes",
        _kept,
        "files are not stored in such a class, or not stored at all",
        "name only classes in [s3], [[route]] and [lifecycle] that the server has",
        wanted=lambda wants: bool(wants.classes),
        weight_wanted=Weight.FAILURE,
    ),
    Feature(
        "unknown class refused",
        _unknown_refused,
        "a mistyped storage_class is not noticed: the class is a mere label there, or costs what nobody expects",
        "read the names in [s3], [[route]] and [lifecycle] once more",
        wanted=lambda wants: bool(wants.classes),
    ),
    Feature(
        "archive classes",
        _archived,
        "GLACIER and DEEP_ARCHIVE are labels there: such objects are read at once, like all others, and cost as much",
        "name no archive class in [s3], [[route]] or [lifecycle] with this server",
        wanted=lambda wants: wants.archive,
    ),
    Feature(
        "restore",
        _restored,
        "`recfs restore` is refused: what the server keeps in an archive class comes back by its own tools only",
        "name no archive class in [s3], [[route]] or [lifecycle] with this server",
        wanted=lambda wants: wants.archive,
        weight_wanted=Weight.FAILURE,
    ),
)
