"""Programs that make products and chunks at once, without ffmpeg: what the tests of `services/deriving` run against."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from recfs import derivation
from recfs.core.media.derived import Product
from recfs.core.media.facts import Facts
from recfs.core.media.verdicts import Verdict
from recfs.errors import MediaUnavailable
from recfs.media.runner import Ended, Limits, Outcome

from .build import Filesystem, pattern

REC = "users/5/recordings/142"
SOURCE = f"{REC}/source.mp4"
VIDEO = {"codec_type": "video", "codec_name": "h264"}
AUDIO = {"codec_type": "audio", "codec_name": "aac"}
PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:4\n#EXTINF:6.0,\n#EXT-X-BYTERANGE:10@0\nmedia\n#EXT-X-ENDLIST\n"


class FakeRunner:
    """Stands for `recfs.media.runner.Runner`: what it makes tells of what it was made."""

    identity = None

    def __init__(self) -> None:
        self.missing = ""
        """Why there is no program."""
        self.duration_s: float | None = 100.0
        self.looks = 0
        """How often ffprobe was run."""
        self.streams: Sequence[dict[str, Any]] = (VIDEO, AUDIO)
        self.ended = Ended.WELL
        self.code: int | None = 0
        self.said = ""
        self.runs: list[list[str]] = []
        """Arguments of each ffmpeg."""
        self.meanwhile: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
        """Happens while ffmpeg runs."""
        self.most = self._now = 0
        """How many have run at the same time."""
        self.sources: list[bytes] = []
        """How the source of each ffmpeg begins."""
        self.silences = ""
        self.limits = Limits()
        """Of the last ffmpeg."""

    async def program(self, name: str) -> object:
        """Whether it is there."""
        await trio.lowlevel.checkpoint()
        if self.missing:
            raise MediaUnavailable(self.missing)
        return name

    async def run(
        self, name: str, arguments: Sequence[str], input_fd: int, limits: Limits, *, workspace_fd: int = -1
    ) -> Outcome:
        """Run one."""
        await self.program(name)
        if name == "ffprobe":
            self.looks += 1
            form = {"format_name": "mov,mp4,m4a,3gp,3g2,mj2", "duration": str(self.duration_s)}
            told = {"format": form, "streams": self.streams}
            return Outcome(Ended.WELL, json.dumps(told).encode(), "", 0)
        if workspace_fd < 0:
            return Outcome(Ended.WELL, b"", "", 0)  # it is asked how long the source plays, and does not know
        self.runs.append([*arguments])
        self.sources.append(os.pread(input_fd, 5, 0))
        self.limits = limits
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await self.meanwhile()
        finally:
            self._now -= 1
        if self.ended is Ended.WELL:
            data = b"made of " + os.pread(input_fd, 64, 0) + b" by " + " ".join(arguments[-9:]).encode()
            with_media = "media" in arguments
            _put(workspace_fd, "media" if with_media else "principal", data)
            if "-hls_time" in arguments:
                _put(workspace_fd, "principal", PLAYLIST.encode())
            if any("silencedetect" in each for each in arguments):
                _put(workspace_fd, "principal", self.silences.encode())
        return Outcome(self.ended, b"", self.said, self.code)


def _put(folder: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=folder)
    os.write(fd, data)
    os.close(fd)


class Making(Filesystem):
    """A file system that makes what rules want, by a program that needs no time."""

    def __init__(self, nursery: trio.Nursery, root: Path, **settings: Any) -> None:
        super().__init__(nursery, root, **settings)
        self.runner = FakeRunner()

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        services = derivation.Derivation.services
        with (
            super()._settings(),
            mock.patch.object(derivation, "Runner", return_value=self.runner),
            mock.patch.object(derivation.Derivation, "services", lambda made, mounted: services(made, mounted=True)),
        ):
            yield


class Maker:
    """Short ways to use it."""

    def __init__(self, fs: Making) -> None:
        self.fs = fs

    @property
    def runner(self) -> FakeRunner:
        """What stands for ffprobe and ffmpeg."""
        return self.fs.runner

    @property
    def work(self) -> Any:
        """The services."""
        return self.fs.parts.derivation.work

    async def die(self) -> None:
        """The daemon dies, and another one starts."""
        await self.fs.crash()
        await self.fs.reopen()

    async def ask(self, path: str = REC, **more: Any) -> list[dict[str, Any]]:
        """`recfs derive`."""
        answers: list[dict[str, Any]] = await self.work.asking.ask(
            path, **({"everything": False, "dry_run": False} | more)
        )
        return answers

    async def derive(self, path: str = REC, **more: Any) -> list[dict[str, Any]]:
        """The same, to its end; what has become of each."""
        asked = await self.ask(path, **more)
        await self.idle()
        return [await self.work.asking.state_of(each["folder"], Product(each["product"])) for each in asked]

    async def idle(self) -> None:
        """Wait until nothing is being made, nor due."""
        deriving = self.work.deriving
        for _ in range(2000):
            now_ns = self.fs.clock.steady_ns()
            due = [each for each in deriving._waiting.open.values() if each.next_ns <= now_ns]
            if not due and not deriving._waiting.busy and not deriving._heard:
                return
            await trio.sleep(0.01)
        raise AssertionError(deriving._waiting.open)

    async def status(self, product: str = "thumbnail") -> tuple[str, str]:
        """Of one product of the recording: its status and the reason."""
        folder = await self.fs.node(REC)
        told = await self.work.asking.state_of(folder.ino, Product(product))
        return told["status"], told["reason"]

    def rooms(self) -> list[Path]:
        """What programs have left on the disk."""
        return [*(self.fs.root / ".recfs" / "rooms").glob("*")]

    async def jobs(self) -> list[str]:
        """Temp jobs of the user."""
        rows = self.fs.rows("select name from node where parent = (select ino from node where name = x'74656d70')")
        return [name.decode() for (name,) in rows]


async def looked_into(fs: Filesystem, *, duration_s: float | None = None, reason: str = "") -> None:
    """The source was looked into: what the catalogue has of it; *reason*: why it is broken."""
    rows, node = fs.parts.contents.rows, await fs.node(SOURCE)
    row = await rows.of(node)
    assert row is not None
    facts = Facts("mp4", "video/mp4", duration_s, video_codec="h264", audio_codec="aac")
    verdict = Verdict.BROKEN if reason else Verdict.WHOLE
    rows.put(row._replace(verdict=verdict, reason=reason, facts=facts.packed()))


@contextlib.asynccontextmanager
async def making(nursery: trio.Nursery, place: Path, **settings: Any) -> AsyncIterator[Maker]:
    """One with a source."""
    fs = Making(nursery, place, **settings)
    await fs.start()
    await fs.write(SOURCE, pattern(9000))
    await fs.drain()
    yield Maker(fs)
    await fs.stop()
