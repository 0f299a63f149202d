"""Names: kept apart, as they are, in listings, and in the request that deletes many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recfs.core.keys import key_for
from recfs.core.naming import show_name
from recfs.ports.object_errors import ObjectStoreError, RequestRefused, ServerFault, StoreOutage, UploadInvalid
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.features.model import OFFERED, Feature, Outcome, Seen, Weight, absent, wrong
from recfs.stores.s3.features.room import HIDDEN, HIDDEN_PLACE, OutOfTime, Room, bytes_in_memory

_LONG_KEY = 1024
_SMALL = b"small\n"
_OWN = tuple(key_for(name) for name in (b"back\\slash", b"not \xff\xfe UTF-8", b"tab\tand\nline", b"\x7f"))
_SPECIAL = ("a b+c", "50%25", "&=?#", "'\"<>", ";:,@$!*()[]{}|^`~", "a.", ".a", "\N{CLAPPER BOARD}")
_ALIKE = ("film", "Film", "FILM", "fu\u0308r", "f\u00fcr")


def _kept(*names: str, place: str = "", odd: bool = False) -> Callable[[Room, str], Seen]:
    """An attempt with these names."""
    return lambda room, at: _try_names(room, (room.base if place else at) + place, names, odd=odd)


def _try_names(room: Room, at: str, names: Sequence[str], *, odd: bool = False) -> Seen:
    """Put each with bytes of its own; each has to come back, to be listed, and to go by a request that names all."""
    keys = {f"{at}{name}": f"{number} {name!r}".encode() for number, name in enumerate(names)}
    for key, data in keys.items():
        room.will_make(key, odd=odd)
        try:
            room.put(key, data)
        except (StoreOutage, OutOfTime):
            raise
        except ObjectStoreError as error:
            return absent(f"{_shortened(key[len(at) :])}: {error.code}")
    for key, data in keys.items():
        if room.get(key) != data:
            return wrong(f"{_shortened(key[len(at) :])} is another object's name, too")
    listed = room.listed(at)
    missing = [key for key in keys if key not in listed]
    if missing:
        others = set(listed) - set(keys)
        told = f", {_shortened(min(others)[len(at) :])} instead" if others else ""
        return wrong(f"{_shortened(missing[0][len(at) :])} is not listed{told}")
    return _deleted(room, at, list(keys))


def _deleted(room: Room, at: str, keys: Sequence[str]) -> Seen:
    failed = room.client.delete(keys)
    if failed:
        return absent(f"{_shortened(failed[0][0][len(at) :])} is not deleted: {failed[0][1].code}")
    for key in keys:
        if room.get(key) is not None:
            return wrong(f"{_shortened(key[len(at) :])} is said to be deleted, and is still there")
    return OFFERED


def _shortened(name: str) -> str:
    text = show_name(name)
    return f'"{text[:18]}…" ({len(name.encode())} bytes)' if len(text) > 30 else f'"{text}"'


def _long_key(room: Room, at: str) -> Seen:
    """A key of the 1,024 bytes that S3 allows, by directories of 100."""
    left = _LONG_KEY - len(room.client.full(at).encode())
    if left < 1:
        return Seen(Outcome.UNTRIED, "the prefix leaves no room for it")
    name = ("d" * 99 + "/") * (left // 100) + "f" * (left % 100)
    return _try_names(room, at, [name.rstrip("/") if name.endswith("/") else name])


def _beneath(room: Room, at: str) -> Seen:
    """`a` and `a/b`: a file that was removed, its object still there, and a directory that took its name."""
    for names in (("a", "a/b"), ("c/d", "c")):
        seen = _try_names(room, at, names)
        if seen.outcome is not Outcome.OFFERED:
            return seen
    for there, large in (("e", "e/f"), ("g/h", "g")):
        room.put(f"{at}{there}", _SMALL)
        try:
            _upload_in_parts(room, f"{at}{large}", _SMALL)
        except (ServerFault, UploadInvalid, RequestRefused) as error:
            return absent(f"an upload in parts of {_shortened(large)} beside {_shortened(there)}: {error.code}")
        if room.get(f"{at}{there}") != _SMALL or room.get(f"{at}{large}") != _SMALL:
            return wrong(f"after an upload in parts of {_shortened(large)} one of the two is gone")
    return OFFERED


def _upload_in_parts(room: Room, key: str, data: bytes) -> None:
    upload_id, meta = room.start_upload(key), ObjectMeta()
    with bytes_in_memory(data) as fd:
        part = room.client.upload_part(key, upload_id, 1, fd, 0, len(data))
    room.client.finish_multipart(key, upload_id, [part], meta, len(data))


def _many_deleted(room: Room, at: str) -> Seen:
    for name in ("one", "two", "stays"):
        room.put(f"{at}{name}", name.encode())
    try:
        seen = _deleted(room, at, [f"{at}one", f"{at}two", f"{at}never there"])
    except RequestRefused as error:
        return absent(error.code)
    if seen.outcome is not Outcome.OFFERED:
        return seen
    return OFFERED if room.get(f"{at}stays") == b"stays" else wrong("an object that was not named is gone")


_PAGED = ("b", "a/b", "a-b", "a", "A", "a/a", "\u00fc", "z\u0308", "\uf75c", "\N{CLAPPER BOARD}", "a0")


def _in_pages(room: Room, at: str) -> Seen:
    """Pages of two have every name once, also from the middle on."""
    wanted, found = _listed(room, at)
    if sorted(found) != sorted(wanted):
        lost = next((key for key in wanted if found.count(key) != 1), at)
        return wrong(f"{_shortened(lost[len(at) :])} is in the pages {found.count(lost)} times")
    middle = len(found) // 2
    rest = room.listed(at, StartAfter=room.client.full(found[middle]))
    if rest != found[middle + 1 :]:
        return wrong(f"a listing that begins after {_shortened(found[middle][len(at) :])} is another")
    return OFFERED


def _in_order(room: Room, at: str) -> Seen:
    """In the order of their UTF-8 bytes (S3 API, ListObjectsV2: "in lexicographical order")."""
    wanted, found = _listed(room, at)
    for first, second in zip(found, wanted, strict=False):
        if first != second:
            return wrong(f"{_shortened(first[len(at) :])} comes before {_shortened(second[len(at) :])}")
    return OFFERED


def _listed(room: Room, at: str) -> tuple[list[str], list[str]]:
    """Keys in the order they should have, and as they come in pages of two."""
    for name in _PAGED:
        room.put(f"{at}{name}", name.encode())
    wanted = sorted((f"{at}{name}" for name in _PAGED), key=str.encode)
    return wanted, room.listed(at, MaxKeys=2)


_ELSEWHERE = "have such files stay here by a [[route]] rule, or choose another server"

FEATURES = (
    Feature(
        "names as recfs writes them",
        _kept(*_OWN),
        "files with backslashes, control characters or bytes that are no UTF-8 in their names are lost, or stay here",
        _ELSEWHERE,
        Weight.FAILURE,
    ),
    Feature(
        "special characters",
        _kept(*_SPECIAL),
        "files with such names are lost, or stay here",
        _ELSEWHERE,
        Weight.FAILURE,
    ),
    Feature(
        "names that look alike",
        _kept(*_ALIKE),
        "files whose names differ in case, or in how a letter is composed, take one another's place",
        _ELSEWHERE,
        Weight.FAILURE,
    ),
    Feature(
        "name of 255 bytes",
        _kept("n" * 255),
        "files with long names stay here",
        "rename them; `recfs status` names them",
        Weight.WARNING,
    ),
    Feature(
        "name of 255 bytes that are no UTF-8",
        _kept(key_for(b"\xff" * 255)),
        "such a byte takes three in a key, so names of more than 85 of them may be refused, and their files stay here",
        "rename them; `recfs status` names them",
    ),
    Feature(
        "key of 1,024 bytes",
        _long_key,
        "files whose path is long stay here",
        "keep [s3] prefix and the paths short; `recfs status` names the files",
        Weight.WARNING,
    ),
    Feature(
        "backslash",
        _kept("x\\y", odd=True),
        "recfs writes U+F75C for it, so its files are not concerned; what other clients put there may be",
        "nothing: recfs never sends one",
    ),
    Feature(
        "no name hidden from listings",
        _kept(*HIDDEN, place=HIDDEN_PLACE, odd=True),
        "files below directories named .versions, *.versions or .uploads are stored and read, but in no listing: "
        "other clients (rclone, aws s3 sync) leave them out of a copy",
        "give such directories other names, or have them stay here by a [[route]] rule",
    ),
    Feature(
        "name below another",
        _beneath,
        "a large file that takes the name of a directory, or lies in one that took the name of a file, is stored when "
        "the objects that were there are gone, and not before",
        "nothing: recfs tries again until they are",
    ),
    Feature(
        "many deleted at once",
        _many_deleted,
        "objects of removed files stay, and cost as much as others",
        "delete them with the server's own tools",
        Weight.WARNING,
    ),
    Feature(
        "listing in pages",
        _in_pages,
        "other clients leave objects out of a copy of the bucket; recfs finds its files by its own catalogue",
        "compare a copy of the bucket with `recfs ls-files -r`",
        Weight.WARNING,
    ),
    Feature(
        "listing in order",
        _in_order,
        "clients that compare two listings side by side (aws s3 sync) copy what is there already, or delete too much; "
        "recfs finds its files by its own catalogue",
        "compare a copy of the bucket with `recfs ls-files -r`, and never have such a client delete",
    ),
)
