"""Changes of the home tree, carried out in order, by directory descriptors. Blocking; callers choose the thread."""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from recfs.stores.beneath import Beneath, Folders
from recfs.stores.many import Moves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER = 1 << 0, 1 << 1, 1 << 3  # capabilities(7)


def can_chown(capabilities: int) -> bool:
    """Whether a process with these effective capabilities may give files away."""
    return bool(capabilities & _CAP_CHOWN)


def overrides_modes(capabilities: int) -> bool:
    """Whether a process needs no permission bits for itself (capabilities(7))."""
    return bool(capabilities & _CAP_DAC_OVERRIDE and capabilities & _CAP_FOWNER)


class StepKind(Enum):
    """What `LocalStore.apply` can do to the home tree."""

    MKDIR = "mkdir"
    SYMLINK = "symlink"
    MOVE = "move"
    REMOVE = "remove"
    RMDIR = "rmdir"
    ATTRS = "attrs"


class Attrs(NamedTuple):
    """What the row says of an entry; applied to its home counterpart."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int


class Step(NamedTuple):
    """One change of the home tree. *path* and *to* are local paths."""

    kind: StepKind
    path: bytes
    to: bytes = b""
    attrs: Attrs | None = None
    home_ino: int | None = None
    """st_ino that *path* must have; anything else found there is left alone and the step fails."""
    size_bytes: int | None = None
    """Bytes that the file at *path* must have. Inode numbers are given out again: another file may have got it."""
    is_dir: bool | None = None
    """Whether a directory must lie there, or none may."""
    symlink_target: bytes = b""


class Outcome(NamedTuple):
    """What became of a step: st_ino of the entry it left (0 if none), or the error number."""

    home_ino: int = 0
    error: int = 0
    warning: str = ""
    reason: str = ""
    """What the error was, where its number does not say it."""
    unsynced: int = 0
    """The step was carried out, but the fsync after it failed with this error number: a power cut may undo it."""
    is_foreign: bool = False
    """What was to be removed was gone, and something else lies there."""


class Steps:
    """Carries them out below one root."""

    def __init__(self, beneath: Beneath, lost: bytes, sync_all: Callable[[], None], capabilities: int) -> None:
        self._beneath = beneath
        self._lost = lost
        self._sync_all = sync_all
        self._may_chown = can_chown(capabilities)
        # Without the right to override permission bits, the daemon's own access is kept on disk whatever the row says.
        self._own_access = (0, 0) if overrides_modes(capabilities) else (0o600, 0o700)

    def apply(self, steps: Sequence[Step], *, durable: bool = True) -> list[Outcome]:
        """Carry out *steps* in order, then fsync what they touched.

        A failing step does not stop the rest, except those that build on it: what should have made room, or arrived, or
        been made by it. They fail with ECANCELED.

        Raises nothing: what went wrong is in the outcomes.
        """
        outcomes: list[Outcome] = []
        touched: set[bytes] = set()
        failed: set[bytes] = set()
        folders = Folders(self._beneath)
        try:
            together = True
            while len(outcomes) < len(steps):
                if together and not failed:
                    together = self._move_many(steps, outcomes, touched, failed, folders)
                    if len(outcomes) == len(steps):
                        break
                step = steps[len(outcomes)]
                try:
                    if failed and _builds_on(step, failed):
                        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                    outcomes.append(self._one(step, folders))
                    folders.trim()
                except Exception as error:  # of any class: the other steps are other people's
                    outcomes.append(_failed(error))
                    failed.update((step.path, step.to or step.path))
                    folders.forget()  # they may have been moved or removed out of band
                else:
                    _touch(touched, step)
        finally:
            folders.forget()
        try:
            if durable and len(touched) > 8:
                self._sync_all()
            elif durable:
                for folder in touched:
                    self._beneath.sync(folder, attributes=True)
        except Exception as error:
            return [outcome._replace(unsynced=_failed(error).error) for outcome in outcomes]
        return outcomes

    def _move_many(
        self, steps: Sequence[Step], outcomes: list[Outcome], touched: set[bytes], failed: set[bytes], folders: Folders
    ) -> bool:
        """Carry out the next steps together, as far as they move files. Whether none of them has to be looked at."""
        moves = Moves(folders, self._own_access[False], may_chown=self._may_chown)
        for step in islice(steps, len(outcomes), None):
            if step.kind is not StepKind.MOVE or step.is_dir is not False or not moves.take(step):
                break
        done = moves.carry_out()
        for step, (st_ino, error) in zip(moves.steps, done, strict=False):
            outcomes.append(Outcome(st_ino, error))
            if error:
                failed.update((step.path, step.to))
                folders.forget()
            else:
                touched.add(os.path.dirname(step.path))
                touched.add(os.path.dirname(step.to))
        return len(done) == len(moves.steps)

    def _one(self, step: Step, folders: Folders) -> Outcome:
        folder, name = folders.of(step.path)
        match step.kind:
            case StepKind.MKDIR:
                return self._mkdir(step, folder, name)
            case StepKind.SYMLINK:
                return self._symlink(step, folder, name)
            case StepKind.MOVE:
                info = _expect(folder, name, step)
                target, new_name = folders.of(step.to)
                # Nothing of ours may be at the target: what was there has been moved away by an earlier step. A
                # foreign file (put there out of band) is kept beside it rather than overwritten.
                aside = self._set_aside(target, new_name, _look(target, new_name))
                os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=target)
                outcome = self._set_attributes(target, new_name, info, step.attrs)
                if aside or stat.S_ISDIR(info.st_mode):
                    folders.forget()
                return outcome._replace(warning=_stood_here(step.to, aside))
            case StepKind.REMOVE:
                return _remove(step, folder, name)
            case StepKind.RMDIR:
                outcome = self._rmdir(step, folder, name)
                folders.forget()
                return outcome
            case StepKind.ATTRS:
                return self._set_attributes(folder, name, _expect(folder, name, step), step.attrs)

    def _mkdir(self, step: Step, folder: int, name: bytes) -> Outcome:
        warning = ""
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            found = _look(folder, name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                warning = _stood_here(step.path, self._set_aside(folder, name, found))
                os.mkdir(name, 0o700, dir_fd=folder)
        outcome = self._set_attributes(folder, name, os.stat(name, dir_fd=folder, follow_symlinks=False), step.attrs)
        return outcome._replace(warning=warning)

    def _symlink(self, step: Step, folder: int, name: bytes) -> Outcome:
        warning = ""
        found = _look(folder, name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            os.unlink(name, dir_fd=folder)  # made before a crash, perhaps
        elif found is not None:
            warning = _stood_here(step.path, self._set_aside(folder, name, found))
        os.symlink(step.symlink_target, name, dir_fd=folder)
        outcome = self._set_attributes(folder, name, os.stat(name, dir_fd=folder, follow_symlinks=False), step.attrs)
        return outcome._replace(warning=warning)

    def _rmdir(self, step: Step, folder: int, name: bytes) -> Outcome:
        info = _look(folder, name)
        if info is None or not stat.S_ISDIR(info.st_mode) or not _is_it(info, step):
            if info is not None:
                _require_uncovered(folder, name)
            return Outcome(is_foreign=info is not None)  # gone, and another has its name
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            # Only foreign files can be left in it: recfs's own entries were removed before their directory.
            aside = self._set_aside(folder, name, info, b"dir-%d" % info.st_ino)
            return Outcome(
                warning=f"{os.fsdecode(step.path)} held files recfs does not know; kept as lost+found/{aside}"
            )
        return Outcome()

    def _set_aside(self, folder: int, name: bytes, info: os.stat_result | None, new_name: bytes = b"") -> str:
        """Take somebody's file out of the way, to lost+found; tells its name there."""
        if info is None:
            return ""
        new_name = new_name or b"%d-%b" % (info.st_ino, name[:100])
        with self._beneath.folder(self._lost + b"/" + new_name) as (lost, plain):
            free, count = plain, 1
            while _look(lost, free) is not None:
                count += 1
                free = b"%b.%d" % (plain, count)
            os.rename(name, free, src_dir_fd=folder, dst_dir_fd=lost)
        return os.fsdecode(free)

    def _set_attributes(self, folder: int, name: bytes, info: os.stat_result, attrs: Attrs | None) -> Outcome:
        if attrs is None:
            return Outcome(info.st_ino)
        link = stat.S_ISLNK(info.st_mode)
        if self._may_chown and (info.st_uid, info.st_gid) != (attrs.uid, attrs.gid):
            os.chown(name, attrs.uid, attrs.gid, dir_fd=folder, follow_symlinks=False)
        if not link:
            os.chmod(name, attrs.mode & 0o7777 | self._own_access[stat.S_ISDIR(info.st_mode)], dir_fd=folder)
        if not stat.S_ISDIR(info.st_mode):
            os.utime(name, ns=(attrs.atime_ns, attrs.mtime_ns), dir_fd=folder, follow_symlinks=False)
        return Outcome(info.st_ino)


