"""What the daemon changes for somebody by path: programs on the mount see it at once, whatever their kernel kept."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

DAEMON = """
from recfs.api.answers import Answers
from recfs.core.permissions import Identity
from recfs.fs.session import Sessions
from recfs.fs.attributes import Changes
handlers, init = Answers.handlers, Sessions.__init__
made = []
def kept(self, *args):
    init(self, *args)
    made.append(self)
Sessions.__init__ = kept
def more(self):
    session = made[-1].of(Identity(0, 0))
    async def act(params):
        what, path = params["what"], params["path"]
        if what == "write":
            async with session.writer(path) as file:
                await file.write(params["data"].encode())
        elif what == "rename":
            await session.rename(path, params["to"])
        elif what == "size":
            await session.change(path, Changes(size=params["size"]))
        elif what == "mode":
            await session.change(path, Changes(mode=params["mode"]))
        else:
            await getattr(session, what)(path)
        return {}
    return handlers(self) | {"act": act}
Answers.handlers = more
"""


@pytest.fixture
def mount(store: Mount, outside: Path) -> Mount:
    """One whose daemon acts by path on request."""
    (outside / "sitecustomize.py").write_text(DAEMON)  # imported by every Python that has it on its path
    path = os.pathsep.join(filter(None, (str(outside), os.environ.get("PYTHONPATH"))))
    return store.start(config=BASE_CONFIG, env={"PYTHONPATH": path})


def test_what_the_kernel_had_kept_is_told_anew(mount: Mount) -> None:
    rec = mount.recording()
    file, other = rec / "file", rec / "other"

    def act(what: str, path: Path, **more: object) -> None:
        mount.call("act", what=what, path=mount.inner(path), **more)

    assert not file.exists(), "which it keeps"
    assert os.listdir(rec) == []
    act("write", file, data="first")
    assert file.read_text() == "first"
    assert os.listdir(rec) == ["file"]
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[:] == b"first"
        act("write", file, data="second, and longer")
        assert file.read_text() == "second, and longer"
        assert pages[:] == b"first", "of the file that was opened"
    assert os.listdir(rec) == ["file"], "nothing is left beside it"
    ino = file.stat().st_ino
    act("rename", file, to=mount.inner(other))
    assert not file.exists()
    assert other.stat().st_ino == ino
    assert os.listdir(rec) == ["other"]
    act("size", other, size=6)
    assert other.stat().st_size == 6
    assert other.read_text() == "second"
    act("mode", other, mode=0o600)
    assert other.stat().st_mode & 0o777 == 0o600
    act("mkdir", rec / "folder")
    (rec / "folder/below").write_text("from outside")
    (rec / "folder/below").unlink()
    act("remove", rec / "folder")
    assert not (rec / "folder").exists()
    with open(other, "rb") as opened:
        act("remove", other)
        assert opened.read() == b"second"
        assert os.fstat(opened.fileno()).st_nlink == 0
    assert os.listdir(rec) == []
