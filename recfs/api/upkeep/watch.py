"""What the daemon answers of its watch over the home tree: the control protocol's methods behind `recfs watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.services.watcher import Watcher


class WatchAnswers:
    """watch_status, watch_scan, watch_accept: of a daemon that watches. Of another watch_status alone."""

    def __init__(self, watcher: Watcher | None) -> None:
        self._watcher = watcher

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        watcher = self._watcher
        if watcher is None:

            async def off(params: dict[str, Any]) -> dict[str, Any]:
                """Nothing is watched."""
                return {"enabled": False}

            return dict.fromkeys(("watch_status", "watch_scan", "watch_accept"), off)

        async def status(params: dict[str, Any]) -> dict[str, Any]:
            """What is watched, what was found so far, and what waits."""
            return {"enabled": True} | watcher.as_json()

        async def scan(params: dict[str, Any]) -> dict[str, Any]:
            """Have everything looked at, beginning now."""
            watcher.scan()
            return await status(params)

        async def accept(params: dict[str, Any]) -> dict[str, Any]:
            """Have what is missing lose its names, however much it is."""
            return {"enabled": True, "files": watcher.accept()}

        return {"watch_status": status, "watch_scan": scan, "watch_accept": accept}
