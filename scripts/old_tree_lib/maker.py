"""What stories write with: files of the tree with their truth, rows of the database, and all chance from one seed."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from recfs.core.migration.plan import Action

from . import media, names
from .rows import Row
from .truth import File, Truth

_FIRST_RECORDING = 101
_BEGIN = datetime.datetime(2025, 9, 1, 7, 0, tzinfo=datetime.UTC)
_A_STEP = datetime.timedelta(minutes=17)
_WORDS = ("сегодня", "мы", "поговорим", "о", "том", "как", "устроены", "данные", "и", "почему", "это", "важно")


@dataclass(slots=True)
class Recording:
    """One recording that is being told: its row, where its files lie and go, and what they are called."""

    row: Row
    kind: str
    stem: str
    """Name of its files without `_processed` and the ending: the title and the time."""
    when: datetime.datetime
    expired: bool = False

    @property
    def folder(self) -> str:
        """The user's directory in the old tree."""
        return f"user_{self.row.user_id}"

    @property
    def target(self) -> str:
        """The recording's directory in the mount."""
        return f"users/{self.row.user_id}/recordings/{self.row.id}"


@dataclass(slots=True)
class Maker:
    """Writes a tree below `old`; `outside` is a directory beside it that links may lead to."""

    old: Path
    outside: Path
    draw: random.Random
    originals: media.Originals
    truth: Truth = field(default_factory=Truth)
    rows: list[Row] = field(default_factory=list)
    _marks: int = 0
    _recordings: int = 0
    _folders: set[bytes] = field(default_factory=set)

    # -- bytes, each unlike all others ---

    def _mark(self) -> bytes:
        self._marks += 1
        return b"%d:%s" % (self._marks, self.draw.randbytes(self.draw.randrange(4, 200)).hex().encode())

    def video(self) -> bytes:
        """A video of some seconds."""
        return media.marked_mp4(self.draw.choice(self.originals.videos), self._mark())

    def matroska(self) -> bytes:
        """A video in another container."""
        return media.marked_mkv(self.originals.matroska, self._mark())

    def audio(self) -> bytes:
        """The sound of one."""
        return media.marked_mp3(self.draw.choice(self.originals.audios), self._mark())

    def picture(self) -> bytes:
        """A thumbnail that somebody made."""
        return media.marked_png(self.draw.choice(self.originals.pictures), self._mark())

    def transcript(self, recording: int, part: str) -> bytes:
        """JSON as the transcription writes it."""
        segments = [
            {"start": float(second), "end": second + 4.5, "text": " ".join(self.draw.choices(_WORDS, k=7))}
            for second in range(0, 5 * self.draw.randrange(1, 12), 5)
        ]
        document = {"recording_id": recording, "part": part, "language": "ru", "segments": segments, "n": self._marks}
        self._marks += 1
        return json.dumps(document, ensure_ascii=False).encode()

    # -- recordings ---

    def recording(self, user: int, kind: str, title: str | None = None) -> Recording:
        """The next recording of the platform, of this user, with a row that names no file yet."""
        number = self._recordings
        self._recordings += 1
        # None of the digits of a time is an id of a recording, as on a platform that is some years old.
        row = Row(_FIRST_RECORDING + number, user, title or names.title(self.draw))
        when = _BEGIN + _A_STEP * number
        row.start_time = f"{when:%Y-%m-%d %H:%M:%S}.000000"
        row.created_at = f"{when + _A_STEP:%Y-%m-%d %H:%M:%S}.{self.draw.randrange(10**6):06}"
        row.duration = self.draw.randrange(60, 7200)
        self.rows.append(row)
        stem = names.composed(f"{names.in_a_name(row.display_name)}_{when:%y-%m-%d_%H-%M}")
        return Recording(row, kind, stem, when)

    def give(
        self,
        recording: Recording,
        source: str,
        data: bytes,
        target: str,
        *,
        becomes: Action = Action.COPY,
        kind: str | None = None,
        when: datetime.datetime | None = None,
    ) -> None:
        """Write a file of the recording that is to become *target* below the recording's directory.

        Of a recording that has expired it is skipped.
        """
        if recording.expired and becomes in (Action.COPY, Action.ASIDE, Action.DUPLICATE):
            becomes = Action.SKIP
        where = f"{recording.target}/{target}" if becomes in (Action.COPY, Action.ASIDE, Action.DUPLICATE) else ""
        self.put(source, data, becomes, where, kind or recording.kind, when or recording.when)

    # -- the tree ---

    def put(
        self,
        source: str | bytes,
        data: bytes,
        becomes: Action,
        target: str | bytes = b"",
        kind: str = "plain",
        when: datetime.datetime | None = None,
    ) -> None:
        """Write a file of the tree and what is to become of it."""
        path = self._place(source)
        with open(path, "xb") as file:
            file.write(data)
        mtime_ns = _ns(when or _BEGIN)
        os.utime(path, ns=(mtime_ns, mtime_ns))
        digest = hashlib.sha256(data).hexdigest()
        self._note(source, becomes, target, kind, len(data), digest, mtime_ns)

    def name_again(self, source: str, twin: str, becomes: Action) -> None:
        """Give the file that was written last, *source*, a second name (a hard link)."""
        os.link(self.path(source), self._place(twin))
        self.truth.files.append(replace(self.truth.files[-1], source=os.fsencode(twin), becomes=becomes))

    def link(self, source: str, to: str, kind: str) -> None:
        """Make a symbolic link; a plan leaves it alone."""
        path = self._place(source)
        os.symlink(to, path)
        self._note(source, Action.UNREADABLE, b"", kind, len(os.fsencode(to)), "", 0)

    def pipe(self, source: str, kind: str) -> None:
        """Make a named pipe, which hangs whoever opens it to read."""
        path = self._place(source)
        os.mkfifo(path)
        self._note(source, Action.UNREADABLE, b"", kind, 0, "", 0)

    def path(self, source: str | bytes) -> bytes:
        """Where a file of the tree is."""
        return os.path.join(os.fsencode(self.old), os.fsencode(source))

    def _place(self, source: str | bytes) -> bytes:
        path = self.path(source)
        folder = os.path.dirname(path)
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        return path

    def _note(
        self,
        source: str | bytes,
        becomes: Action,
        target: str | bytes,
        kind: str,
        size: int,
        digest: str,
        mtime_ns: int,
    ) -> None:
        file = File(os.fsencode(source), becomes, os.fsencode(target), kind, size, digest, mtime_ns)
        self.truth.files.append(file)


def _ns(when: datetime.datetime) -> int:
    return int(when.timestamp()) * 10**9


__all__ = ["Maker", "Recording"]
