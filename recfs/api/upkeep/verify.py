"""What the daemon answers of verifications: the control protocol's methods behind `recfs verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.verification.verdicts import Level
from recfs.errors import InvalidArgument, NotADirectory
from recfs.fs.fallback_entries import FallbackEntry
from recfs.state.nodes import DirNode, FileNode
from recfs.state.work.runs import followed

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.fs.vfs import Vfs
    from recfs.services.verification.runs import Run, Verifications
    from recfs.services.verification.scrub import Scrub

LEAST_RATE = 1024


class VerifyAnswers:
    """verify, verify_begin, verify_wait, verify_stop, verify_status."""

    def __init__(self, vfs: Vfs, verifications: Verifications, scrub: Scrub | None) -> None:
        self._vfs = vfs
        self._verifications = verifications
        self._scrub = scrub

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "verify": self.all,
            "verify_begin": self.begin,
            "verify_wait": self.wait,
            "verify_stop": self.stop,
            "verify_status": self.status,
        }

    async def _new(self, params: dict[str, Any]) -> Run:
        try:
            level = Level(str(params.get("level") or Level.HASH))
        except ValueError:
            raise InvalidArgument(f"level {params['level']!r}: it is one of {', '.join(Level)}") from None
        rate, since_s = params.get("rate"), params.get("since_s")
        if rate is not None and float(rate) < LEAST_RATE:
            raise InvalidArgument(f"rate {rate}: it is at least {LEAST_RATE} bytes a second")
        seen = await self._vfs.at(str(params.get("path") or ""))
        top = seen.shared if isinstance(seen, FallbackEntry) else seen
        if not isinstance(top, (DirNode, FileNode)):
            raise NotADirectory(f"{top.path} is neither a file nor a directory")
        return self._verifications.new(
            top, level, since_s=None if since_s is None else float(since_s), rate=None if rate is None else float(rate)
        )

    async def begin(self, params: dict[str, Any]) -> dict[str, Any]:
        """Begin to verify what is at `path` and below; `level`, `since_s`, `rate`. It ends if nobody asks about it."""
        return {"run": self._verifications.begin(await self._new(params))}

    async def wait(self, params: dict[str, Any]) -> dict[str, Any]:
        """How far `run` is, once it has ended, or after `timeout_s`."""
        return await self._verifications.wait(int(params["run"]), float(params.get("timeout_s", 1.0)))

    async def stop(self, params: dict[str, Any]) -> dict[str, Any]:
        """End `run`, and tell how far it came."""
        return await self._verifications.stop(int(params["run"]))

    async def all(self, params: dict[str, Any]) -> dict[str, Any]:
        """Verify, and answer at the end. *tell*, for who asks in this very process, hears how far it is."""
        return await followed(await self._new(params), params.get("tell"))

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        """How far the scrub is; null where the configuration has none."""
        return {"scrub": self._scrub.as_json() if self._scrub is not None else None}
