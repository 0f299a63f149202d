"""The overview: what is stored and how that grows, against which limits, and what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from json import dumps
from typing import Any, Final

from recfs.web.page.frame import Look
from recfs.web.page.recordings import order_of
from recfs.web.page.shaping import Figure, gauge, parts, usage
from recfs.web.page.texts import Texts

PERIODS: Final = {"30": 30, "90": 90, "365": 365}
_LOCAL: Final = ("local", "local_and_s3")
_FAR: Final = ("local_and_s3", "s3")


async def overview(look: Look) -> dict[str, Any]:
    """What the overview shows: each part as far as the API tells it to whoever looks."""
    t = look.t
    period = look.asked("days", PERIODS, "30")
    accounts = await look.had("users") or []
    users = sorted((each["user"] for each in accounts), key=order_of)
    only = look.asked("user", tuple(users), "" if look.who.is_admin else (users[0] if users else ""))
    stats = await look.had("stats", user=only or None)
    trend = await look.had("stats", "trend", user=only or None, days=PERIODS[period])
    status = await look.had("status") if look.who.is_admin else None
    return {
        "title": t("overview.title"),
        "figures": [*_stored(t, stats), *_machine(t, status)],
        "problems": None if status is None else _problems(status),
        "trend": None if trend is None else _trend(t, trend, stats, period),
        "periods": [(name, t.many("overview.days", days)) for name, days in PERIODS.items()],
        "categories": None if stats is None else _categories(t, stats),
        "users": [usage(t, each) for each in _by_use(accounts)],
        "choices": users,
        "wanted_user": only,
        "all_users": look.who.is_admin,
    }


def _stored(t: Texts, stats: dict[str, Any] | None) -> list[Figure]:
    if stats is None:
        return []
    figures = [Figure(t("overview.stored"), t.size(stats["bytes"]), t.many("overview.n_files", stats["files"]))]
    if stats["recordings"] is not None:
        figures.append(Figure(t("recordings.title"), t.number(stats["recordings"])))
    uploads = sum(user["month_uploads"] for user in stats["users"])
    grown = sum(user["month_upload_bytes"] or 0 for user in stats["users"])
    figures.append(Figure(t("overview.uploads"), t.number(uploads), t.size(grown)))
    far = sum(stats["stores"][store]["bytes"] for store in _FAR)
    if far:
        local = sum(stats["stores"][store]["bytes"] for store in _LOCAL)
        figures.append(
            Figure(
                t("overview.far"),
                t.size(far),
                t("overview.local", size=t.size(local)),
                parts(stats["bytes"], [("k0", far)]),
            )
        )
    return figures


def _problems(status: dict[str, Any]) -> list[str]:
    """What somebody has to do something about, each once: `recfs status` tells it in several places."""
    far = status.get("s3") or {}
    told = [*status["problems"], far.get("trouble"), far.get("problem")]
    told += [(status.get(part) or {}).get("problem") for part in ("pipeline", "backup")]
    return list(dict.fromkeys(each for each in told if each))


def _machine(t: Texts, status: dict[str, Any] | None) -> list[Figure]:
    disk = None if status is None else status.get("disk")
    if not disk:
        return []
    used = disk["total_bytes"] - disk["free_bytes"]
    more = t("overview.of", size=t.size(disk["total_bytes"]))
    return [Figure(t("overview.disk"), t.size(disk["free_bytes"]), more, gauge(used, disk["total_bytes"]))]


def _trend(t: Texts, trend: dict[str, Any], stats: dict[str, Any] | None, period: str) -> dict[str, Any] | None:
    days = trend["days"]
    if not days:
        return None
    points = [[_noon_s(day["day"]), day["bytes"]] for day in days]
    now_s = int(trend["at_ns"] // 10**9)
    # The last day's row says how much it grew until now.
    points.append([max(now_s, points[-1][0] + 1), days[-1]["bytes"] + days[-1]["grown_bytes"]])
    grown = points[-1][1] - points[0][1]
    span_d = max(sum(day["days"] for day in days), 1)
    return {
        "period": period,
        "series": dumps(points),
        "summary": t("overview.growth_told", size=_signed(t, grown), daily=_signed(t, grown / span_d)),
        "days": [
            {"day": day["day"], "bytes": t.size(day["bytes"]), "grown": _signed(t, day["grown_bytes"])}
            for day in reversed(days)
        ],
    }


def _noon_s(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def _signed(t: Texts, size_bytes: float) -> str:
    sign = "+" if size_bytes > 0 else "−" if size_bytes < 0 else "±"
    return sign + t.size(abs(size_bytes))


def _categories(t: Texts, stats: dict[str, Any]) -> dict[str, Any] | None:
    numbered = zip(count(), stats["categories"].items(), strict=False)
    found = [(f"k{number}", name, each) for number, (name, each) in numbered if each["files"]]
    found.sort(key=lambda each: -each[2]["bytes"])
    if not found:
        return None
    rows = [
        {
            "kind": kind,
            "name": t.known("category", name),
            "files": t.many("overview.n_files", each["files"]),
            "bytes": t.size(each["bytes"]),
        }
        for kind, name, each in found
    ]
    return {"rows": rows, "parts": parts(stats["bytes"], [(kind, each["bytes"]) for kind, _, each in found])}


def _by_use(accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those first who have used most of their limit, then those who have most; one without files has no figures yet."""

    def order(user: dict[str, Any]) -> tuple[float, int]:
        limit = user["limits"]["max_bytes"]
        return (-user["used_bytes"] / limit if limit else 0.0, -user["used_bytes"])

    return sorted((each for each in accounts if "limits" in each), key=order)


__all__ = ["PERIODS", "overview"]
