"""What operators look at: what goes when, what waits for S3, what is there twice and costs, and who may what."""

from __future__ import annotations

import json
from typing import Any, Final

from recfs.web.page.frame import Look
from recfs.web.page.inside import API, Refused
from recfs.web.page.recordings import address, users_of
from recfs.web.page.shaping import Figure, Part, moment, parts, usage
from recfs.web.page.texts import Texts

WITHIN: Final = {"7": 7, "30": 30, "90": 90, "365": 365}
"""Days ahead that can be looked at."""
_DAY_S: Final = 86_400.0
_SOON_S: Final = 3 * _DAY_S
_ROWS: Final = 200
_SETS: Final = 50
OUTCOMES: Final = ("", "ok", "refused", "failed", "broken")
_ACTS: Final = 100
_READ: Final = 400


# --- what goes when ---------------------------------------------------------------------------------------------


async def expirations(look: Look) -> dict[str, Any]:
    """Recordings that expire or go, those that are kept, and what of the trash can still come back."""
    t = look.t
    within = look.asked("days", WITHIN, "30")
    users = await users_of(look)
    only = look.asked("user", tuple(users), "" if look.who.is_admin else (users[0] if users else ""))
    due = await look.had("expirations", user=only or None, due_s=WITHIN[within] * _DAY_S)
    everything = await look.had("expirations", user=only or None)
    after = look.request.query_params.get("after", "")
    trash = await look.had("trash", user=only or None, after=after if after.isascii() and after.isdigit() else None)
    following = None if trash is None else trash.get("next")
    return {
        "title": t("expirations.title"), "keep_href": f"{API}/keep", "restore_href": f"{API}/trash/restore",
        "periods": [(name, t.many("expirations.days", days)) for name, days in WITHIN.items()],
        "wanted": within, "users": users, "wanted_user": only, "all_users": look.who.is_admin,
        "due": [_due(look, each) for each in sorted(due or [], key=_when)],
        "kept": [_kept(look, each) for each in everything or [] if each["keep"]],
        "trash": None if trash is None else _trash(look, trash["entries"]),
        "more": None if following is None else f"/expirations?days={within}&user={only}&after={following}",
    }  # fmt: skip


def _when(recording: dict[str, Any]) -> float:
    due_s = recording["due_s"]
    return float("inf") if due_s is None else due_s


def _recording(look: Look, recording: dict[str, Any]) -> dict[str, Any]:
    """What all rows of recordings have. The path is users/<id>/recordings/<id>."""
    user, number = recording["path"].split("/")[1:4:2]
    same = {"user": user, "recording": number}
    return {
        "name": f"{user} / {number}", "href": address(user, number), "size": look.t.size(recording["rbytes"]),
        "may_keep": look.who.writes(user),
        "keep": json.dumps({**same, "on": True}), "unkeep": json.dumps({**same, "on": False}),
    }  # fmt: skip


def _due(look: Look, recording: dict[str, Any]) -> dict[str, Any]:
    due_s = recording["due_s"]
    return _recording(look, recording) | {
        "status": recording["status"], "left": look.t.span(due_s), "when": moment(recording["due_ns"]),
        "soon": due_s is not None and due_s < _SOON_S, "why": recording["reason"],
    }  # fmt: skip


def _kept(look: Look, recording: dict[str, Any]) -> dict[str, Any]:
    return _recording(look, recording) | {"note": recording["note"]}


