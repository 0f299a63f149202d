"""Objects: ranges, overwriting, metadata, copies, conditions, tags, presigned URLs, encryption."""

from __future__ import annotations

from collections.abc import Callable

import urllib3

from recfs.core.keys import key_for
from recfs.ports.object_errors import (
    NotOffered,
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
    StoreOutage,
)
from recfs.stores.s3.features.endpoint import pools_for
from recfs.stores.s3.features.model import OFFERED, Feature, Outcome, Seen, Weight, absent, wrong
from recfs.stores.s3.features.room import OutOfTime, Room
from recfs.stores.s3.features.wants import Wants

_DATA = b"0123456789"
_ODD = key_for(b"back\\slash + 50%25 & \xff ?#") + "\u00fc"


def _ranges(room: Room, at: str) -> Seen:
    room.put(f"{at}o", _DATA)
    into = bytearray(3)
    room.client.get_range(f"{at}o", 2, 3, if_match=None, into=memoryview(into))
    return OFFERED if bytes(into) == _DATA[2:5] else wrong("other bytes than were asked for")


def _overwritten(room: Room, at: str) -> Seen:
    key = f"{at}o"
    for data in (b"old", b"newer", b"newest bytes"):
        room.put(key, data)
        info = room.client.head(key)
        if room.get(key) != data or info is None or info.size_bytes != len(data) or room.listed(at) != [key]:
            return wrong("what was put last is not what is read")
    room.client.ask("delete_object", key)
    if room.get(key) is not None or room.listed(at):
        return wrong("what was deleted is still read, or listed")
    return OFFERED


def _metadata(room: Room, at: str) -> Seen:
    """Put, and replaced by a copy of the object onto itself, as recfs does after chmod and the like."""
    key, meta = f"{at}o", {"mode": "0644", "original-filename": "%FF%C3%BC", "mtime": "-1.000000001"}
    room.put(key, _DATA, Metadata=meta, ContentType="video/mp4")
    info = room.client.head(key)
    if info is None or dict(info.metadata) != meta:
        return wrong("other metadata comes back than was sent")
    room.client.ask(
        "copy_object", key, CopySource=_source(room, key), MetadataDirective="REPLACE", Metadata={"mode": "0600"}
    )
    info = room.client.head(key)
    if info is None or dict(info.metadata) != {"mode": "0600"} or room.get(key) != _DATA:
        return wrong("a copy onto itself does not replace just the metadata")
    return OFFERED


def _source(room: Room, key: str) -> dict[str, str]:
    return {"Bucket": room.client.bucket, "Key": room.client.full(key)}


def _copied(room: Room, at: str) -> Seen:
    src, dst = f"{at}from {_ODD}", room.will_make(f"{at}to {_ODD}")
    room.put(src, _DATA, Metadata={"mode": "0644"})
    made = room.client.copy(src, dst, len(_DATA))
    if room.get(dst) != _DATA or dict(made.metadata) != {"mode": "0644"}:
        return wrong("the copy is not what was copied")
    return OFFERED


def _copied_in_parts(room: Room, at: str) -> Seen:
    for number, name in enumerate(("from", f"from {_ODD}")):
        src, dst = f"{at}{name}", f"{at}to {number}"
        room.put(src, _DATA)
        upload_id = room.start_bare_upload(dst)
        try:
            answer = room.client.ask(
                "upload_part_copy", dst, UploadId=upload_id, PartNumber=1, CopySource=_source(room, src),
                CopySourceRange="bytes=2-4",
            )  # fmt: skip
        except ObjectMissing as error:
            return absent(f"{'of a name with special characters: ' if number else ''}{error.code}")
        parts = [{"PartNumber": 1, "ETag": answer["CopyPartResult"]["ETag"]}]
        room.client.ask("complete_multipart_upload", dst, UploadId=upload_id, MultipartUpload={"Parts": parts})
        if room.get(dst) != _DATA[2:5]:
            return wrong("the copy is not the range that was copied")
    return OFFERED


# --- conditions --------------------------------------------------------------------------------------------------


def _only_new(room: Room, at: str) -> Seen:
    key = f"{at}o"
    room.put(key, b"first", IfNoneMatch="*")
    try:
        room.put(key, b"second", IfNoneMatch="*")
    except ObjectChanged:
        return OFFERED if room.get(key) == b"first" else wrong("it refuses the second, and keeps it")
    return absent("the condition is ignored: the second takes the place of the first")


def _read_if(room: Room, at: str) -> Seen:
    key = f"{at}o"
    etag = room.put(key, _DATA)["ETag"]
    room.put(key, b"another version")
    try:
        room.get(key, IfMatch=etag)
    except ObjectChanged:
        return OFFERED
    return absent("the condition is ignored: another version is served")


def _copy_if(room: Room, at: str) -> Seen:
    src, dst = f"{at}from", room.will_make(f"{at}to")
    etag = room.put(src, _DATA)["ETag"]
    room.put(src, b"another version")
    try:
        room.client.ask("copy_object", dst, CopySource=_source(room, src), CopySourceIfMatch=etag)
    except ObjectChanged:
        return OFFERED
    return absent("the condition is ignored: another version is copied")


