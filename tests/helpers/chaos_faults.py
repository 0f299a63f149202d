"""What can become of a request on its way through the chaos proxy."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
from collections.abc import Callable
from dataclasses import dataclass, replace

import google_crc32c

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><br>Welcome to the Wi-Fi.</body></html>"
XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Maintenance</p></body></html>'


@dataclass(frozen=True)
class Request:
    """What the client asked."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the client gets. `sent` None: all of the body; else only so many bytes, and then `end`."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    end: str = "close"
    """close, reset or stall; only with `sent`."""
    trickle: bool = False
    """One byte at a time, until the client has enough of it."""
    interim: bytes = b""
    """What comes before the answer …"""
    endless: bool = False
    """… again and again, until the client has enough of it."""


class Fault:
    """Changes what becomes of a request. The base changes nothing."""

    asks_server = True
    """Whether the request reaches the server."""
    takes_body = True
    """Whether the proxy reads the body of the request."""
    early: bytes = b""
    """What comes before "100 Continue", where the client expects that."""

    def change(self, request: Request, answer: Answer) -> Answer:
        """The answer to give instead."""
        return answer


@dataclass(frozen=True)
class Status(Fault):
    """An S3 error; without *code*, a bare one as a proxy gives it."""

    status: int
    code: str = ""
    message: str = "chaos"
    server: str = "chaos"
    asks_server = False

    def change(self, request: Request, answer: Answer) -> Answer:
        body = f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()
        if not self.code:
            body = HTML
        reason = http.client.responses.get(self.status, "Unknown")
        headers = {"Content-Type": "application/xml" if self.code else "text/html", "Content-Length": str(len(body))}
        headers["Server"] = self.server
        return Answer(self.status, reason, headers, body)


@dataclass(frozen=True)
class Xml(Fault):
    """Another server's answer: the body that *write* makes for the request."""

    write: Callable[[Request], str]
    asks_server = False

    def change(self, request: Request, answer: Answer) -> Answer:
        body = self.write(request).encode()
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
        return Answer(200, "OK", headers, body)


@dataclass(frozen=True)
class Page(Fault):
    """Status 200 and an error page instead of the answer; *keep_headers*: only the body is replaced."""

    page: bytes = HTML
    keep_headers: bool = False
    asks_server = True

    def change(self, request: Request, answer: Answer) -> Answer:
        headers = dict(answer.headers) if self.keep_headers else {"Content-Type": "text/html"}
        headers["Content-Length"] = str(len(self.page))
        status = answer.status if self.keep_headers else 200
        return Answer(status, "OK", headers, self.page)


@dataclass(frozen=True)
class PageInstead(Page):
    """The same from somebody who asks no server: nothing has arrived there."""

    asks_server = False


@dataclass(frozen=True)
class Cut(Fault):
    """The body breaks off after *sent* bytes: the connection is closed, reset, or stands still."""

    sent: int
    end: str = "close"

    def change(self, request: Request, answer: Answer) -> Answer:
        return replace(answer, sent=self.sent, end=self.end)


class NoAnswer(Cut):
    """Not even a status line comes; the server has carried the request out."""

    def __init__(self, end: str = "reset") -> None:
        super().__init__(-1, end)


class Deaf(Fault):
    """The body of the request is not taken: its sender gets stuck."""

    asks_server = takes_body = False


class Trickle(Fault):
    """The body comes byte by byte."""

    def change(self, request: Request, answer: Answer) -> Answer:
        return replace(answer, trickle=True)


@dataclass(frozen=True)
class Interim(Fault):
    """Answers of status 1xx before the real one, *early* those before "100 Continue"; *endless*: and no real one."""

    interim: bytes = b""
    early: bytes = b""
    endless: bool = False

    def change(self, request: Request, answer: Answer) -> Answer:
        return replace(answer, interim=self.interim, endless=self.endless)


@dataclass(frozen=True)
class Longer(Fault):
    """*extra* bytes more than there are; *honest*: Content-Length says so, *chunked*: there is none.

    *apart*: the extra bytes are a chunk of their own.
    """

    extra: int
    honest: bool = True
    chunked: bool = False
    apart: bool = False

    def change(self, request: Request, answer: Answer) -> Answer:
        body, headers = answer.body + b"x" * self.extra, dict(answer.headers)
        if self.chunked:
            del headers["Content-Length"]
            headers["Transfer-Encoding"] = "chunked"
            chunks = [answer.body, b"x" * self.extra] if self.apart else [body]
            body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        elif self.honest:
            headers["Content-Length"] = str(len(body))
        return replace(answer, body=body, headers=headers)


@dataclass(frozen=True)
class Header(Fault):
    """One header of the answer replaced, or (None) left out; perhaps another status."""

    name: str
    value: str | None
    status: int | None = None

    def change(self, request: Request, answer: Answer) -> Answer:
        headers = {name: value for name, value in answer.headers.items() if name.lower() != self.name.lower()}
        if self.value is not None:
            headers[self.name] = self.value
        return replace(answer, headers=headers, status=self.status or answer.status)


class Checksums(Fault):
    """Not a fault but a virtue that test servers lack: checksum headers are verified, and repeated in the answer."""

    def change(self, request: Request, answer: Answer) -> Answer:
        for algorithm, digest in _CHECKSUMS.items():
            sent = request.headers.get(f"x-amz-checksum-{algorithm}")
            if request.method != "PUT" or sent is None or answer.status != 200:
                continue
            if sent != base64.b64encode(digest(request.body)).decode():
                return Status(400, "BadDigest").change(request, answer)
            return Header(f"x-amz-checksum-{algorithm}", sent).change(request, answer)
        return answer


_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "crc32c": lambda body: google_crc32c.value(body).to_bytes(4, "big"),
    "sha256": lambda body: hashlib.sha256(body).digest(),
}


@dataclass(frozen=True)
class Skew(Fault):
    """The server's clock differs by *seconds*."""

    seconds: float

    def change(self, request: Request, answer: Answer) -> Answer:
        now = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
        return Header("Date", email.utils.formatdate(now + self.seconds, usegmt=True)).change(request, answer)
