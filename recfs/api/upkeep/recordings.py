"""What the daemon answers of recordings: the control protocol's methods behind `recfs recording` and `recfs sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from recfs.api.recordings import Asked
from recfs.core.dates import parse_date
from recfs.core.layout import Role
from recfs.errors import InvalidArgument, NotFound
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.api.control import Handler
    from recfs.fs.vfs import Vfs
    from recfs.ports.reports import Reports
    from recfs.services.expiry import Expiry

Answer = TypeVar("Answer")
BY = "recfs recording"
"""Who set something, where a command did."""


NOTE_MAX_BYTES = 4096


def _note(params: dict[str, Any]) -> str | None:
    """The note that is given, if any is. Raises InvalidArgument for one that is no text, or too long."""
    note = params.get("note")
    if note is None:
        return None
    try:
        size = len(str(note).encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidArgument("a note is text in UTF-8") from None
    if size > NOTE_MAX_BYTES:
        raise InvalidArgument(f"a note has at most {NOTE_MAX_BYTES} bytes, not {size:,}")
    return str(note)


class RecordingAnswers:
    """recording_list, _show, _expire, _keep, _set_expiry; sweep_expired."""

    def __init__(self, vfs: Vfs, reports: Reports, expiry: Expiry) -> None:
        self._vfs = vfs
        self._reports = reports
        self._expiry = expiry

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "recording_list": self.list,
            "recording_show": self.show,
            "recording_expire": self.expire,
            "recording_keep": self.keep,
            "recording_set_expiry": self.set_expiry,
            "sweep_expired": self.sweep,
        }

    async def list(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Recordings: of a `user`, of a `status`, due within `due_s`."""
        user, status, due_s = params.get("user"), params.get("status"), params.get("due_s")
        return await self._ask(lambda asked: asked.list(user, status, None if due_s is None else float(due_s)))

    async def show(self, params: dict[str, Any]) -> dict[str, Any]:
        """Everything of the recording at a `path`, or around it."""
        path = str(params.get("path") or "")
        return await self._ask(lambda asked: asked.show(path))

    async def _ask(self, question: Callable[[Asked], Answer]) -> Answer:
        await self._vfs.behind.flush()
        lives = self._vfs.lives
        policy, now, uses = lives.policy, lives.now, lives.uses()
        return await self._reports.ask(lambda snapshot: question(Asked(snapshot, policy, now, uses)))

    async def _folder(self, params: dict[str, Any]) -> DirNode:
        path = str(params.get("path") or "")
        seen = await self._vfs.at(path)
        top = seen.recording if isinstance(seen, DirNode) else None
        if top is None or top is not seen or top.role is not Role.RECORDING:
            raise NotFound(f"{path}: there is no recording; these are users/<id>/recordings/<id>")
        return top

    async def _changed(self, folder: DirNode) -> dict[str, Any]:
        await self._vfs.behind.durable(folder.ino)
        return await self.show({"path": folder.path})

    async def expire(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have the recording at a `path` be expired from now on."""
        held = await self._expiry.held_up()
        folder = await self._folder(params)
        self._vfs.lives.expire(folder, by=BY, note=_note(params), holds=held.get(folder.ino, ""))
        return await self._changed(folder)

    async def keep(self, params: dict[str, Any]) -> dict[str, Any]:
        """Keep the recording at a `path`, or (`on` false) not any more."""
        folder = await self._folder(params)
        self._vfs.lives.keep(folder, on=bool(params.get("on", True)), by=BY, note=_note(params))
        return await self._changed(folder)

    async def set_expiry(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have the recording at a `path` expire at a `date`; "never": as the rules say."""
        date = str(params.get("date") or "").strip()
        if not date:  # a script whose variable is not set means no "never"
            raise InvalidArgument("no date is given: write one such as 2027-01-31, or `never`")
        try:
            date_ns = parse_date(date)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        folder = await self._folder(params)
        self._vfs.lives.set_date(folder, date_ns, by=BY, note=_note(params))
        return await self._changed(folder)

    async def sweep(self, params: dict[str, Any]) -> dict[str, Any]:
        """Do now what is due, or (`dry_run`) say what that is."""
        return {"recordings": await self._expiry.run(dry_run=bool(params.get("dry_run")))}


__all__ = ["RecordingAnswers"]
