"""What is told of a download whose client left: it is whole when all bytes went, and broken when some did not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from recfs.web.copying import COPIED
from recfs.web.recordings import body
from tests.component.web.site import API, Site

if TYPE_CHECKING:
    from recfs.web.accesses import Access

SIZE = 3 << 20
SOURCE = "users/5/recordings/142/source.mp4"


async def asked(site: Site, method: str, headers: dict[str, str], taken: int, *, copies: bool) -> None:
    """Ask as a client that leaves as soon as it has *taken* bytes of the body, before anything more is sent."""
    gone, begun, got = asyncio.Event(), False, 0

    async def receive() -> dict[str, Any]:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal got
        if gone.is_set():
            return  # as servers do: nobody is there
        if message["type"] == COPIED:
            message["copy"].sent = message["copy"].size
            got += message["copy"].size
        got += len(message.get("body", b""))
        if got >= taken:
            gone.set()
            for _ in range(5):  # whoever waits for that hears of it before more is sent
                await asyncio.sleep(0)

    told = {"host": "gateway", "authorization": f"Bearer {site.token}", **headers}
    path = f"{API}/{SOURCE}"
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "client": ("127.0.0.1", 1), "server": ("gateway", 80), "state": {},
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        "extensions": {COPIED: {}} if copies else {},
    }  # fmt: skip
    await site.served(scope, receive, send)  # type: ignore[arg-type]


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(
    ("method", "headers", "taken", "outcome"),
    [
        ("GET", {}, SIZE, "ok"),
        ("GET", {}, SIZE - 1, "ok"),
        ("GET", {}, 1, "broken"),
        ("GET", {}, SIZE // 2, "broken"),
        ("GET", {"range": "bytes=7-2000006"}, 2000000, "ok"),
        ("GET", {"range": "bytes=7-2000006"}, 100000, "broken"),
        ("GET", {"range": "bytes=0-9,1000-1009"}, 100, "broken"),
        ("HEAD", {}, 0, "ok"),
    ],
)
def test_a_download_is_whole_when_its_last_byte_went(
    site: Site, monkeypatch: pytest.MonkeyPatch, method: str, headers: dict[str, str], taken: int, outcome: str,
    copies: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(body, "COPY_BYTES", 1 << 20)
    told: list[Access] = []
    site.context.listeners.append(told.append)
    site.file(SOURCE, bytes(SIZE))
    asyncio.run(asked(site, method, headers, taken, copies=copies))
    assert [each.outcome for each in told] == [outcome]
