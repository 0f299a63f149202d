"""How what was made comes to its place: into a temp job, committed there, and from there by one rename.

All of it is done through the session of whoever owns the recording: what that user may not do is not done for them, and
it is charged to them like any file. The names of temp jobs are random, so that nobody waits for them there.

Users may rename directories and plant symbolic links at any moment. So paths are walked once, without following a link;
from then on a directory is meant by its inode, and a file by a name in that (`At`). Where it matters that a directory
is still in its place, that is looked at in the moment of the rename.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, NamedTuple

import trio

from recfs.core.layout import Role, owner_of
from recfs.core.media.derived import Made
from recfs.core.model import Kind, State
from recfs.core.permissions import READ, SEARCH, WRITE, Identity, allows
from recfs.errors import Exists, FsError, InvalidArgument, NotADirectory, NotFound, Stale
from recfs.fs.attributes import Changes
from recfs.fs.session import At
from recfs.fs.session.stats import is_committed
from recfs.services.deriving.reasons import Unmade
from recfs.state.nodes import DirNode
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from recfs.fs.session import Session, Sessions
    from recfs.fs.vfs import Vfs
    from recfs.state.nodes import FileNode, Node

_BLOCK_BYTES = 1 << 20
_ROOT = Identity(0, 0)
_MARK = b"recfs.job"
"""The attribute of a temp job that says as which it was made; users see and set those of `user.` alone."""
_TOPS = (Role.USER, Role.TEMP_USER)


class Job(NamedTuple):
    """A temp job that recfs has made, or has found to be its own."""

    path: str
    ino: int
    """It stays the same whatever has the path later."""


class Placing:
    """Brings files of the disk into the mount."""

    def __init__(self, vfs: Vfs, sessions: Sessions, threads: trio.CapacityLimiter) -> None:
        self._vfs = vfs
        self._sessions = sessions
        self._threads = threads
        self._opened: dict[str, int] = {}
        """Inode numbers of jobs that are being filled, by path."""

    def session(self, of: Node) -> Session:
        """What the owner of a file or directory may do.

        Of what is root's in a user's tree: what that user may do; root's rights stay with a directory of root's where
        that user may change no name, and so has planted none.
        """
        who = Identity(of.uid, of.gid)
        if who.is_root:
            user = _user_above(of)
            if not isinstance(of, DirNode) or allows(of, user, WRITE | SEARCH, is_dir=True):
                who = user
        return self._sessions.of(who)

    def may_read(self, node: FileNode, folder: DirNode) -> bool:
        """Whether the mode bits let whoever gets what is made in a recording read the file that it is made from."""
        who = self.session(folder).who
        return allows(node, _user_above(folder) if who.is_root else who, READ, is_dir=False)

    @staticmethod
    def new_job(of: Node) -> str:
        """The path of a temp job that nobody has. Raises InvalidArgument where it would be nobody's."""
        user = owner_of(tuple(of.parts()))
        if user is None:
            raise InvalidArgument(f"{of.path} is no user's, and so would be what is made of it")
        return f"temp/{user}/{uuid.uuid4()}"

    async def open_job(self, job: str, session: Session) -> Job:
        """Make a temp job, the session's; one of theirs that is there is taken. Raises FsError, or Unmade."""
        root = self._sessions.of(_ROOT)
        here, names = self._vfs.tree.root.ino, os.fsencode(job).split(b"/")
        for depth, name in enumerate(names):
            is_job = depth == len(names) - 1
            try:
                ino = await root.mkdir(At(here, name), 0o755)
                is_made = True
            except Exists:
                stat = await root.stat(At(here, name), follow_link=False)
                if stat.kind is not Kind.DIR:
                    raise Unmade(f"{job} is no directory, and so not recfs's") from None
                ino, is_made = stat.ino, False
            uid = (await root.stat(At(ino))).uid
            if is_job and is_made:
                await self._mark(ino, name)
            elif is_job and not await self._is_job(ino, name) and (uid or await self._is_used(ino)):
                raise Unmade(f"{job} is another one, and not recfs's: remove or rename it")
            # The directory of all of a user's jobs is theirs where users are told apart by uid: it was made so. What is
            # there already stays whose it is; and what nobody's uid is known of is everybody's, not the first comer's.
            if is_job and uid != session.who.uid:
                await root.change(At(ino), Changes(uid=session.who.uid, gid=session.who.gid))
            elif depth and is_made and not is_job and not uid and not session.who.is_root:
                await root.change(At(ino), Changes(mode=0o1777))
            here = ino
        self._opened[job] = here
        return Job(job, here)

    async def _mark(self, ino: int, name: bytes) -> None:
        """Have it be known as recfs's own, whatever it is called later, after any death."""
        node = await self._vfs.tree.directory(ino)
        own = await self._vfs.tree.xattrs(node)
        own[_MARK] = name
        self._vfs.behind.xattr(ino, _MARK, name)
        self._vfs.behind.node(node)

    async def _is_job(self, ino: int, name: bytes) -> bool:
        """Whether a directory is the one that was made as the job of that name."""
        return (await self._vfs.tree.xattrs(await self._vfs.tree.directory(ino))).get(_MARK) == name

    async def _is_used(self, ino: int) -> bool:
        return not await self._vfs.tree.is_empty(await self._vfs.tree.directory(ino))

    def keep_job(self, job: Job) -> None:
        """It stays, and goes by the rules of temp jobs. Atomic."""
        self._opened.pop(job.path, None)

    async def drop_job(self, path: str) -> None:
        """Remove a temp job with all in it; none is fine. What keeps it is left to the sweep of temp jobs.

        Something else that has its path stays.
        """
        ino = self._opened.pop(path, None)
        with contextlib.suppress(FsError):
            seen = await self._vfs.at(path)
            if isinstance(seen, DirNode) and (ino or seen.ino) == seen.ino and await self._is_job(seen.ino, seen.name):
                await self._vfs.trees.remove(seen)

    async def put(
        self, session: Session, job: Job, name: str, what: Path | bytes, mode: int, *, replaces: bool = False
    ) -> Made:
        """Write a file of a job, and wait until it is committed. Raises FsError, OSError or Unmade.

        *replaces*: also in place of a file, never of a link: InvalidPath or Exists.
        """
        at = At(job.ino, os.fsencode(name))
        async with session.writer(at, mode=mode, exclusive=not replaces) as out:
            if isinstance(what, bytes):
                await out.write(what)
            else:
                file = await trio.to_thread.run_sync(_opened, what, limiter=self._threads)
                try:
                    while block := await trio.to_thread.run_sync(os.read, file, _BLOCK_BYTES, limiter=self._threads):
                        await out.write(block)
                finally:
                    os.close(file)
        return await self._committed(name, out.ino)

    async def _committed(self, name: str, ino: int) -> Made:
        node = await file_at(self._vfs.tree, ino)
        if node is None:
            raise Unmade(f"{name} was removed", again=True)
        while node.state is State.SEALING and not node.unlinked:
            self._vfs.pipeline.want(node.ino)
            await self._vfs.pipeline.progress()
        if node.unlinked or not is_committed(node) or node.sha256 is None:
            raise Unmade(f"{name} was not committed: it is {node.state}", again=True)
        return Made(name, node.ino, node.sha256)

    async def there(self, folder: DirNode, name: str) -> Made | None:
        """The file that lies in the place of a product, as it is now; None: nothing does, or a shared one is shown.

        What cannot be one that recfs made, because it is no file or is being written, has no checksum.
        """
        above, _, last = name.rpartition("/")
        into = await self._below(folder, above)
        if into is None:
            return None
        try:
            stat = await self._sessions.of(_ROOT).stat(At(into.ino, os.fsencode(last)), follow_link=False)
        except (NotFound, NotADirectory, Stale):
            return None
        return None if stat.is_shared else Made(name, stat.ino, stat.sha256 or b"")

    async def _below(self, folder: DirNode, above: str) -> DirNode | None:
        """The directory of products in a recording; None: there is none of that name."""
        seen = await self._vfs.lookup(folder.ino, os.fsencode(above)) if above else folder
        return seen if isinstance(seen, DirNode) else None

    async def move(
        self, session: Session, job: Job, made: Made, folder: DirNode, name: str, ours: Collection[Made]
    ) -> None:
        """Give a file of a job its name in a recording, in place of nothing, or of one of *ours*.

        Raises Exists where anything else is there, Stale where file or directory are others by then, and what else a
        rename may.
        """
        above, _, last = name.rpartition("/")
        into = await self._folder(session, folder, above) if above else folder
        await session.rename(
            At(job.ino, os.fsencode(made.name)), At(into.ino, os.fsencode(last)), over={each[1:] for each in ours},
            check=_in_place(made, folder, above, into),
        )  # fmt: skip

    async def _folder(self, session: Session, folder: DirNode, above: str) -> DirNode:
        name = os.fsencode(above)
        with contextlib.suppress(Exists):
            await session.mkdir(At(folder.ino, name), 0o777)
        into = await self._below(folder, above)
        if into is None:
            raise NotADirectory(f"{folder.path}/{above} is no directory")
        return into

    async def remove(self, session: Session, folder: DirNode, made: Made) -> None:
        """Remove a file that recfs made, if it is still that."""
        above, _, last = made.name.rpartition("/")
        into = await self._below(folder, above)
        if into is not None and await self.there(folder, made.name) == made:
            with contextlib.suppress(FsError):
                await session.remove(At(into.ino, os.fsencode(last)), only=made.ino)


def _user_above(node: Node) -> Identity:
    """The user in whose tree something lies: the uid that was given, or that of the user's own directory."""
    folder = node if isinstance(node, DirNode) else node.parent
    if folder.account is not None and folder.account.owner is not None:
        return Identity(folder.account.owner.uid, folder.account.owner.gid)
    while folder.role not in _TOPS and folder.parent is not folder:
        folder = folder.parent
    return Identity(folder.uid, folder.gid)


def _in_place(made: Made, folder: DirNode, above: str, into: DirNode) -> Callable[[Node], None]:
    """Look, when a file is moved, whether it is the one that was made, and goes into the recording. Atomic."""

    def check(node: Node) -> None:
        if node.ino != made.ino:
            raise Stale(f"{node.path} is another one by now")
        if into is not folder and (into.parent is not folder or into.name != os.fsencode(above) or into.unlinked):
            raise Stale(f"{folder.path}/{above} is another one by now")

    return check


def _opened(path: Path) -> int:
    # What a confined program left there: no link of its making is followed.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


__all__ = ["Job", "Placing"]
