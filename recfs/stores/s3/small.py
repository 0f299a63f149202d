"""Small objects of recfs's own, read and written whole."""

from __future__ import annotations

from typing import Any

from recfs.object_errors import NotOffered, ObjectChanged, ObjectMissing
from recfs.objects import SMALL_BYTES
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
        self._expect(answer, "ETag", doing, key)
        with faults(self._target, doing, key), answer["Body"] as body:
            found: bytes = body.read(SMALL_BYTES)
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
        self._expect(answer, "ETag", doing, key)
        return True
