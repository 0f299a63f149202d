"""A proxy in the environment is taken for all requests in the same way, boto3's and recfs's own."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.ports import object_errors as kinds
from recfs.ports.objects import MIB, ObjectMeta
from recfs.stores.s3.proxy import proxy_for
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_store import DATA, KEY, META, file, raised, read
from tests.helpers.forward_proxy import ForwardProxy, TlsFront, certificate
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["file", "moto_bucket", "moto_server"]

HTML = b"<html><body>no</body></html>"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def everything(store: S3Store, fd: int) -> None:
    """Each of the three requests of recfs's own, and some of boto3's."""
    store.put_file(fd, len(DATA), KEY, META)
    assert read(store) == DATA
    assert store.head(KEY) is not None
    assert [info.key for info in store.list()] == [KEY]
    upload = store.start_multipart("large", META)
    store.upload_part("large", upload, 1, fd, 0, len(DATA))
    store.abort_multipart("large", upload)
    store.delete([KEY])


@pytest.mark.parametrize(
    ("variable", "url", "pair"),
    [
        ("http_proxy", "http://{}", None),
        ("http_proxy", "{}", None),
        ("http_proxy", "//{}", None),
        ("HTTP_PROXY", "http://user:secret@{}", b"user:secret"),
        ("http_proxy", "user:secret@{}", b"user:secret"),
        ("http_proxy", "http://us%40er:p%3A%2F%20w@{}/", b"us@er:p:/ w"),
        ("http_proxy", "http://token@{}", b"token:"),
        ("http_proxy", "http://m%C3%BCller:gr%C3%BC%C3%9Fe@{}", "m\u00fcller:gr\u00fc\u00dfe".encode()),
        ("all_proxy", "http://user:secret@{}", b"user:secret"),
    ],
)
@pytest.mark.table(2)
def test_http(
    variable: str, url: str, pair: bytes | None, moto_bucket: Bucket, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(pair) as proxy:
        monkeypatch.setenv(variable, url.format(proxy.place))
        store = moto_bucket.store()
        everything(store, file)
        store.close()
        sent = None if pair is None else "Basic " + base64.b64encode(pair).decode()
        assert len(proxy.asked) >= 8
        assert {asked.hosts for asked in proxy.asked} == {1}
        assert {asked.authorization for asked in proxy.asked} == {sent}
        assert all(asked.target.startswith(moto_bucket.endpoint) for asked in proxy.asked)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return certificate(tmp_path)


@pytest.fixture
def tls_endpoint(moto_server: str, pem: Path) -> Iterator[str]:
    with TlsFront(moto_server, pem) as front:
        yield front.url


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.table
def test_https_by_a_tunnel(
    scheme: str, moto_bucket: Bucket, tls_endpoint: str, pem: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(b"user:se cret", pem if scheme == "https" else None) as proxy:
        monkeypatch.setenv("https_proxy", f"{scheme}://user:se%20cret@{proxy.place}")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        store = moto_bucket.store(endpoint=tls_endpoint, ca_bundle=pem)
        everything(store, file)
        store.close()
        assert {asked.method for asked in proxy.asked} == {"CONNECT"}
        assert len({asked.authorization for asked in proxy.asked}) == 1
        assert len(proxy.asked) >= 2  # boto3's connections, and recfs's own


def test_no_proxy_for_this_server(moto_bucket: Bucket, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.place}")
        monkeypatch.setenv("no_proxy", "example.org, 127.0.0.0/8")
        store = moto_bucket.store()
        everything(store, file)
        store.close()
        assert proxy.asked == []


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.table
def test_wrong_credentials_for_the_proxy_are_told(
    tls: bool, moto_bucket: Bucket, tls_endpoint: str, pem: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(b"user:secret") as proxy:
        monkeypatch.setenv("https_proxy" if tls else "http_proxy", f"http://user:wrong@{proxy.place}")
        store = moto_bucket.store(endpoint=tls_endpoint, ca_bundle=pem) if tls else moto_bucket.store()
        for call in (lambda: store.check(), lambda: store.put_file(file, len(DATA), KEY, META)):
            error = raised(kinds.WrongCredentials, call)
            assert "the proxy wants a user and a password" in str(error)
            assert f"through the proxy http://{proxy.place}" in str(error)
            assert "user:password@host:port" in str(error)
            assert "wrong" not in str(error)
            assert not error.outage
        store.close()


@pytest.mark.parametrize(
    ("status", "kind"), [(502, kinds.ServerFault), (503, kinds.ServerFault), (403, kinds.AccessRefused)]
)
@pytest.mark.table
def test_pages_of_the_proxy(
    status: int, kind: type[kinds.ObjectStoreError], moto_bucket: Bucket, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy:
        lines = f"HTTP/1.1 {status} No", "Content-Type: text/html", f"Content-Length: {len(HTML)}", "Connection: close"
        proxy.answer = "\r\n".join([*lines, "", ""]).encode() + HTML
        monkeypatch.setenv("http_proxy", f"http://{proxy.place}")
        store = moto_bucket.store()
        for call in (lambda: store.check(), lambda: store.put_file(file, len(DATA), KEY, META), lambda: read(store)):
            error = raised(kind, call)
            assert error.outage == (status != 403)
            if status == 403:
                assert "no_proxy" in str(error)
        store.close()


@pytest.mark.parametrize(("status", "kind"), [(503, kinds.Unreachable), (403, kinds.AccessRefused)])
@pytest.mark.table
def test_a_refused_tunnel(
    status: int, kind: type[kinds.ObjectStoreError], moto_bucket: Bucket, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy:
        proxy.answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        monkeypatch.setenv("https_proxy", f"http://{proxy.place}")
        store = moto_bucket.store(endpoint="https://s3.example.org")
        for call in (lambda: store.check(), lambda: store.put_file(file, len(DATA), KEY, META)):
            assert f"status {status}" in str(raised(kind, call))
        store.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
@pytest.mark.slow
def test_a_proxy_that_is_none(url: str, moto_bucket: Bucket, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", url)
    store = moto_bucket.store()
    for call in (lambda: store.check(), lambda: store.put_file(file, len(DATA), KEY, META)):
        error = raised(kinds.Unreachable, call)
        assert f"through the proxy {url}" in str(error)
        assert error.outage
    store.close()


@pytest.mark.parametrize(
    ("no_proxy", "endpoint", "direct"),
    [
        ("*", "http://s3.example.org", True),
        ("a, *", "http://s3.example.org", True),
        ("example.org", "https://s3.example.org", True),
        (".example.org", "https://s3.example.org:9000", True),
        ("*.example.org", "https://s3.example.org", True),
        ("S3.Example.ORG", "https://s3.example.org", True),
        ("s3.example.org:9000", "https://s3.example.org:9000", True),
        ("s3.example.org:9001", "https://s3.example.org:9000", False),
        ("ample.org", "https://s3.example.org", False),
        ("10.0.0.0/8", "http://10.1.2.3:9000", True),
        ("10.0.0.0/8", "http://11.1.2.3:9000", False),
        ("10.1.2.3", "http://10.1.2.3:9000", True),
        ("fd00::/8", "http://[fd00::1]:9000", True),
        ("[::1]", "http://[::1]:9000", True),
        ("::1", "http://[::1]", True),
        ("", "http://s3.example.org", False),
    ],
)
def test_no_proxy(no_proxy: str, endpoint: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_for(endpoint) is None) == direct


def test_lower_case_goes_first_and_an_empty_one_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://upper:1")
    assert proxy_for("https://a") == ("http://upper:1", {})
    monkeypatch.setenv("https_proxy", "http://lower:1")
    assert proxy_for("https://a") == ("http://lower:1", {})
    monkeypatch.setenv("https_proxy", "")
    assert proxy_for("https://a") is None


def test_large_answers_come_through_a_proxy_whole(
    moto_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * MIB)
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key="large", Body=data)
    with ForwardProxy() as proxy, open(tmp_path / "into", "w+b") as into:
        monkeypatch.setenv("http_proxy", proxy.place)
        store = moto_bucket.store()
        store.get_range("large", 0, len(data), if_match=None, into=into.fileno())
        store.close()
        assert into.read() == data
        assert len(proxy.asked) == 1


def test_a_proxy_that_takes_headers_off(
    moto_bucket: Bucket, file: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ForwardProxy() as proxy:
        proxy.strips = True
        monkeypatch.setenv("http_proxy", proxy.place)
        store = moto_bucket.store()
        info = store.put_file(file, len(DATA), KEY, META)
        assert moto_bucket.client.head_object(Bucket=moto_bucket.name, Key=KEY)["ETag"] == f'"{info.etag}"'
        upload = store.start_multipart("large", META)
        part = store.upload_part("large", upload, 1, file, 0, len(DATA))
        info = store.finish_multipart("large", upload, [part], META, len(DATA))
        assert moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="large")["ETag"] == f'"{info.etag}"'
        assert "no ETag" in str(raised(kinds.BadAnswer, lambda: read(store)))  # whose bytes are these?
        assert store.put_small("mark", b"{}", only_new=True)
        assert store.get_small("mark") == b"{}"
        other = tmp_path / "other"
        other.write_bytes(b"x" * len(DATA))
        with other.open("rb") as fd, monkeypatch.context() as patched:
            patched.setattr(store, "_send", lambda *_a, **_k: {})  # it answers by itself, and stores nothing
            assert "no ETag" in str(
                raised(kinds.BadAnswer, lambda: store.put_file(fd.fileno(), len(DATA), KEY, ObjectMeta()))
            )
        store.close()
