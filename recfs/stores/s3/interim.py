"""HTTP connections that read past interim answers: those of status 1xx, before the final one (RFC 9110, 15.2).

A client has to take any number of them, also those it did not ask for: proxies and CDNs send 103 Early Hints, servers
102 Processing. Python's http.client passes over 100 only and takes any other for the answer, and botocore's connection
takes it for a refusal when it waits for "100 Continue".
"""

from __future__ import annotations

import functools
import http.client
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import botocore.awsrequest
import urllib3.util

MOST: Final = 100
"""So many before one answer, and no more: who sends nothing else will not come to an end."""
CONTINUE_S: Final = 1.0
"""How long "100 Continue" is waited for before the body is sent without it (botocore's value)."""


class NoFinalAnswer(http.client.HTTPException):
    """Interim answers without end, or a change of protocol (101) that nobody asked for."""


class FinalResponse(http.client.HTTPResponse):
    """The final answer to a request. *status_tuple*: its status line, where that has been read already."""

    def __init__(
        self, sock: socket.socket, *args: Any, status_tuple: tuple[str, int, str] | None = None, **more: Any
    ) -> None:
        super().__init__(sock, *args, **more)
        self._socket = sock
        self._known = status_tuple

    def _read_status(self) -> tuple[str, int, str]:
        """Read the status line. Raises NoFinalAnswer, also when interim answers come for longer than the time-out."""
        if self._known is not None:
            known, self._known = self._known, None
            return known
        status = self._one_status()
        if not is_interim(status):
            return status
        timeout_s = self._socket.gettimeout()
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            for _ in range(MOST):
                http.client.parse_headers(self.fp)
                if ends is not None:
                    self._socket.settimeout(max(ends - time.monotonic(), 0.001))
                status = self._one_status()
                if not is_interim(status):
                    return status
        except TimeoutError as error:
            raise NoFinalAnswer(f"nothing but interim answers (1xx) for {timeout_s:g} s") from error
        finally:
            self._socket.settimeout(timeout_s)
        raise NoFinalAnswer(f"more than {MOST} interim answers (1xx)")

    def _one_status(self) -> tuple[str, int, str]:
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return status


def is_interim(status: tuple[str, int, str]) -> bool:
    """Whether another answer follows one of this (version, status, reason). Raises NoFinalAnswer for 101."""
    if status[1] == http.HTTPStatus.SWITCHING_PROTOCOLS:
        raise NoFinalAnswer("status 101, a change of protocol that was not asked for")
    return status[1] < 200


class _Connection(botocore.awsrequest.AWSConnection):  # type: ignore[misc]
    """botocore's, which knows "Expect: 100-continue"."""

    response_class: Callable[..., FinalResponse] = FinalResponse

    def _handle_expect_response(self, message_body: Any) -> None:
        """Something came after the headers with "Expect": send the body, unless it is the final answer already."""
        answer = FinalResponse(self.sock)
        answer.fp.close()
        answer.fp = self.sock.makefile("rb", 0)  # what follows is not ours to read ahead
        ends = time.monotonic() + CONTINUE_S
        try:
            for _ in range(MOST):
                status = answer._one_status()
                if not is_interim(status):
                    self.response_class = functools.partial(FinalResponse, status_tuple=status)
                    self._response_received = True
                    return
                http.client.parse_headers(answer.fp)
                if status[1] == http.HTTPStatus.CONTINUE or not self._has_more(ends - time.monotonic()):
                    self._send_message_body(message_body)
                    return
        finally:
            answer.fp.close()
        raise NoFinalAnswer(f"more than {MOST} interim answers (1xx)")

    def _has_more(self, left_s: float) -> bool:
        if left_s <= 0:
            return False
        pending = getattr(self.sock, "pending", None)  # TLS may hold bytes that no poll tells of
        return bool(pending is not None and pending()) or urllib3.util.wait_for_read(self.sock, left_s)


class _HTTPConnection(_Connection, botocore.awsrequest.AWSHTTPConnection):  # type: ignore[misc]
    pass


class _HTTPSConnection(_Connection, botocore.awsrequest.AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


POOLS: Final = {"http": _HTTPPool, "https": _HTTPSPool}
"""For urllib3's `pool_classes_by_scheme`."""


def use_in(client: Any) -> None:
    """Have boto3's *client* use these connections, straight and through proxies."""
    client._endpoint.http_session._pool_classes_by_scheme.update(POOLS)


__all__ = ["POOLS", "FinalResponse", "NoFinalAnswer", "use_in"]
