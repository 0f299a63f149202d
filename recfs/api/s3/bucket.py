"""What operators ask of the bucket: restores from archive classes, presigned URLs, lifecycle rules."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from recfs.api.paths import parts_of
from recfs.config.lifecycle import DAY_S
from recfs.core.keys import key_for
from recfs.core.layout import role_of
from recfs.core.model import State
from recfs.errors import Exists, InvalidArgument, NotFound
from recfs.ports.object_errors import NotOffered, ObjectArchived, ObjectMissing
from recfs.ports.objects import LifecycleRule, ObjectInfo, RestoreSpeed, RestoreState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.api.s3.far import Far
    from recfs.config import LifecycleSection
    from recfs.ports.rows import ObjectRow

MAX_PRESIGN_S = 7 * 86_400
"""The longest AWS signs a URL for (Signature Version 4, X-Amz-Expires)."""
RULE_MARK = "recfs-"
_NO_TRANSITIONS = (
    "if the server moves nothing between storage classes (SeaweedFS), leave transitions out of [lifecycle]: a rule "
    "([[route]]) with min_age and storage_class, and `recfs tier run`, bring files of an age to another class"
)


class BucketAnswers:
    """restore, presign, lifecycle_show, lifecycle_apply."""

    def __init__(self, far: Far) -> None:
        self._far = far

    # --- restore -------------------------------------------------------------------------------------------------

    async def restore(self, params: dict[str, Any]) -> dict[str, Any]:
        """Ask S3 for a readable copy of an archived file; tells how it stands. Takes minutes to days."""
        days, speed = params.get("days", 7), params.get("tier", "Standard")
        if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= 36_500:
            raise InvalidArgument(f"days: {days!r}; a restored copy stays for 1 day or more")
        if speed not in get_args(RestoreSpeed):
            raise InvalidArgument(f"tier: {speed!r}; one of {', '.join(get_args(RestoreSpeed))}")
        in_s3, path = await self._held(params)
        info = await self._head(in_s3)
        if info.restore_state is None:
            raise InvalidArgument(f"{path} needs no restore: its object can be read (class {info.storage_class})")
        asked = info.restore_state is not RestoreState.RESTORING
        if asked:
            try:
                await self._far.ask(partial(self._far.tier.objects.restore, in_s3.key, days, speed))
            except NotOffered as error:
                await self._look_without_restore(in_s3, path, info, error)
                raise
            info = await self._head(in_s3)
        return {
            "path": path,
            "key": in_s3.key,
            "storage_class": info.storage_class,
            "state": info.restore_state.value if info.restore_state is not None else None,
            "requested": asked,
            "days": days,
            "tier": speed,
        }

    async def _look_without_restore(self, in_s3: ObjectRow, path: str, info: ObjectInfo, error: NotOffered) -> None:
        """Raise what a server without restores makes of an archive class: a mere label (SeaweedFS), or the end."""
        if not info.size_bytes:
            return
        one = memoryview(bytearray(1))
        try:
            await self._far.ask(partial(self._far.tier.objects.get_range, in_s3.key, 0, 1, if_match=None, into=one))
        except ObjectArchived:
            what = (
                f"objects of class {info.storage_class} are not served; only the server's own tools can bring it back"
            )
            raise NotOffered(f"{str(error).partition('; ')[0]}; {what}", code=error.code) from error
        raise InvalidArgument(
            f"{path} needs no restore: the server has none, and serves objects of class {info.storage_class} like all"
        ) from error

    async def _held(self, params: dict[str, Any]) -> tuple[ObjectRow, str]:
        node = await self._far.file(params)
        tier = self._far.tier
        if node.object is None:
            where = "stays here" if tier.decide(node).store == "local" else "is not in S3 yet"
            raise InvalidArgument(f"{node.path} is {node.state} and {where}")
        return node.object, node.path

    async def _head(self, in_s3: ObjectRow) -> ObjectInfo:
        info = await self._far.ask(partial(self._far.tier.objects.head, in_s3.key))
        if info is None:
            raise ObjectMissing(f"{in_s3.key}: its object is gone from S3; it was deleted out of band")
        return info

    # --- presign -------------------------------------------------------------------------------------------------

    async def presign(self, params: dict[str, Any]) -> dict[str, Any]:
        """A URL that reads a file from S3, or (`put`) writes an object where there is no file."""
        expires_s, put = params.get("expires_s", 3600), bool(params.get("put"))
        if not isinstance(expires_s, (int, float)) or isinstance(expires_s, bool):
            raise InvalidArgument(f"expires: {expires_s!r} is no duration")
        expires_s = int(expires_s)
        if not 1 <= expires_s <= MAX_PRESIGN_S:
            raise InvalidArgument("a presigned URL is good for 1 second to 7 days")
        if put:
            await self._far.tier.ownership.ensure()
        key = await self._free_key(params) if put else await self._stored_key(params)
        url = await self._far.ask(partial(self._far.tier.objects.presign, key, "PUT" if put else "GET", expires_s))
        return {
            "path": os.fsdecode(b"/".join(parts_of(str(params.get("path") or "")))),
            "key": key,
            "method": "PUT" if put else "GET",
            "url": url,
            "expires_s": expires_s,
            "expires_ns": self._far.vfs.tree.clock.now_ns() + expires_s * 10**9,
        }

    async def _stored_key(self, params: dict[str, Any]) -> str:
        in_s3, path = await self._held(params)
        node = await self._far.file(params)
        if node.state not in (State.STORED, State.EVICTED, State.FETCHING):
            what = "it has to be restored first: `recfs restore`" if node.state is State.ARCHIVED else (
                "what S3 has of it is an earlier version; wait until it is stored"
            )  # fmt: skip
            raise InvalidArgument(f"{path} is {node.state}: {what}")
        return in_s3.key

    async def _free_key(self, params: dict[str, Any]) -> str:
        parts = tuple(parts_of(str(params.get("path") or "")))
        role_of(parts, is_dir=False)
        self._far.tier  # noqa: B018  # raises without [s3]
        try:
            await self._far.vfs.at(os.fsdecode(b"/".join(parts)))
        except NotFound:
            return key_for(b"/".join(parts))
        raise Exists(
            f"{os.fsdecode(b'/'.join(parts))} exists: its object would change out of band; write to the file instead"
        )

    # --- lifecycle -----------------------------------------------------------------------------------------------

    async def lifecycle_show(self, params: dict[str, Any]) -> dict[str, Any]:
        """recfs's rules as the configuration has them, and as the bucket has them."""
        wanted = configured(self._far.config.lifecycle)
        present = await self._far.ask(self._far.tier.objects.get_lifecycle)
        return _compared(wanted, present)

    async def lifecycle_apply(self, params: dict[str, Any]) -> dict[str, Any]:
        """Write the configuration's rules into the bucket in place of recfs's; all others stay as they are."""
        objects, wanted = self._far.tier.objects, configured(self._far.config.lifecycle)
        await self._far.tier.ownership.ensure()
        before = _compared(wanted, await self._far.ask(objects.get_lifecycle))
        dry_run = bool(params.get("dry_run"))
        if before["differs"] and not dry_run:
            try:
                await self._far.ask(partial(objects.put_lifecycle, wanted))
            except NotOffered as error:
                if not any(rule.transitions for rule in wanted):
                    raise
                raise NotOffered(f"{str(error).partition('; ')[0]}; {_NO_TRANSITIONS}", code=error.code) from error
        return before | {"dry_run": dry_run, "applied": before["differs"] and not dry_run}


