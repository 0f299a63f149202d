"""Recordings: the list of a user's, one of them with its player, and where new ones are uploaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from recfs.client.uploads import ALLOWED_EXTENSIONS
from recfs.web.page.frame import Failure, Look
from recfs.web.page.inside import API
from recfs.web.page.shaping import moment, parts, stamp
from recfs.web.page.texts import Texts

SORTS: Final = ("newest", "oldest", "changed", "name", "largest", "longest")
_BY_NUMBER: Final = {"newest": "desc", "oldest": "asc"}
PAGE: Final = 48
SORTED: Final = 1000
"""So many recordings are read to be sorted by what is known of them; of more it is said that these are not all."""
_API_PAGE: Final = 200
_FILES: Final = 200
_TRACKS: Final = "transcription/"
_PLAYED: Final = ("video/", "audio/")
_BEST: Final = ("video.mp4", "source.", "audio.")
"""What is played of a recording, the best first: browsers know the encoded video better than any source."""


async def users_of(look: Look) -> list[str]:
    """Give the users whose files whoever looks may see, those of an admin as far as the daemon tells them."""
    if not look.who.is_admin:
        return sorted(look.who.users, key=order_of)
    found = {account["user"] for account in await look.had("users") or []}
    named = look.request.query_params.get("user")
    return sorted(found | ({named} if named else set()), key=order_of)


def order_of(user: str) -> tuple[int, str]:
    """Numbers in their order, then UUIDs."""
    return (len(user), user)


def address(user: str, recording: str) -> str:
    """Give the page of a recording; both are ids."""
    return f"/recordings/{user}/{recording}"


# --- the list ---------------------------------------------------------------------------------------------------


async def recordings(look: Look) -> dict[str, Any]:
    """The recordings of one user, a page of them."""
    t = look.t
    users = await users_of(look)
    user = look.asked("user", tuple(users), users[0] if users else "")
    sort = look.asked("sort", SORTS, "newest")
    search = look.request.query_params.get("search", "").strip()[:200]
    wanted = {"user": user, "sort": sort, "search": search}
    items: list[dict[str, Any]] = []
    pages = None
    told = ""
    if user and sort in _BY_NUMBER:
        cursor = look.request.query_params.get("cursor")
        found = await look.had(
            "users", user, "recordings", order=_BY_NUMBER[sort], q=search or None, limit=PAGE, cursor=cursor
        )
        if found is not None:
            items = found["items"]
            following = found["next"] and _again(wanted, cursor=found["next"])
            pages = {"before": _again(wanted) if cursor else None, "after": following}
            told = t.many("recordings.shown", len(items))
    elif user:
        items, is_all = await _all(look, user, search)
        items.sort(key=_KEYS[sort])
        at = _number(look.request.query_params.get("from"), len(items))
        told = t.many("recordings.shown", len(items)) if is_all else t("recordings.first", n=t.number(len(items)))
        before, after = max(at - PAGE, 0), at + PAGE
        pages = {
            "before": _again(wanted, **({"from": before} if before else {})) if at else None,
            "after": _again(wanted, **{"from": after}) if after < len(items) else None,
        }
        items = items[at : at + PAGE]
    return {
        "title": t("recordings.title"), "users": users, "wanted": wanted, "sorts": SORTS, "found": told,
        "cards": [_card(t, each) for each in items],
        "pages": pages if pages and any(pages.values()) else None,
    }  # fmt: skip


async def _all(look: Look, user: str, search: str) -> tuple[list[dict[str, Any]], bool]:
    """Give a user's recordings, and whether these are all."""
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < SORTED:
        page = await look.had(
            "users", user, "recordings", order="desc", q=search or None, limit=_API_PAGE, cursor=cursor
        )
        if page is None:
            return found, True
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found, True
    return found, False


def _of_source(recording: Mapping[str, Any], name: str) -> Any:
    return (recording["source"] or {}).get(name)


def _duration_s(recording: Mapping[str, Any]) -> float | None:
    value = (_of_source(recording, "media") or {}).get("duration_s")
    return float(value) if isinstance(value, int | float) else None


def name_of(recording: Mapping[str, Any]) -> str:
    """Give what a recording is called: as its source was when it was uploaded, else by its number."""
    return _of_source(recording, "original_name") or str(recording["id"])


_KEYS: Final = {
    "changed": lambda each: -each["modified_ns"],
    "name": lambda each: name_of(each).casefold(),
    "largest": lambda each: -(each["size_bytes"] or 0),
    "longest": lambda each: -(_duration_s(each) or 0.0),
}


def _number(text: str | None, most: int) -> int:
    return (
        min(int(text), max(most - 1, 0))
        if text is not None and text.isascii() and text.isdigit() and len(text) < 7
        else 0
    )


def _again(wanted: Mapping[str, str], **more: object) -> str:
    """Give the address of the list with what is wanted of it."""
    return f"/recordings?{urlencode({name: value for name, value in {**wanted, **more}.items() if value})}"


