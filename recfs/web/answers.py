"""Answers in JSON: ASCII, so that names which are not UTF-8 can be told as `os.fsdecode` has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive


class Json(Response):
    """A JSON document that nobody keeps."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode("ascii")

    def init_headers(self, headers: Any = None) -> None:
        super().init_headers({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})})


def href(*parts: str) -> str:
    """Give the path of an URL of the API below /api/v1; each part is one segment, whatever is in it."""
    return "/api/v1/" + "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


async def until_gone(receive: Receive) -> None:
    """Wait until the client has left: a server tells that to nobody who does not ask."""
    while (await receive())["type"] != "http.disconnect":
        pass


__all__ = ["Json", "href", "until_gone"]