def configured(section: LifecycleSection) -> tuple[LifecycleRule, ...]:
    """The rules that [lifecycle] asks for; transitions of one prefix are one rule."""
    rules = []
    if section.abort_multipart:
        rules.append(LifecycleRule(f"{RULE_MARK}abort-multipart", abort_multipart_days=_days(section.abort_multipart)))
    by_prefix: dict[str, list[tuple[int, str]]] = {}
    for each in section.transitions:
        by_prefix.setdefault(each.prefix, []).append((_days(each.after), each.storage_class))
    for prefix in sorted(by_prefix):
        rule_id = f"{RULE_MARK}transition-{prefix.strip('/').replace('/', '-') or 'all'}"
        rules.append(LifecycleRule(rule_id, prefix=prefix, transitions=tuple(sorted(by_prefix[prefix]))))
    return tuple(rules)


def _days(seconds: float) -> int:
    return round(seconds / DAY_S)


def _compared(wanted: Sequence[LifecycleRule], present: Sequence[LifecycleRule]) -> dict[str, Any]:
    return {
        "configured": [_as_json(rule) for rule in wanted],
        "bucket": [_as_json(rule) for rule in present],
        "missing": [rule.rule_id for rule in wanted if rule not in present],
        "superfluous": [rule.rule_id for rule in present if rule not in wanted],
        "differs": set(wanted) != set(present),
    }


def _as_json(rule: LifecycleRule) -> dict[str, Any]:
    return {
        "id": rule.rule_id,
        "prefix": rule.prefix,
        "enabled": rule.enabled,
        "transitions": [{"days": days, "storage_class": name} for days, name in rule.transitions],
        "expire_days": rule.expire_days,
        "abort_multipart_days": rule.abort_multipart_days,
    }
