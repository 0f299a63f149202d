"""An HTTP proxy as companies have them, and a TLS front for a server that speaks none."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import trio
import trio.abc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_LOCAL = ipaddress.ip_address("127.0.0.1")
Stream = trio.abc.Stream


@dataclass(frozen=True)
class Asked:
    """One request as the proxy saw it."""

    method: str
    target: str
    hosts: int
    authorization: str | None


def certificate(directory: Path) -> Path:
    """A certificate of its own for 127.0.0.1, with its key in one file: also the CA to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(_LOCAL)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    path = directory / "tls.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + private)
    return path


class _Listener:
    """Serves on a free port of 127.0.0.1 in a thread of its own, for a `with` block."""

    def __init__(self, pem: Path | None = None) -> None:
        self._pem, self.port = pem, 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(30)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        with trio.CancelScope() as self._scope:
            self._started.set()
            await trio.serve_listeners(self._one, [listener])

    async def _one(self, client: trio.SocketStream) -> None:
        stream: Stream = client
        if self._pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._pem)
            stream = trio.SSLStream(client, context, server_side=True, https_compatible=True)
        async with client:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.serve(stream)

    async def serve(self, client: Stream) -> None:
        raise NotImplementedError


class TlsFront(_Listener):
    """https in front of a server of http."""

    def __init__(self, server_url: str, pem: Path) -> None:
        super().__init__(pem)
        self._server_url = server_url

    @property
    def url(self) -> str:
        """Endpoint for the client."""
        return f"https://127.0.0.1:{self.port}"

    async def serve(self, client: Stream) -> None:
        """Relay."""
        parts = urlsplit(self._server_url)
        await _join(client, str(parts.hostname), int(parts.port or 80))


class ForwardProxy(_Listener):
    """A proxy for http and, by CONNECT, https. *credentials*: user:password, without which it answers 407."""

    def __init__(self, credentials: bytes | None = None, pem: Path | None = None) -> None:
        super().__init__(pem)
        self._credentials = credentials
        self.asked: list[Asked] = []
        self.answer: bytes | None = None
        """What every request gets instead of being led on."""
        self.strips = False
        """Whether answers lose all headers but what says how long they are and of which type."""

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    async def serve(self, client: Stream) -> None:
        """One request, the body as it comes."""
        head = b""
        while b"\r\n\r\n" not in head:
            block = await client.receive_some(1 << 16)
            if not block:
                return
            head += block
        head, _, body = bytes(head).partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.decode("ascii").split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        found = dict(headers).get(b"proxy-authorization")
        hosts = sum(name == b"host" for name, _ in headers)
        self.asked.append(Asked(method, target, hosts, None if found is None else found.decode("ascii")))
        if self.answer is not None:
            await client.send_all(self.answer)
        elif self._credentials is not None and _basic(found) != self._credentials:
            await client.send_all(_REFUSAL)
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _join(client, host, int(port), body)
        else:
            url = urlsplit(target)
            assert url.scheme == "http", "no absolute target"
            path = (url.path + ("?" + url.query if url.query else "")).encode()
            kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
            sent = b"\r\n".join([b" ".join([method.encode(), path, b"HTTP/1.1"]), *kept, b"", b""])
            await _join(client, str(url.hostname), int(url.port or 80), sent + body, strips=self.strips)


_REFUSAL = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _basic(found: bytes | None) -> bytes | None:
    return None if found is None else base64.b64decode(found.removeprefix(b"Basic "))


async def _join(client: Stream, host: str, port: int, sent: bytes = b"", *, strips: bool = False) -> None:
    """Send, then relay both ways until the server ends."""
    async with await trio.open_tcp_stream(host, port) as server, trio.open_nursery() as nursery:
        await server.send_all(sent)
        nursery.start_soon(_relay, client, server)
        if strips:
            await client.send_all(await _stripped(server))
        await _relay(server, client)
        nursery.cancel_scope.cancel()


async def _stripped(server: Stream) -> bytes:
    """The beginning of an answer without most of its headers, and a "100 Continue" before it as it is."""
    head, before = b"", b""
    while b"\r\n\r\n" not in head:
        block = bytes(await server.receive_some(1 << 16))
        if not block:
            return before + head
        head += block
        if head.startswith(b"HTTP/1.1 100"):
            go_on, _, head = head.partition(b"\r\n\r\n")
            before += go_on + b"\r\n\r\n"
    first, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    kept = [line for line in lines if line.lower().startswith((b"content-length", b"content-type", b"connection"))]
    return before + b"\r\n".join([first, *kept, b"", b""]) + head.partition(b"\r\n\r\n")[2]


async def _relay(source: Stream, target: Stream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while block := await source.receive_some(1 << 16):
            await target.send_all(block)