def _trash(look: Look, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What lies in the trash, the newest first: a recording's in one row, for so it went and should come back."""
    whole: dict[str, list[dict[str, Any]]] = {}
    for entry in reversed(entries):
        whole.setdefault("/".join(entry["path"].split("/")[:4]), []).append(entry)
    return [_trashed(look, path, found) for path, found in whole.items()]


def _trashed(look: Look, path: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    t, user = look.t, entries[0]["user"]
    files = [each for each in entries if each["kind"] != "dir"]
    alone = entries[0]["path"] if len(entries) == 1 else None
    return {
        "path": alone or path, "size": t.size(sum(each["size_bytes"] for each in entries)),
        "count": t.many("overview.n_files", len(files)),
        "since": t.span(entries[0]["age_s"]), "left": t.span(min(each["left_s"] for each in entries)),
        "may_restore": bool(user) and look.who.writes(user),
        "body": _ids(user, entries),
        "files": [] if alone else [
            {"path": each["path"], "size": t.size(each["size_bytes"]), "body": _ids(user, [each])}
            for each in sorted(files, key=lambda each: each["path"])
        ],
    }  # fmt: skip


def _ids(user: str, entries: list[dict[str, Any]]) -> str:
    return json.dumps({"user": user, "ids": sorted(each["number"] for each in entries)})


# --- the S3 queue -----------------------------------------------------------------------------------------------


async def queue(look: Look) -> dict[str, Any]:
    """What is still to be done on S3, and how that stands."""
    t = look.t
    told: dict[str, Any] = {
        "title": t("queue.title"), "trouble": None, "absent": False, "figures": [], "rows": [], "more": "",
        "retry_href": f"{API}/queue/retry", "drop_href": f"{API}/queue/drop",
    }  # fmt: skip
    try:
        found = await look.api.get("queue", limit=_ROWS)
    except Refused as refused:
        if refused.kind != "NotSupported" or "[gateway]" in refused.detail:
            raise
        return told | {"absent": True}
    trouble = trouble_of(found)
    return told | {
        "trouble": trouble,
        "figures": _totals(t, found["totals"]),
        "rows": [_row(t, each, trouble) for each in found["rows"]],
        "more": t.many("queue.more", found["more"]) if found["more"] else "",
    }


def trouble_of(found: dict[str, Any]) -> str | None:
    """What S3 says as long as it does not answer: the reason that all rows have in common."""
    breaker = found["breaker"]
    return None if breaker is None or breaker["state"] == "closed" else breaker["error"]


def _totals(t: Texts, totals: dict[str, Any]) -> list[Figure]:
    unsent, sent = totals["unsent_bytes"], totals["sent_bytes"]
    states = [
        Figure(t(f"queue.total.{state}"), t.number(totals[state]))
        for state in ("running", "failed", "pending", "waiting")
    ]
    return [
        *states,
        Figure(
            t("queue.total.unsent"),
            t.size(unsent),
            t("queue.sent_of", size=t.size(sent)),
            parts(unsent, [("used", sent)]),
        ),
    ]


def _row(t: Texts, row: dict[str, Any], trouble: str | None) -> dict[str, Any]:
    size, sent = row["size_bytes"], row["sent_bytes"]
    is_upload = row["kind"] == "upload" and size > 0
    bar: list[Part] | None = parts(size, [("used", sent)]) if is_upload else None
    return {
        "id": row["id"], "kind": row["kind"], "state": row["state"], "parts": bar,
        "sent": t.share(sent, size) if is_upload else "", "size": t.size(size), "tries": t.number(row["attempts"]),
        "next": t.span(row["next_try_s"]), "path": row["path"] or row["key"] or t("queue.nameless"),
        "why": row["why"] if row["why"] != trouble else "", "body": json.dumps({"ids": [row["id"]]}),
    }  # fmt: skip


# --- what is there twice, and what it costs ---------------------------------------------------------------------


async def costs(look: Look) -> dict[str, Any]:
    """What is stored by storage class, what that costs a month, and which files are there more than once."""
    look.who.must_admin()
    t = look.t
    stats = await look.had("stats")
    found = await look.had("duplicates", limit=_SETS)
    costs = None if stats is None else stats["costs"]
    return {
        "title": t("costs.title"),
        "classes": [] if stats is None else _classes(t, stats),
        "total": "" if costs is None else t.money(costs["total"], costs["currency"]),
        "unpriced": "" if costs is None else ", ".join(t.known("class", each) for each in costs["unpriced"]),
        "wasted": "" if found is None else t.many(
            "costs.wasted_told", found["sets"], files=t.number(found["files"]), size=t.size(found["wasted_bytes"])
        ),
        "sets": None if found is None else [_set(t, each) for each in found["worst"]],
    }  # fmt: skip


def _classes(t: Texts, stats: dict[str, Any]) -> list[dict[str, Any]]:
    whole = max((each["bytes"] for each in stats["classes"].values()), default=0)
    costs = stats["costs"]
    return [
        {
            "name": t.known("class", name), "files": t.number(each["files"]), "bytes": t.size(each["bytes"]),
            "cost": t.money(costs["by_class"].get(name), costs["currency"]),
            "parts": parts(whole, [("used", each["bytes"])]),
        }
        for name, each in stats["classes"].items()
    ]  # fmt: skip


def _set(t: Texts, found: dict[str, Any]) -> dict[str, Any]:
    more = found["files"] - len(found["where"])
    return {
        "files": t.number(found["files"]), "size": t.size(found["size_bytes"]), "wasted": t.size(found["wasted_bytes"]),
        "sha256": found["sha256"], "more": t.many("costs.more", more) if more > 0 else "",
        "where": [{**each, "href": _page_of(each["path"])} for each in found["where"]],
    }  # fmt: skip


def _page_of(path: str) -> str | None:
    """The page of the recording in which a file lies."""
    names = path.split("/")
    return address(names[1], names[3]) if len(names) > 4 and names[0] == "users" and names[2] == "recordings" else None


# --- who may what -----------------------------------------------------------------------------------------------


async def admin(look: Look) -> dict[str, Any]:
    """Users with their limits, tokens, and who did what."""
    look.who.must_admin()
    t = look.t
    users = await look.had("users")
    tokens = await look.had("tokens")
    names = {each["id"]: each["name"] for each in tokens or []}
    outcome = look.asked("outcome", OUTCOMES, "")
    audit = await look.had("audit", limit=_READ, outcome=outcome or None)
    return {
        "title": t("admin.title"),
        "users": None if users is None else [_user(t, each) for each in users if "limits" in each],
        "tokens": None if tokens is None else [_token(t, each) for each in tokens],
        "tokens_href": f"{API}/tokens",
        "audit": None
        if audit is None
        else [_act(t, each, names) for each in audit["entries"] if not _is_part(each)][:_ACTS],
        "outcomes": OUTCOMES,
        "outcome": outcome,
    }


def _user(t: Texts, user: dict[str, Any]) -> dict[str, Any]:
    limits = user["limits"]
    return usage(t, user) | {"href": f"{API}/users/{user['user']}/quota", "limits": json.dumps(limits)}


def _token(t: Texts, token: dict[str, Any]) -> dict[str, Any]:
    state = "revoked" if token["revoked_ns"] is not None else "good" if token["good"] else "expired"
    users = ", ".join(token["users"]) or (t("admin.all_users") if token["role"] == "admin" else "–")
    return {
        "id": token["id"], "name": token["name"] or token["subject"] or "", "role": token["role"], "users": users,
        "created": moment(token["created_ns"]), "expires": moment(token["expires_ns"]), "state": state,
        "href": f"{API}/tokens/{token['id']}" if state == "good" else None,
    }  # fmt: skip


def _is_part(entry: dict[str, Any]) -> bool:
    """Whether it is a style sheet, a script or the like: the same for everybody, and told in the log alone."""
    return str(entry.get("path")).startswith("/page/")


def _act(t: Texts, entry: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    token = entry.get("token") or ""
    told = {name: entry.get(name) or "–" for name in ("address", "method", "path", "status", "outcome")}
    return told | {
        "when": moment(entry.get("time_ns")),
        "token": names.get(token) or token or "–",
        "sent": t.size(entry.get("sent_bytes")),
        "received": t.size(entry.get("received_bytes")),
    }


__all__ = ["WITHIN", "admin", "costs", "expirations", "queue"]
