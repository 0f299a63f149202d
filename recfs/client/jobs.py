"""Temporary jobs: a directory for one piece of work, gone at its end, and in any case a day after its last change."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from recfs.client.places import default_root
from recfs.client.tree import Id, id_of
from recfs.client.waiting import checkpoint, in_thread


class temp_job:
    """A directory `temp/<user>/<job>` for one block: `with temp_job(5) as job`, or `async with`.

    It is made with a new id (a random UUID) unless *job_id* says which: then FileExistsError if it is there. At the end
    of the block it is removed with all that is in it, on errors and cancellations too; with *keep_on_error* it stays
    then, for somebody to look at. What a death of the process leaves, recfs removes a day after its last change
    (docs/semantics.md, section 11). *root* is a mount or a plain directory; None: the mount that there is. Raises
    InvalidName and OSError.

    >>> with temp_job(5, root=folder) as job:
    ...     written = (job / "chunk-0.wav").write_bytes(b"RIFF")
    ...     job.parent == folder / "temp" / "5"
    True
    >>> job.exists()
    False
    """

    def __init__(
        self, user_id: Id, *, root: str | os.PathLike[str] | None = None, job_id: Id | None = None,
        keep_on_error: bool = False,
    ) -> None:  # fmt: skip
        job = str(uuid.uuid4()) if job_id is None else id_of("job", job_id)
        self._inside = Path("temp", id_of("user", user_id), job)
        self._root = root
        self._keep_on_error = keep_on_error
        self._made: Path | None = None

    def _make(self) -> Path:
        if self._made is not None:
            raise RuntimeError("each temp_job() is for one block")
        path = Path(default_root() if self._root is None else self._root, self._inside)
        for above in (path.parent.parent, path.parent):  # and no root that is not there
            above.mkdir(exist_ok=True)
        path.mkdir()
        self._made = path
        return path

    def _remove(self, *, failed: bool) -> None:
        if self._made is None or (failed and self._keep_on_error):
            return
        try:
            shutil.rmtree(self._made)
        except FileNotFoundError:
            with suppress(FileNotFoundError):  # what was in it went meanwhile
                shutil.rmtree(self._made)
        except OSError:
            if not failed:
                raise  # else what went wrong in the block is what counts: recfs removes the job later

    def __enter__(self) -> Path:
        return self._make()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove(failed=kind is not None)

    async def __aenter__(self) -> Path:
        await checkpoint()
        try:
            return await in_thread(self._make)
        except BaseException:
            await in_thread(lambda: self._remove(failed=False))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await in_thread(lambda: self._remove(failed=kind is not None))


__all__ = ["temp_job"]