def _stood_here(path: bytes, aside: str) -> str:
    """What to tell of somebody's file that made way, under the name it has in lost+found; "" if none had to."""
    return f"{os.fsdecode(path)}: somebody's file stood here; kept as lost+found/{aside}" if aside else ""


def _look(folder: int, name: bytes) -> os.stat_result | None:
    """lstat(2), or None where nothing is."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_it(info: os.stat_result, step: Step) -> bool:
    """Whether that is what a step is for."""
    if step.home_ino not in (None, info.st_ino) or step.is_dir not in (None, stat.S_ISDIR(info.st_mode)):
        return False
    return step.size_bytes is None or (stat.S_ISREG(info.st_mode) and info.st_size == step.size_bytes)


def is_there(info: os.stat_result | None, step: Step) -> bool:
    """Whether *info*, lstat(2) of the path of a step, is of what the step is for."""
    return info is not None and _is_it(info, step)


def _expect(folder: int, name: bytes, step: Step) -> os.stat_result:
    """lstat(2) of what a step is for. Raises FileNotFoundError when something else lies there."""
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not _is_it(info, step):
        _require_uncovered(folder, name)
        raise FileNotFoundError(errno.ENOENT, "another file stands here", name)
    return info


def _require_uncovered(folder: int, name: bytes) -> None:
    """Raise OSError (EBUSY) where something else is mounted on what a step is for: it is below, and not gone."""
    if Beneath.is_mounted_on(folder, name):
        raise OSError(errno.EBUSY, "another file system is mounted there", name)


def _remove(step: Step, folder: int, name: bytes) -> Outcome:
    info = _look(folder, name)
    if info is None:
        return Outcome()
    if stat.S_ISDIR(info.st_mode) or not _is_it(info, step):
        _require_uncovered(folder, name)
        return Outcome(
            warning=f"{os.fsdecode(step.path)}: another file stands here{_difference(info, step)}; left alone",
            is_foreign=True,
        )
    os.unlink(name, dir_fd=folder)
    return Outcome()


def _difference(info: os.stat_result, step: Step) -> str:
    """By what another file was told from the one that a step is for."""
    if stat.S_ISDIR(info.st_mode):
        return " (a directory)"
    return f" (inode {info.st_ino} for {step.home_ino}, {info.st_size} bytes for {step.size_bytes})"


def _failed(error: Exception) -> Outcome:
    if isinstance(error, OSError):
        return Outcome(error=error.errno or errno.EIO)
    return Outcome(error=errno.EIO, reason=f"{type(error).__name__}: {error}")


def _touch(touched: set[bytes], step: Step) -> None:
    """Note the directories whose entries *step* changed, under the names they have after it.

    A directory that was moved is to be synced where it is now. Of one that was removed there is nothing to sync, and
    what has its name by then may be no directory.
    """
    if step.kind in (StepKind.MOVE, StepKind.RMDIR):
        below = step.path + b"/"
        for each in [each for each in touched if each == step.path or each.startswith(below)]:
            touched.discard(each)
            if step.kind is StepKind.MOVE:
                touched.add(step.to + each[len(step.path) :])
    touched.add(os.path.dirname(step.path))
    if step.to:
        touched.add(os.path.dirname(step.to))


def _builds_on(step: Step, failed: set[bytes]) -> bool:
    """Whether *step* concerns, or lies below, a path at which an earlier step failed.

    A directory cannot go either before what failed to leave it: what is left in it would be taken for somebody else's.
    """
    paths = [path for path in (step.path, step.to) if path]
    if step.kind is StepKind.RMDIR and any(each.startswith(step.path + b"/") for each in failed):
        return True
    return any(path == each or path.startswith(each + b"/") for path in paths for each in failed)