# --- what else a configuration may ask for -----------------------------------------------------------------------


def _tags(room: Room, at: str) -> Seen:
    key, tags = f"{at}o", {"project": "a b+c", "who": "\u00fc"}
    room.put(key, _DATA, Tagging="project=a%20b%2Bc&who=%C3%BC")
    if room.client.get_tags(key) != tags:
        return wrong("other tags come back than were sent")
    room.client.set_tags(key, {"project": "other"})
    return OFFERED if room.client.get_tags(key) == {"project": "other"} else wrong("tags are not replaced")


def _presigned(room: Room, at: str) -> Seen:
    key = f"{at}{_ODD}"
    room.put(key, _DATA)
    url = room.client.presign(key, "GET", 60)
    with pools_for(room.section, room.client.session, url) as pools:
        try:
            answer = pools.request("GET", url, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return Seen(Outcome.UNTRIED, f"the URL is not fetched: {error}")
    if (answer.status, answer.data) == (200, _DATA):
        return OFFERED
    return absent(f"the URL is answered with status {answer.status}")


def encrypted(method: str) -> Callable[[Room, str], Seen]:
    """An attempt at encryption on the server, by S3's name for it."""

    def attempt(room: Room, at: str) -> Seen:
        key, parameters = f"{at}o", {"ServerSideEncryption": method}
        if method == "aws:kms" and room.section.kms_key is not None:
            parameters["SSEKMSKeyId"] = room.section.kms_key
        try:
            answer = room.put(key, _DATA, **parameters)
        except (RequestRefused, NotOffered) as error:
            return absent(f"refused: {error.code}")
        except StoreOutage as error:
            if not error.code.startswith("5") and error.code not in ("InternalError", "InternalServerError"):
                raise
            room.put(f"{at}plain", _DATA)  # it is not the server as such that fails
            return absent(f"the server fails with {error.code}; it may have been given no key to encrypt with")
        except OutOfTime:
            raise
        except ObjectStoreError as error:
            return absent(f"refused: {error.code}")
        if answer.get("ServerSideEncryption") != method:
            return absent("the wish is ignored: the object is not encrypted so")
        return OFFERED if room.get(key) == _DATA else wrong("other bytes come back than were sent")

    return attempt


def _wants_sse(method: str) -> Callable[[Wants], bool]:
    return lambda wants: wants.sse == method


FEATURES = (
    Feature(
        "ranges",
        _ranges,
        "files cannot be read back in part",
        "choose another server",
        Weight.FAILURE,
    ),
    Feature(
        "last write is read",
        _overwritten,
        "what was just stored may be served in an earlier version, which recfs refuses: EIO until the server is right",
        "choose another server, or have it answer consistently",
        Weight.FAILURE,
    ),
    Feature(
        "metadata",
        _metadata,
        "mode, owner, times and checksums are not kept beside the bytes, or not brought up to date",
        "keep a backup of the catalogue, which has them",
        Weight.WARNING,
    ),
    Feature(
        "copy",
        _copied,
        "a renamed file's object stays under its old name",
        "nothing while recfs has its catalogue; other clients see the old names",
        Weight.WARNING,
    ),
    Feature(
        "copy in parts",
        _copied_in_parts,
        "the object of a renamed file of more than 5 GiB stays under its old name",
        "nothing while recfs has its catalogue; other clients see the old name",
    ),
    Feature(
        "conditional PUT",
        _only_new,
        "two stores that take a prefix into use at one moment notice only when they look again",
        "give every store a prefix of its own",
    ),
    Feature(
        "conditional GET",
        _read_if,
        "an object that was replaced out of band is noticed by its etag, after the request and not before",
        "nothing: recfs compares the etag of every answer",
    ),
    Feature(
        "conditional copy",
        _copy_if,
        "an object that is replaced out of band in the moment of its move is moved all the same",
        "change objects of a store through its mount only",
    ),
    Feature(
        "tags",
        _tags,
        "tags are not kept",
        "leave tags out of [s3]",
        wanted=lambda wants: wants.tags,
        weight_wanted=Weight.FAILURE,
    ),
    Feature(
        "presigned URL",
        _presigned,
        "`recfs presign` gives URLs that do not work",
        "give files away through the mount",
    ),
    Feature(
        "encryption, AES256",
        encrypted("AES256"),
        'with [s3] sse = "AES256" no upload succeeds, or objects are not encrypted',
        "leave sse out of [s3], or give the server a key to encrypt with",
        Weight.NOTHING,
        wanted=_wants_sse("AES256"),
        weight_wanted=Weight.FAILURE,
    ),
    Feature(
        "encryption, aws:kms",
        encrypted("aws:kms"),
        'with [s3] sse = "aws:kms" no upload succeeds, or objects are not encrypted',
        "leave sse and kms_key out of [s3], or give the server a key management service",
        Weight.NOTHING,
        wanted=_wants_sse("aws:kms"),
        weight_wanted=Weight.FAILURE,
    ),
)
