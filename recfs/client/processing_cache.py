"""Results of processing that recfs keeps, so that nothing is made twice of the same bytes (docs/semantics.md, 34)."""

from __future__ import annotations

import base64
import json
import logging
import os
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

from recfs.client.asking import Question, socket_of
from recfs.client.errors import ClientError
from recfs.client.tree import parts_of
from recfs.client.waiting import abandoned, checkpoint, in_thread

T = TypeVar("T")
log = logging.getLogger("recfs.client")

CLAIM_S: Final = 3600.0
_WAIT_S: Final = 30.0
"""So long one question waits for somebody else's result; then it is asked again."""


class _Claim(NamedTuple):
    """What this one is to make."""

    number: int
    sha256: str
    """Of the bytes that it is to be made of."""


class ProcessingCache:
    """Results of processing, by the bytes they were made of, their kind, and the options they were made with.

    *where* is the socket of `[gateway]`, or, for root, a path of the mount; None: the mount that there is. Files are
    named by their paths in the tree, and found by their bytes: a copy of any name and of any user has the same
    results. Whoever asks has to be allowed to read the file, which has to be committed (`wait_committed`). Kinds are
    small letters, digits, "_", "." and "-"; options and results are JSON. Raises DaemonRefused (its `kind` says why:
    NotFound, AccessDenied, TryAgain …), DaemonUnreachable, NotAMount for a plain directory, and InvalidName.
    """

    def __init__(self, where: str | os.PathLike[str] | None = None) -> None:
        self._where = where

    def get(self, path: str, kind: str, options: Any = None, *, default: Any = None) -> Any:
        """Give the result that is kept, or *default*."""
        found = self._ask("cache_get", path, kind, options, packed=True)
        return _unpacked(found["packed"]) if found["found"] else default

    def put(self, path: str, kind: str, result: Any, options: Any = None, *, made_of: str | None = None) -> None:
        """Keep a result. Raises TypeError or ValueError for what is no JSON, too.

        *made_of*: the sha256 (`facts`) that the file had before it was read; where it has other bytes by now, nothing
        is kept, and that is DaemonRefused of the kind Stale.
        """
        self._ask("cache_put", path, kind, options, packed=_packed(result), **_made_of(made_of))

    def once(self, path: str, kind: str, make: Callable[[], T], options: Any = None, *, claim_s: float = CLAIM_S) -> T:
        """Give the result; where there is none, have *make* make it, and keep it.

        Of several who ask at once, in any process of this machine, one makes it and the others wait: for *claim_s* at
        most, and not when it fails, then the next one makes it. What *make* raises goes on. A result that cannot be
        kept is given all the same, and logged: so is one of a file that is overwritten meanwhile.
        """
        while True:
            found, claim = self._claimed(path, kind, options, claim_s)
            if found is not None:
                result: T = _unpacked(found)
                return result
            if claim is not None:
                break
            self._ask("cache_wait", path, kind, options, wait_s=_WAIT_S)
        try:
            made = make()
        except BaseException:
            self._release(path, kind, options, claim)
            raise
        self._keep(path, kind, options, claim, made)
        return made

    async def get_async(self, path: str, kind: str, options: Any = None, *, default: Any = None) -> Any:
        """`get` for coroutines."""
        await checkpoint()
        return await in_thread(lambda: self.get(path, kind, options, default=default))

    async def put_async(
        self, path: str, kind: str, result: Any, options: Any = None, *, made_of: str | None = None
    ) -> None:
        """`put` for coroutines."""
        await checkpoint()
        await in_thread(lambda: self.put(path, kind, result, options, made_of=made_of))

    async def once_async(
        self, path: str, kind: str, make: Callable[[], Awaitable[T]], options: Any = None, *, claim_s: float = CLAIM_S
    ) -> T:
        """`once` for coroutines; a cancelled one lets the next make it."""
        await checkpoint()
        while True:
            claimed: list[tuple[str | None, _Claim | None]] = []
            try:
                await in_thread(lambda: claimed.append(self._claimed(path, kind, options, claim_s)))  # noqa: B023
            except BaseException:
                if claimed and claimed[0][1] is not None:  # cancelled meanwhile
                    late = claimed[0][1]
                    await in_thread(lambda: self._release(path, kind, options, late))  # noqa: B023
                raise
            found, claim = claimed[0]
            if found is not None:
                result: T = _unpacked(found)
                return result
            if claim is not None:
                break
            question = Question(await in_thread(lambda: socket_of(self._where)))
            asked = self._params(path, kind, options, wait_s=_WAIT_S)
            await abandoned(lambda: question.ask("cache_wait", asked), question.stop)  # noqa: B023 - it has ended by then
        try:
            made = await make()
        except BaseException:
            await in_thread(lambda: self._release(path, kind, options, claim))
            raise
        await in_thread(lambda: self._keep(path, kind, options, claim, made))
        return made

    # --- questions -----------------------------------------------------------------------------------------------

    def _params(self, path: str, kind: str, options: Any, **more: Any) -> dict[str, Any]:
        return {"path": "/".join(parts_of(path)), "kind": kind, "options": options, **more}

    def _ask(self, method: str, path: str, kind: str, options: Any, **more: Any) -> dict[str, Any]:
        return Question(socket_of(self._where)).ask(method, self._params(path, kind, options, **more))

    def _claimed(self, path: str, kind: str, options: Any, claim_s: float) -> tuple[str | None, _Claim | None]:
        """A result, packed; or a claim; or neither, while somebody else makes it."""
        found = self._ask("cache_get", path, kind, options, packed=True, claim_s=claim_s)
        if found["found"]:
            return found["packed"], None
        return None, None if found["claim"] is None else _Claim(found["claim"], found["sha256"])

    def _keep(self, path: str, kind: str, options: Any, claim: _Claim, made: object) -> None:
        try:
            self.put(path, kind, made, options, made_of=claim.sha256)
        except (ClientError, TypeError, ValueError, RecursionError) as error:
            log.warning("the %s of %a is not kept: %s", kind, path, error)
            self._release(path, kind, options, claim)

    def _release(self, path: str, kind: str, options: Any, claim: _Claim) -> None:
        """Give a claim up; it ends by its time in any case."""
        try:
            self._ask("cache_release", path, kind, options, claim=claim.number, made_of=claim.sha256)
        except ClientError as error:
            log.warning("the claim of the %s of %a could not be given up: %s", kind, path, error)


def _made_of(sha256: str | None) -> dict[str, str]:
    """As it is asked; an earlier daemon knows of no such thing."""
    return {} if sha256 is None else {"made_of": sha256}


def _packed(result: object) -> str:
    text = json.dumps(result, separators=(",", ":"), allow_nan=False).encode("ascii")
    return base64.b64encode(zlib.compress(text, 6)).decode("ascii")


def _unpacked(packed: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(packed)))


__all__ = ["CLAIM_S", "ProcessingCache"]
