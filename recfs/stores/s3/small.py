"""Small objects of recfs's own, read and written whole."""

from __future__ import annotations

from contextlib import closing
from hashlib import md5
from typing import Any

from recfs.ports.object_errors import NotOffered, ObjectChanged, ObjectMissing
from recfs.ports.objects import SMALL_BYTES
from recfs.stores.s3.admin import S3Admin
from recfs.stores.s3.faults import faults


class S3Small(S3Admin):
    """Reading and writing small objects."""

    def get_small(self, key: str) -> bytes | None:
        """As `ObjectStore.get_small`."""
        doing = "read"
        try:
            answer = self._call(doing, key, "get_object")
        except ObjectMissing:
            return None
        # Not the body as a context: that is what it reads from, which does not mind where the answer breaks off.
        with faults(self._target, doing, key), closing(answer["Body"]) as body:
            found: bytes = body.read(SMALL_BYTES)
            if len(found) < SMALL_BYTES:
                body.read(1)  # only at its end it tells whether that was all
        self._proven(answer, key, found, doing)
        return found

    def put_small(self, key: str, data: bytes, *, only_new: bool) -> bool:
        """As `ObjectStore.put_small`."""
        doing = "write"
        parameters: dict[str, Any] = {"Body": data, "ContentType": "application/json", **self._encryption()}
        condition = {"IfNoneMatch": "*"} if only_new else {}
        try:
            answer = self._call(doing, key, "put_object", **parameters, **condition)
        except ObjectChanged:
            return False
        except NotOffered:
            if not only_new or self.get_small(key) is not None:
                if only_new:
                    return False
                raise
            answer = self._call(doing, key, "put_object", **parameters)
        self._proven(answer, key, data, doing)
        return True

    def _proven(self, answer: dict[str, Any], key: str, data: bytes, doing: str) -> None:
        """Raise BadAnswer where no S3 server gave an answer: it has no etag, and a listing knows no object of *data*.

        A proxy may have taken the etag off; an error page with status 200 never had one.
        """
        if not answer.get("ETag") and self._listed(key, doing) != (
            md5(data, usedforsecurity=False).hexdigest(),
            len(data),
        ):
            self._expect(answer, "ETag", doing, key)
