"""Uploads below the routes, on a plain directory: what their tests have in common."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter

from recfs.client.writing import open_folder
from recfs.web.uploads import staged
from recfs.web.uploads.body import Body
from recfs.web.uploads.plan import Plan, UploadId
from recfs.web.uploads.service import Uploads

DATA = random.Random(17).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
JOB = "01234567-89ab-cdef-0123-456789abcdef"
ID = UploadId("5", JOB)


def plan(**changes: Any) -> Plan:
    told: dict[str, Any] = {"recording": "142", "path": ("source.mp4",), "length": len(DATA), "original_name": "T.mp4"}
    return Plan(**({"id": ID} | told | changes))


def folders_of(root: Path) -> staged.Folders:
    def folders(*parts: str, make: bool = False) -> int:
        return open_folder(root, parts, make=make)

    return folders


def uploads_of(root: Path, **more: Any) -> Uploads:
    return Uploads(folders_of(root), calls=CapacityLimiter(4), writes=CapacityLimiter(4), **more)


class Sent:
    """A body: blocks, then its end, or that of its connection."""

    def __init__(self, *blocks: bytes, cut: bool = False, wait: asyncio.Event | None = None) -> None:
        self._left = list(blocks)
        self._cut = cut
        self._wait = wait
        self.taken = 0
        self.began = asyncio.Event()

    async def __call__(self) -> MutableMapping[str, Any]:
        self.began.set()
        if self._left:
            block = self._left.pop(0)
            self.taken += len(block)
            return {
                "type": "http.request",
                "body": block,
                "more_body": bool(self._left) or self._cut or bool(self._wait),
            }
        if self._wait is not None:
            await self._wait.wait()
        return {"type": "http.disconnect"} if self._cut else {"type": "http.request", "body": b"", "more_body": False}


def body(*blocks: bytes, cut: bool = False) -> Body:
    return Body(Sent(*blocks, cut=cut))


def run(root: Path, work: Callable[[Uploads], Awaitable[Any]], **more: Any) -> Any:
    async def whole() -> Any:
        uploads = uploads_of(root, **more)
        try:
            return await work(uploads)
        finally:
            await uploads.close()

    return asyncio.run(whole())


def files_of(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*") if each.is_file()}
