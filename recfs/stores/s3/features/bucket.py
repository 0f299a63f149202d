"""The bucket: its rules, its versions, and whether one that does not exist is noticed."""

from __future__ import annotations

import secrets

from recfs.ports.object_errors import AccessRefused, BucketMissing, ObjectStoreError, WrongCredentials
from recfs.ports.objects import LifecycleRule
from recfs.stores.s3.admin import RULE_MARK
from recfs.stores.s3.features.model import OFFERED, Feature, Outcome, Seen, Weight, absent
from recfs.stores.s3.features.room import Room

_DAYS = 3650
NO_SUCH_BUCKET = "recfs-doctor-"
"""Begin of the name of a bucket that does not exist."""


def _aborted(room: Room, at: str) -> Seen:
    return _rule(room, LifecycleRule(f"{RULE_MARK}doctor", prefix=at, abort_multipart_days=_DAYS))


def _transitions(room: Room, at: str) -> Seen:
    name = "STANDARD_IA"
    return _rule(room, LifecycleRule(f"{RULE_MARK}doctor", prefix=at, transitions=((_DAYS, name),)))


def _rule(room: Room, rule: LifecycleRule) -> Seen:
    """Write it beside those that are there, for keys that nobody has, and take it out again.

    Not where the bucket has rules of others: what is written takes the place of all.
    """
    with room.one_at_a_time:
        others, own = room.client.rules()
        if others:
            return Seen(Outcome.UNTRIED, "the bucket has rules of others, which are left alone")
        kept = tuple(each for each in own if each.rule_id != rule.rule_id)
        room.afterwards("a lifecycle rule", lambda: room.client.put_lifecycle(kept))
        room.client.put_lifecycle((*kept, rule))
        room.client.put_lifecycle(kept)
        room.undone("a lifecycle rule")
    return OFFERED


def _versions(room: Room, at: str) -> Seen:
    state = room.client.ask("get_bucket_versioning").get("Status")
    if state != "Enabled":
        return OFFERED
    return Seen(Outcome.OFFERED, "every change of a file or of its metadata keeps the old object, too")


def lock_of(room: Room) -> str:
    """For how long new objects cannot be deleted, for people; empty: they can be, as far as is known."""
    try:
        answer = room.client.ask("get_object_lock_configuration")
    except ObjectStoreError as error:
        if error.outage:
            raise
        return ""  # the bucket has none, the server knows none, or does not say
    rule = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention")
    if not rule:
        return ""
    days, years = rule.get("Days"), rule.get("Years")
    return f"{f'{days} days' if days else f'{years} years'} ({rule.get('Mode', 'locked')})"


def not_locked(room: Room, at: str) -> Seen:
    """Makes nothing, unlike the others."""
    lock = lock_of(room)
    return absent(f"the bucket locks new objects for {lock}") if lock else OFFERED


def _missing_refused(room: Room, at: str) -> Seen:
    """Put into a bucket that does not exist. One that is made by that is removed."""
    bucket, key = f"{NO_SUCH_BUCKET}{secrets.token_hex(8)}", "o"

    def remove() -> None:
        try:
            room.client.ask_elsewhere(bucket, "delete_object", Key=key)
            room.client.ask_elsewhere(bucket, "delete_bucket")
        except (BucketMissing, AccessRefused):
            pass  # it was never made

    room.afterwards(f"the bucket {bucket}", remove)
    try:
        room.client.ask_elsewhere(bucket, "put_object", Key=key, Body=b"")
    except (BucketMissing, AccessRefused, WrongCredentials):
        return OFFERED
    return absent("the first object makes the bucket")


FEATURES = (
    Feature(
        "missing bucket refused",
        _missing_refused,
        "recfs looks for the bucket before it uploads anything, but one that is deleted under a store is made anew, "
        "empty, by the next upload; and other clients make one by every name they mistype",
        "give recfs, and other clients, credentials for their own buckets only",
    ),
    Feature(
        "lifecycle: drop unfinished uploads",
        _aborted,
        "`recfs lifecycle apply` cannot have the bucket drop unfinished uploads by their age",
        'set abort_multipart = "0d" in [lifecycle], and look for unfinished uploads now and then',
    ),
    Feature(
        "lifecycle: transitions",
        _transitions,
        "`recfs lifecycle apply` is refused with transitions in [lifecycle]: objects stay in the class they got",
        "leave transitions out of [lifecycle]; a [[route]] rule with min_age and storage_class, and `recfs tier run`, "
        "bring files of an age to another class",
        wanted=lambda wants: wants.transitions,
        weight_wanted=Weight.FAILURE,
    ),
    Feature(
        "new objects not locked",
        not_locked,
        "objects of files that were removed or changed stay, and cost, until their lock ends; nothing else can be "
        "tried, for it would stay as well",
        "take the default retention off the bucket; recfs keeps what was removed in its trash",
        Weight.WARNING,
    ),
    Feature(
        "versioning",
        _versions,
        "whether old versions are kept in the bucket cannot be seen",
        "have a rule of the bucket remove old versions by their age, if they are not wanted (recfs reads none)",
    ),
)
