"""Uploads in parts: cut off and taken up again, listed, and dropped."""

from __future__ import annotations

import hashlib

from recfs.ports.object_errors import ObjectMissing, UploadGone
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.features.model import OFFERED, Feature, Seen, Weight, absent, wrong
from recfs.stores.s3.features.room import PART_BYTES, Room, bytes_in_memory, crc32c_in_base64

_TAIL = b"the second part, sent by another process\n"


def _resumed(room: Room, at: str) -> Seen:
    """As a daemon that dies after the first part, and the next one that goes on."""
    data = bytes(range(256)) * (PART_BYTES // 256) + _TAIL
    meta, key = ObjectMeta(sha256=hashlib.sha256(data).digest()), f"{at}video.mp4"
    with bytes_in_memory(data) as fd:
        upload_id = room.start_upload(key, sha256=meta.sha256)
        first = room.client.upload_part(key, upload_id, 1, fd, 0, PART_BYTES, cancel=room.is_over)
        later = room.another()
        listed = later.list_parts(key, upload_id, (first,))
        if [(part.number, part.etag, part.size_bytes) for part in listed] != [(1, first.etag, PART_BYTES)]:
            return absent("the part that was sent is not listed")
        second = later.upload_part(key, upload_id, 2, fd, PART_BYTES, len(_TAIL))
        later.finish_multipart(key, upload_id, (first, second), meta, len(data))
    back = room.get(key, Range=f"bytes={PART_BYTES - 1}-")
    return OFFERED if back == data[PART_BYTES - 1 :] else wrong("other bytes came back than were sent")


def _checksums_of_parts(room: Room, at: str) -> Seen:
    key = f"{at}parts"
    upload_id = room.start_bare_upload(key, ChecksumAlgorithm="CRC32C")
    sent = room.client.ask(
        "upload_part", key, UploadId=upload_id, PartNumber=1, Body=_TAIL, ChecksumCRC32C=crc32c_in_base64(_TAIL)
    )
    page = room.client.ask("list_parts", key, UploadId=upload_id)
    part = (page.get("Parts") or [{}])[0]
    if not sent.get("ChecksumCRC32C"):
        return absent("checksums of parts are ignored")
    if part.get("ChecksumCRC32C") != sent["ChecksumCRC32C"]:
        return absent("parts are listed without their checksums")
    return OFFERED if page.get("ChecksumAlgorithm") == "CRC32C" else absent("the algorithm is not told")


def _listed(room: Room, at: str) -> Seen:
    key = f"{at}listed"
    upload_id = room.start_upload(key)
    found = {(each.key, each.upload_id) for each in room.client.list_multiparts(at)}
    return OFFERED if found == {(key, upload_id)} else absent("an upload that was just begun is not listed")


def _paged(room: Room, at: str) -> Seen:
    keys = [f"{at}{name}" for name in ("c", "a", "b")]
    for key in keys:
        room.start_upload(key)
    found: list[str] = []
    more: dict[str, str] = {}
    by_key = True
    for _ in range(2 * len(keys)):
        page = room.client.ask("list_multipart_uploads", Prefix=room.client.full(at), MaxUploads=1, **more)
        uploads = page.get("Uploads", ())
        if len(uploads) > 1:
            return absent("the size of a page is ignored")
        found += [each["Key"] for each in uploads]
        if not page.get("IsTruncated"):
            break
        by_key = by_key and bool(page.get("NextKeyMarker"))
        names = ("KeyMarker", "UploadIdMarker")
        more = {name: page[f"Next{name}"] for name in names if page.get(f"Next{name}")}
    wanted = [room.client.full(key) for key in sorted(keys)]
    if sorted(found) != wanted:
        return wrong("the pages do not hold every upload once")
    if not by_key:
        return wrong("they go on by the ids of the uploads, not by their keys")
    return OFFERED if found == wanted else wrong("they are not in the order of the keys")


def _dropped(room: Room, at: str) -> Seen:
    key = f"{at}dropped"
    upload_id = room.start_upload(key)
    room.client.abort_multipart(key, upload_id)
    try:
        room.client.list_parts(key, upload_id)
    except (UploadGone, ObjectMissing):
        return OFFERED
    return wrong("an upload that was dropped is still there")


FEATURES = (
    Feature(
        "upload resumed",
        _resumed,
        "a large file whose upload is cut off does not get there by going on; it begins anew each time",
        "upgrade the server; until then keep [s3] part_size above the size of the files",
        Weight.FAILURE,
    ),
    Feature(
        "checksums of parts listed",
        _checksums_of_parts,
        "what was sent is confirmed by recfs's own record of the parts, not by the server's",
        "nothing: recfs keeps the record in its catalogue",
    ),
    Feature(
        "unfinished uploads listed",
        _listed,
        "uploads that were begun and never recorded are not found, and cost as much as objects",
        "have the bucket drop them by their age: `recfs lifecycle apply`",
        Weight.WARNING,
    ),
    Feature(
        "unfinished uploads in pages",
        _paged,
        "of a thousand unfinished uploads and more other clients may find the first only; recfs goes on by what the "
        "server gives it",
        "have the bucket drop them by their age: `recfs lifecycle apply`",
    ),
    Feature(
        "upload dropped",
        _dropped,
        "parts of uploads that were given up stay, and cost as much as objects",
        "look for unfinished uploads in the bucket now and then",
        Weight.WARNING,
    ),
)
