"""What the daemon answers of results of processing: `recfs cache`.

A file is named by its path, and whoever asks has to be allowed to read it; the operator may name it by its checksum
alone. So nobody learns of a file that they cannot read whether it is there, or what was made of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from recfs.api.asking import asking
from recfs.core.json_bounds import MAX_LEVELS, is_deeper
from recfs.core.model import Kind
from recfs.core.reuse.processing import EVERYBODY, USERS_VALUES, Key, check_kind, options_hash
from recfs.errors import AccessDenied, InvalidArgument, IsADirectory, NotPermitted, Stale, TryAgain
from recfs.services.reuse.processing import as_json, unpacked

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.api.work import ReuseWork

INLINE_BYTES: Final = 256 << 10
"""A longer result is told in its packed form: it would hold up everybody to make it of a million pieces."""
WAIT_MAX_S: Final = 3600.0


class CacheAnswers:
    """cache_get, cache_put, cache_wait, cache_release, cache_stats and cache_purge."""

    def __init__(self, work: ReuseWork) -> None:
        self._work = work
        self._cache = work.processing

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "cache_get": self.get,
            "cache_put": self.put,
            "cache_wait": self.wait,
            "cache_release": self.release,
            "cache_stats": self.stats,
            "cache_purge": self.purge,
        }

    async def get(self, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a `kind` with `options` that is kept of the file at `path`: `result`, or `packed`.

        Where there is none and `claim_s` is given: `claim`, a number, if whoever asks is to make it; None if somebody
        else is making it already.
        """
        key, who = await self._key(params), self._whose()
        hit = await self._cache.get(key, who)
        answer: dict[str, Any] = {"found": hit is not None, "sha256": key.sha256.hex()}
        if hit is None:
            seconds = params.get("claim_s")
            if seconds is None:
                return answer | {"claim": None}
            return answer | {"claim": self._cache.claim(key, who, float(seconds), asking().uid)}
        answer |= {"age_s": hit.age_s, "uses": hit.uses, "json_bytes": len(hit.text)}
        if params.get("packed") or len(hit.text) > INLINE_BYTES:
            packed = await trio.to_thread.run_sync(_packed, hit.text)
            return answer | {"packed": packed}
        return answer | {"result": json.loads(hit.text)}

    async def put(self, params: dict[str, Any]) -> dict[str, Any]:
        """Keep a `result`, any JSON, or JSON that is `packed` by zlib and Base64 (RFC 1950, RFC 4648).

        `made_of`, the sha256 that `cache_get` told, is of the bytes that were read for it: where the file has others by
        now, that is Stale, for nobody could tell of which the result is.
        """
        if ("result" in params) == ("packed" in params):
            raise InvalidArgument("give a result, or a packed one")
        key, who = await self._key(params), self._whose()
        if params.get("made_of") is not None and _digest(params["made_of"]) != key.sha256:
            raise Stale(
                f"{params.get('path') or params['sha256']} has other bytes by now than those the result was made of"
            )
        most = self._cache.settings.max_entry_bytes
        values = None if who == EVERYBODY else USERS_VALUES
        make = (
            partial(_from_packed, params["packed"], most, values)
            if "packed" in params
            else partial(_text, params["result"])
        )
        text = await self._cache.taken_apart(make)
        gone = await self._cache.put(key, who, text)
        return {"sha256": key.sha256.hex(), "for_everybody": who == EVERYBODY, "evicted": gone.entries}

    async def wait(self, params: dict[str, Any]) -> dict[str, Any]:
        """Wait until nobody has claimed the result, for `wait_s` at most."""
        seconds = min(max(float(params.get("wait_s") or 0.0), 0.0), WAIT_MAX_S)
        return {"free": await self._cache.unclaimed(await self._key(params), self._whose(), seconds)}

    async def release(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give up a `claim`: the result will not be made after all.

        With `made_of` it is the claim on bytes of that sha256, whatever the file has by now, or if it is gone. That
        tells nothing of others' files: of its own claims alone whoever asks knows the number.
        """
        made_of = params.get("made_of")
        sha256 = await self._sha256(params) if made_of is None else _digest(made_of)
        key = self._key_of(sha256, params)
        return {"released": self._cache.release(key, self._whose(), int(params.get("claim") or 0))}

    async def stats(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is kept, and what it was good for."""
        return await self._cache.stats()

    async def purge(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give up results of a `kind`, of a file, `older_than_s`; or `all`. Without an age, claims of them as well."""
        if asking().uid not in self._work.operators:
            raise NotPermitted("results are given up by the operator")
        kind, age_s = params.get("kind"), params.get("older_than_s")
        named = params.get("path") is not None or params.get("sha256") is not None
        if not (named or params.get("all") or kind is not None or age_s is not None):
            raise InvalidArgument("which results? give a kind, a path, an age, or all")
        sha256 = await self._sha256(params) if named else None
        kind = _kind(kind) if kind is not None else None
        gone = await self._cache.purge(kind, sha256, float(age_s) if age_s is not None else None)
        claims = self._cache.give_up_claims(kind, sha256) if age_s is None else 0
        return {"removed": gone.entries, "bytes": gone.packed_bytes, "claims": claims}

    # --- who asks, and of what -----------------------------------------------------------------------------------

    def _whose(self) -> int:
        """To whom results of whoever asks are given."""
        uid = asking().uid
        return EVERYBODY if uid in self._work.operators or uid in self._work.writers else uid

    async def _key(self, params: dict[str, Any]) -> Key:
        return self._key_of(await self._sha256(params), params)

    @staticmethod
    def _key_of(sha256: bytes, params: dict[str, Any]) -> Key:
        try:
            options = options_hash(params.get("options"))
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        return Key(sha256, _kind(params.get("kind")), options)

    async def _sha256(self, params: dict[str, Any]) -> bytes:
        """Of the file that is meant. Raises FsError: TryAgain for one that is not committed."""
        path, given = params.get("path"), params.get("sha256")
        if (path is None) == (given is None):
            raise InvalidArgument("give a path, or a sha256")
        who = asking()
        if given is not None:
            if who.uid not in self._work.operators:
                raise NotPermitted("give the path of a file that you may read: only the operator names checksums alone")
            return _digest(given)
        stat = await self._work.sessions.of(who).stat(str(path))
        if stat.kind is not Kind.FILE:
            raise IsADirectory(f"{path} is not a file")
        if stat.sha256 is None:
            if stat.state is not None and (stat.state.is_whole or stat.state.is_remote):
                raise AccessDenied(f"{path}: not for user {who.uid}")
            raise TryAgain(f"{path} is {stat.state}: it has a checksum when it is committed")
        return stat.sha256


def _kind(kind: object) -> str:
    try:
        return check_kind(str(kind or ""))
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def _digest(given: object) -> bytes:
    try:
        digest = bytes.fromhex(str(given))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise InvalidArgument(f"{str(given)[:80]!r} is no sha256 in hexadecimal digits")
    return digest


def _text(result: object) -> bytes:
    try:
        text = json.dumps(result, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the result is no JSON: {error}") from error
    if is_deeper(result, text):
        raise InvalidArgument(f"the result has more than {MAX_LEVELS} lists and tables inside each other")
    return text


def _from_packed(packed: object, most: int, values: int | None) -> bytes:
    try:
        text = unpacked(base64.b64decode(str(packed), validate=True), most)
        as_json(text, values)
    except (ValueError, binascii.Error) as error:
        raise InvalidArgument(f"the packed result: {error}") from error
    return text


def _packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text, 6)).decode("ascii")


__all__ = ["CacheAnswers"]
