"""How what was made comes to its place: into a temp job, committed there, and from there by one rename.

All of it is done through the session of whoever owns the recording: what that user may not do is not done for them, and
it is charged to them like any file. The names of temp jobs are random, so that nobody waits for them there.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING

import trio

from recfs.core.layout import owner_of
from recfs.core.media.derived import Made
from recfs.core.model import Kind, State
from recfs.core.permissions import Identity
from recfs.errors import Exists, FsError, InvalidArgument, NotADirectory, NotFound
from recfs.fs.attributes import Changes
from recfs.fs.session.stats import is_committed
from recfs.services.deriving.reasons import Unmade
from recfs.state.nodes import DirNode, FileNode

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from recfs.fs.session import Session, Sessions
    from recfs.fs.vfs import Vfs
    from recfs.state.nodes import Node

_BLOCK_BYTES = 1 << 20
_ROOT = Identity(0, 0)


class Placing:
    """Brings files of the disk into the mount."""

    def __init__(self, vfs: Vfs, sessions: Sessions, threads: trio.CapacityLimiter) -> None:
        self._vfs = vfs
        self._sessions = sessions
        self._threads = threads

    def session(self, of: Node) -> Session:
        """What the owner of a file or directory may do."""
        return self._sessions.of(Identity(of.uid, of.gid))

    @staticmethod
    def new_job(of: Node) -> str:
        """The path of a temp job that nobody has. Raises InvalidArgument where it would be nobody's."""
        user = owner_of(tuple(of.parts()))
        if user is None:
            raise InvalidArgument(f"{of.path} is no user's, and so would be what is made of it")
        return f"temp/{user}/{uuid.uuid4()}"

    async def open_job(self, job: str, session: Session) -> None:
        """Make a temp job, the session's; one that is there is taken. Raises FsError."""
        root = self._sessions.of(_ROOT)
        for path in (os.path.dirname(job), job):
            try:
                await root.mkdir(path, 0o755)
            except Exists:
                continue
            uid = (await root.stat(path)).uid
            # The directory of all of a user's jobs is theirs where users are told apart by uid: it was made so.
            if uid != session.who.uid and (path == job or not uid):
                await root.change(path, Changes(uid=session.who.uid, gid=session.who.gid))

    async def drop_job(self, job: str) -> None:
        """Remove a temp job with all in it; none is fine. What keeps it is left to the sweep of temp jobs."""
        with contextlib.suppress(FsError):
            seen = await self._vfs.at(job)
            if isinstance(seen, DirNode):
                await self._vfs.trees.remove(seen)

    async def put(self, session: Session, path: str, what: Path | bytes, mode: int, *, replaces: bool = False) -> Made:
        """Write a file, and wait until it is committed. Raises FsError, OSError or Unmade."""
        async with session.writer(path, mode=mode, exclusive=not replaces) as out:
            if isinstance(what, bytes):
                await out.write(what)
            else:
                file = await trio.to_thread.run_sync(_opened, what, limiter=self._threads)
                try:
                    while block := await trio.to_thread.run_sync(os.read, file, _BLOCK_BYTES, limiter=self._threads):
                        await out.write(block)
                finally:
                    os.close(file)
        return await self._committed(path)

    async def _committed(self, path: str) -> Made:
        node = await self._vfs.at(path)
        if not isinstance(node, FileNode):
            raise Unmade(f"{path} was replaced", again=True)
        while node.state is State.SEALING and not node.unlinked:
            self._vfs.pipeline.want(node.ino)
            await self._vfs.pipeline.progress()
        if node.unlinked or not is_committed(node) or node.sha256 is None:
            raise Unmade(f"{path} was not committed: it is {node.state}", again=True)
        return Made(os.path.basename(path), node.ino, node.sha256)

    async def there(self, folder: DirNode, name: str) -> Made | None:
        """The file that lies in the place of a product, as it is now; None: nothing does, or a shared one is shown.

        What cannot be one that recfs made, because it is no file or is being written, has no checksum.
        """
        path = f"{folder.path}/{name}"
        try:
            stat = await self._sessions.of(_ROOT).stat(os.fsencode(path), follow_link=False)
        except (NotFound, NotADirectory):
            return None
        return None if stat.is_shared else Made(name, stat.ino, stat.sha256 or b"")

    async def move(
        self, session: Session, job: str, made: Made, folder: DirNode, name: str, ours: Collection[Made]
    ) -> None:
        """Give a file of a job its name in a recording, in place of nothing, or of one of *ours*.

        Raises Exists where anything else is there, and what else a rename may.
        """
        above = os.path.dirname(name)
        if above:
            await self._folder(session, f"{folder.path}/{above}")
        await session.rename(
            f"{job}/{made.name}", os.fsencode(f"{folder.path}/{name}"), over={each[1:] for each in ours}
        )

    async def _folder(self, session: Session, path: str) -> None:
        raw = os.fsencode(path)
        try:
            await session.mkdir(raw, 0o777)
        except Exists:
            if (await session.stat(raw, follow_link=False)).kind is not Kind.DIR:
                raise NotADirectory(f"{path} is no directory") from None

    async def remove(self, session: Session, folder: DirNode, made: Made) -> None:
        """Remove a file that recfs made, if it is still that."""
        there = await self.there(folder, made.name)
        if there == made:
            with contextlib.suppress(FsError):
                await session.remove(os.fsencode(f"{folder.path}/{made.name}"))


def _opened(path: Path) -> int:
    # What a confined program left there: no link of its making is followed.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


__all__ = ["Placing"]