def _card(t: Texts, recording: dict[str, Any]) -> dict[str, Any]:
    status = recording["status"]
    return {
        "href": address(recording["user"], recording["id"]),
        "name": name_of(recording),
        "thumbnail": recording["thumbnail"] if recording["has_thumbnail"] else None,
        "duration": t.clock(_duration_s(recording)),
        "state": status if status != "active" else _of_source(recording, "state"),
        "size": t.size(recording["size_bytes"]),
        "when": moment(recording["modified_ns"]),
    }


# --- one of them ------------------------------------------------------------------------------------------------


async def player(look: Look) -> dict[str, Any]:
    """One recording: what is played of it, its subtitles, facts and files."""
    t = look.t
    user, recording = look.request.path_params["user"], look.request.path_params["recording"]
    found = await look.api.get("users", user, "recordings", recording, deep="true", limit=_FILES)
    files = [each for each in found["entries"] if each["kind"] == "file"]
    played = _played(files)
    if found["next"] is not None:
        look.failures.append(Failure(t("player.more_files", n=t.number(_FILES))))
    return {
        "title": name_of(found), "here": "recordings",
        "recording": {"user": found["user"], "href": found["href"]},
        "played": None if played is None else {
            "tag": "video" if played["mime"].startswith("video/") else "audio",
            "href": played["href"], "sha256": played["sha256"],
            "poster": found["thumbnail"] if found["has_thumbnail"] else None,
            "link": json.dumps({"path": f"users/{found['user']}/recordings/{found['id']}/{played['path']}"}),
        },
        "links_href": f"{API}/links", "keep": found["keep"], "expires": stamp(found["expires_at"]),
        "uploaded": None if played is None else stamp(played["uploaded_at"]),
        "tracks": _tracks(t, files) if played is not None and played["mime"].startswith("video/") else [],
        "facts": _facts(t, found, played),
        "files": [_file(t, each) for each in files],
        "may_write": look.who.writes(found["user"]),
    }  # fmt: skip


def _played(files: list[dict[str, Any]]) -> dict[str, Any] | None:
    candidates = [each for each in files if each["mime"].startswith(_PLAYED) and "/" not in each["path"]]
    if not candidates:
        return None
    rank = {name: number for number, name in enumerate(_BEST)}
    return min(
        candidates, key=lambda each: next((rank[name] for name in _BEST if each["path"].startswith(name)), len(rank))
    )


def _tracks(t: Texts, files: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Subtitles, by transcription/<what>[.<language>].vtt: the first is shown."""
    found = []
    for each in files:
        if each["path"].startswith(_TRACKS) and each["path"].endswith(".vtt"):
            stem = each["path"].removeprefix(_TRACKS).removesuffix(".vtt")
            language = stem.rpartition(".")[2] if "." in stem else ""
            known = language if 2 <= len(language) <= 3 and language.isalpha() and language.isascii() else t.language
            found.append({"href": each["href"], "language": known, "name": stem})
    return found


def _facts(t: Texts, recording: dict[str, Any], played: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What is known, in words; what is not is left out."""
    media = {} if played is None else played["media"]
    width, height = media.get("width"), media.get("height")
    told: list[tuple[str, str | None]] = [
        ("player.number", f"{recording['user']} / {recording['id']}"),
        ("recordings.duration", t.clock(media.get("duration_s"))),
        ("player.size", t.size(recording["size_bytes"])),
        ("player.picture", f"{width} × {height}" if width and height else None),
        ("player.codecs", ", ".join(filter(None, (media.get("video_codec"), media.get("audio_codec"))))),
        ("player.where", None if played is None else t.known("location", played["location"])),
    ]
    return [(t(key), value) for key, value in told if value]


def _file(t: Texts, file: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": file["path"], "href": file["href"], "state": file["state"], "sha256": file["sha256"],
        "size": t.size(file["size_bytes"]), "when": moment(file["modified_ns"]),
    }  # fmt: skip


# --- uploads ----------------------------------------------------------------------------------------------------


async def uploads(look: Look) -> dict[str, Any]:
    """Where files are uploaded."""
    users = [user for user in await users_of(look) if look.who.writes(user)]
    user = look.asked("user", tuple(users), users[0] if users else "")
    pending = await look.had("uploads", user=user) if user else None
    return {
        "title": look.t("uploads.title"), "users": users, "wanted_user": user,
        "accept": ",".join(sorted(ALLOWED_EXTENSIONS)),
        "pending": [] if pending is None else [_pending(look.t, each) for each in pending["items"]],
    }  # fmt: skip


def _pending(t: Texts, upload: dict[str, Any]) -> dict[str, Any]:
    length, received = upload["length"] or 0, upload.get("received_bytes") or 0
    return {
        "name": upload["original_name"] or upload["path"], "recording": upload["recording"], "state": upload["state"],
        "parts": parts(length, [("used", received)]), "share": t.share(received, length), "size": t.size(length),
        "href": upload["upload_href"], "expires": stamp(upload.get("expires_at")),
    }  # fmt: skip


__all__ = ["PAGE", "SORTED", "SORTS", "address", "name_of", "order_of", "player", "recordings", "uploads", "users_of"]
