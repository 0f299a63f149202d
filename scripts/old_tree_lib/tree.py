"""A whole tree: users with their recordings, templates, and what nobody cleared away."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recfs.core.migration.plan import Action

from . import media, names
from .maker import Maker
from .rows import write_csv, write_database
from .stories import ODD, PLAIN, Story
from .truth import Truth

_MEGABYTE = 10**6


@dataclass(frozen=True, slots=True)
class Wishes:
    """How large the tree is to be, and of which chance."""

    users: int = 24
    recordings: int = 1_300
    seed: int = 1
    large: int = 0
    """Recordings with a source of `large_mb`, on top."""
    large_mb: int = 50
    picture_width: int = 395
    """Of the 22 templates, in pixels; 395 is some 5 MB for all of them."""


def make(old: Path, outside: Path, wishes: Wishes) -> Truth:
    """Make a tree in the directories *old* and *outside*, which are new or empty; the database is `old/data.db`.

    Raises RuntimeError without FFmpeg and OSError where the disk refuses.
    """
    maker = Maker(old, outside, random.Random(wishes.seed), media.originals(wishes.picture_width))
    outside.mkdir(parents=True, exist_ok=True)
    (outside / "somebody_elses.mp4").write_bytes(maker.video())
    users = sorted(maker.draw.sample(range(1, 6 * wishes.users + 1), wishes.users))
    _templates(maker)
    for user, story in _told(maker.draw, users, wishes.recordings):
        story(maker, user)
    for user in users:
        _thumbnails(maker, user)
        _leftovers(maker, user)
    for number in range(wishes.large):
        _large(maker, users[number % len(users)], wishes.large_mb * _MEGABYTE)
    _legacy(maker, users[0])
    database = old / "data.db"
    write_database(database, maker.rows)
    write_csv(outside / "recordings.csv", maker.rows)
    maker.truth.old = os.fsencode(old)
    maker.truth.database = os.fsencode(database)
    return maker.truth


def _told(draw: random.Random, users: list[int], recordings: int) -> Iterator[tuple[int, Story]]:
    """Which recording is whose: all odd ones once, and among the rest an odd one now and then."""
    stories = list(ODD[:recordings])
    while len(stories) < recordings:
        stories.append(draw.choice(PLAIN) if draw.random() < 0.95 else draw.choice(ODD))
    draw.shuffle(stories)
    for number, story in enumerate(stories):
        # each user has some, and some have many
        yield users[number] if number < len(users) else draw.choice(users[: 1 + draw.randrange(len(users))]), story


def _templates(maker: Maker) -> None:
    for number, picture in enumerate(maker.originals.pictures, 1):
        name = f"{number:02}_template.png"
        maker.put(f"templates/thumbnails/{name}", picture, Action.COPY, f"shared/thumbnails/{name}", "template")


def _thumbnails(maker: Maker, user: int) -> None:
    """Copies of all templates; some users changed one or two, or added one."""
    changed = maker.draw.sample(range(1, media.TEMPLATES + 1), maker.draw.choice((0, 0, 1, 2)))
    for number, picture in enumerate(maker.originals.pictures, 1):
        name = f"{number:02}_template.png"
        source = f"user_{user}/thumbnails/{name}"
        if number in changed:
            maker.put(source, maker.picture(), Action.COPY, f"users/{user}/thumbnails/{name}", "changed template")
        else:
            maker.put(source, picture, Action.SKIP, b"", "copy of a template")
    if maker.draw.random() < 0.3:
        name = f"{names.in_a_name(names.title(maker.draw))}.png"
        target = f"users/{user}/thumbnails/{name}"
        maker.put(f"user_{user}/thumbnails/{name}", maker.picture(), Action.COPY, target, "own thumbnail")


def _leftovers(maker: Maker, user: int) -> None:
    """Of encodes that died, recordings that were deleted, and tools."""
    folder = f"user_{user}"
    for number in range(maker.draw.randrange(1, 4)):
        name = f"{names.in_a_name(names.title(maker.draw))}_{number}.tmp.mp4"
        data = maker.video()
        maker.put(f"{folder}/video/temp_processing/{name}", data[: len(data) // 2], Action.SKIP, b"", "temporary")
    if maker.draw.random() < 0.5:
        name = f"{names.in_a_name(names.title(maker.draw))}_24-02-03_10-00"
        maker.put(f"{folder}/video/unprocessed/{name}.mp4", maker.video(), Action.UNMATCHED, b"", "no row")
        maker.put(f"{folder}/video/processed/{name}_processed.mp4", maker.video(), Action.UNMATCHED, b"", "no row")
    if maker.draw.random() < 0.2:
        gone = 9_000_000 + user
        data = maker.transcript(gone, "master")
        maker.put(f"{folder}/transcriptions/{gone}/master.json", data, Action.UNMATCHED, b"", "no row")
    if maker.draw.random() < 0.2:
        maker.link(f"{folder}/video/all", "..", "link to a directory")


def _large(maker: Maker, user: int, size: int) -> None:
    told = maker.recording(user, "large")
    told.row.status = "DOWNLOADED"
    told.row.video_file_size = size
    told.row.local_video_path = f"{told.folder}/video/unprocessed/{told.stem}.mp4"
    maker.give(told, told.row.local_video_path, media.large(maker.originals.videos[0], size, maker.draw), "source.mp4")


def _legacy(maker: Maker, user: int) -> None:
    """From before users had directories: a recording whose row still says so, a rest that nobody knows."""
    told = maker.recording(user, "legacy")
    told.row.local_video_path = f"video/unprocessed/{told.stem}.mp4"
    maker.give(told, told.row.local_video_path, maker.video(), "source.mp4")
    told.row.transcription_dir = f"transcriptions/{told.row.id}"
    data = maker.transcript(told.row.id, "master")
    maker.give(told, f"transcriptions/{told.row.id}/master.json", data, "transcription/master.json")
    maker.put("video/unprocessed/old_test.mp4", maker.video(), Action.UNMATCHED, b"", "no row")
    maker.put("video/temp_processing/old_test.mp4", maker.video()[:1000], Action.SKIP, b"", "temporary")


__all__ = ["Wishes", "make"]
