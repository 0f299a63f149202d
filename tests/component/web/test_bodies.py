"""Bodies as clients really send them: in types with parameters, packed, and behind an answer that came early."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.component.web.running import Running
from tests.component.web.site import API, Site, problem
from tests.component.web.test_slow_clients import ended, until

WANTED = b'{"length": 4, "recording": "1", "path": "a.bin", "filename": "a.bin", "chunk_bytes": 4}'
STREAM = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabcd\r\n--b--\r\n'


def begun(site: Site) -> str:
    """The path of a new upload."""
    made = site.ask("POST", "uploads", headers={"Content-Type": "application/json"}, content=WANTED)
    assert made.status_code == 201, made.text
    href: str = made.json()["upload_href"]
    return href


@pytest.mark.parametrize("kind", [STREAM, f"{STREAM}; charset=utf-8", "Application/Offset+Octet-Stream"])
def test_a_type_is_the_same_with_parameters_and_in_capitals(site: Site, kind: str) -> None:
    upload = begun(site)
    assert site.ask("PATCH", upload, headers=TUS | {"Content-Type": kind}, content=b"abcd").status_code == 204
    assert (site.root / "users/5/recordings/1/a.bin").read_bytes() == b"abcd"


def test_packed_bytes_are_taken_by_no_route(site: Site) -> None:
    upload, packed = begun(site), {"Content-Encoding": "gzip"}
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": STREAM}
    asked = [
        ("PATCH", upload, tus | {"Upload-Offset": "0"}, b"abcd"),
        ("POST", "uploads", tus | {"Upload-Length": "4", "Upload-Metadata": "filename YS5tcDQ="}, b"abcd"),
        ("POST", f"{upload}/chunks/0", {}, b"abcd"),
        ("PUT", "users/5/recordings/1/b.bin", {}, b"abcd"),
        ("POST", "projects/5/videos", {"Content-Type": "multipart/form-data; boundary=b"}, FORM),
    ]
    for method, path, headers, content in asked:
        answer = site.ask(method, path, headers=headers | packed, content=content)
        assert (answer.status_code, problem(answer)) == (415, "UnsupportedMediaType"), (method, path)
        assert (
            site.ask(method, path, headers=headers | {"Content-Encoding": "identity"}, content=content).status_code
            < 300
        )


@pytest.mark.parametrize("last", ["Connection: close", "Connection: keep-alive"])
def test_a_refusal_comes_to_a_client_who_sends_on_before_reading_it(tmp_path: Path, last: str) -> None:
    """A proxy asks with `Connection: close`. With bytes unread a closed connection is reset, and the answer lost."""
    size = 8 << 20
    with Running(tmp_path)() as gateway:
        told: list[object] = []
        gateway.site.context.listeners.append(told.append)
        sock = gateway.connect()
        path = f"{API}/users/7/recordings/1/a.bin"  # somebody else's
        sock.sendall(gateway.head("PUT", path, f"Content-Length: {size}", last))
        until(lambda: bool(told))  # it is refused
        for _ in range(size >> 20):
            sock.sendall(bytes(1 << 20))
        if last.endswith("close"):
            assert b" 404 " in ended(sock)
        else:
            assert b" 404 " in sock.recv(1 << 16)
            sock.sendall(gateway.head("GET", "/healthz", "Connection: close"))
            assert b" 200 " in ended(sock)
        sock.close()
