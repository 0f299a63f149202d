"""What becomes of each file of an old tree: decided by what is certain, and left alone otherwise."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from recfs.core.layout import role_of
from recfs.core.migration.claims import File, named_by
from recfs.core.migration.lookup import Index
from recfs.core.migration.matching import Decided, decide
from recfs.core.migration.oldtree import Slot, hidden_link, other_owner
from recfs.core.migration.plan import MOVED, Action, Plan, parsed
from recfs.core.migration.rows import Row

OLD = b"/srv/media"
SOURCE, VIDEO, AUDIO, TRANSCRIPTION = Slot


@dataclass
class Tree:
    """An old tree in memory; the platform has *rows* unless there is no database."""

    rows: list[Row] | None = field(default_factory=list)
    files: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    hashed: list[bytes] = field(default_factory=list)
    broken: set[bytes] = field(default_factory=set)
    expired: dict[tuple[str, str], str] = field(default_factory=dict)

    def put(self, path: str, data: str = "", mtime_ns: int = 0) -> str:
        self.files[path.encode()] = ((data or path).encode(), mtime_ns)
        return path

    def row(
        self, number: int, user: int = 4, name: str = "", sizes: Mapping[Slot, int] | None = None, **paths: str
    ) -> None:
        assert self.rows is not None
        named = {Slot[key.upper()]: path for key, path in paths.items()}
        self.rows.append(Row(str(number), str(user), str(number), name, "READY", named, sizes or {}))

    def digest(self, file: File) -> bytes | str:
        self.hashed.append(file.path)
        return "Input/output error" if file.path in self.broken else hashlib.sha256(self.files[file.path][0]).digest()

    def decided(self) -> Decided:
        files = [File(path, len(data), mtime_ns) for path, (data, mtime_ns) in self.files.items()]
        folders = {path.rpartition(b"/")[0] for path in self.files}
        folders |= {folder.rpartition(b"/")[0] for folder in folders}
        self.named = named_by(self.rows or (), Index(self.files), Index(folders), [OLD])
        return decide(files, self.rows, self.named, self.digest, self.expired)

    def plan(self) -> dict[str, str]:
        """By source: the action and, after a blank, the target."""
        return {
            entry.source.decode(): f"{entry.action} {entry.target.decode()}".strip() for entry in self.decided().entries
        }


def reason(tree: Tree, path: str) -> str:
    (entry,) = (each for each in tree.decided().entries if each.source == path.encode())
    return entry.reason


def test_what_rows_name_becomes_the_parts_of_their_recordings() -> None:
    tree = Tree()
    source = tree.put("user_4/video/unprocessed/Перевод.MKV")
    video = tree.put("user_4/video/processed/Перевод_processed.mp4")
    audio = tree.put("user_4/processed_audio/Перевод_processed.mp3")
    master = tree.put("user_4/transcriptions/7/master.json")
    deep = tree.put("user_4/transcriptions/7/parts/\t1.json")
    tree.row(7, source=source, video=f"/opt/media/{video}", audio=audio, transcription="user_4/transcriptions/7/")
    assert tree.plan() == {
        source: "copy users/4/recordings/7/source.mkv",
        video: "copy users/4/recordings/7/video.mp4",
        audio: "copy users/4/recordings/7/audio.mp3",
        master: "copy users/4/recordings/7/transcription/master.json",
        deep: "copy users/4/recordings/7/transcription/parts/\t1.json",
    }
    assert tree.decided().columns == {
        b"users/4/recordings/7": {
            "local_video_path": "users/4/recordings/7/source.mkv",
            "processed_video_path": "users/4/recordings/7/video.mp4",
            "processed_audio_path": "users/4/recordings/7/audio.mp3",
            "transcription_dir": "users/4/recordings/7/transcription",
        }
    }
    assert tree.hashed == []  # nothing is to be compared
    assert reason(tree, source) == "database: local_video_path of recording 7"
    assert reason(tree, video) == "database: processed_video_path of recording 7 (another base directory)"


def test_a_row_that_names_another_users_file_is_not_believed() -> None:
    tree = Tree()
    theirs = tree.put("user_5/video/processed/a.mp4")
    tree.put("user_5/transcriptions/9/master.json")
    tree.row(9, user=4, video=theirs, transcription="user_5/transcriptions/9")
    assert set(tree.plan().values()) == {"ambiguous"}
    assert reason(tree, theirs) == "recording 9 is user 4's, and this lies with user 5"


@pytest.mark.parametrize(
    ("path", "owner", "told"),
    [
        (b"user_4/a", 20005, "its owner (uid 20005) is that of user_5, and it lies in user_4"),
        (b"user_4/a", 20004, ""),
        (b"user_4/a", 33, ""),  # a service's
        (b"user_4/a", 20009, ""),  # of a directory that is no user's
        (b"shared/a", 20005, ""),
        (b"user_6/a", 33, ""),
        (b"user_4/a", None, ""),
    ],
)
def test_an_owner_who_has_another_users_directory_is_told(path: bytes, owner: int | None, told: str) -> None:
    owners = {b"user_4": 20004, b"user_5": 20005, b"user_6": 20006, b"shared": 20009}
    assert other_owner(path, owner, owners) == told
    one_service = dict.fromkeys(owners, 33)
    assert other_owner(path, 33, one_service) == ""


def about(mode: int, uid: int, gid: int = 0, names: int = 1) -> os.stat_result:
    return os.stat_result((mode, 1, 1, names, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("file", "is_told"),
    [
        (about(0o100600, 0, names=2), True),
        (about(0o100640, 0, 42, names=2), True),
        (about(0o100600, 0), False),  # its only name: the platform may have written it so
        (about(0o100644, 0, names=2), False),
        (about(0o100640, 0, 20004, names=2), False),
        (about(0o100600, 20004, names=2), False),
    ],
)
def test_a_hard_link_to_what_a_user_may_not_read_is_told(file: os.stat_result, is_told: bool) -> None:
    assert bool(hidden_link(file, about(0o040755, 20004, 20004))) is is_told
    assert hidden_link(file, about(0o040755, 0)) == ""
    assert hidden_link(file, None) == ""


def test_a_file_that_two_rows_name_belongs_to_neither() -> None:
    tree = Tree()
    shared = tree.put("user_4/video/processed/a.mp4")
    folder = tree.put("user_4/transcriptions/7/master.json")
    tree.row(7, video=shared, transcription="user_4/transcriptions/7")
    tree.row(8, video=f"/srv/media/{shared}", transcription="user_4/transcriptions/7")
    assert tree.plan() == {shared: "ambiguous", folder: "ambiguous"}
    assert reason(tree, shared) == "the database names it for several recordings: 7 (user 4), 8 (user 4)"


def test_a_file_in_two_columns_of_a_row_is_copied_once_and_both_columns_name_it() -> None:
    tree = Tree()
    only = tree.put("user_4/video/unprocessed/a.mp4")
    tree.row(7, source=only, video=only)
    assert tree.plan() == {only: "copy users/4/recordings/7/source.mp4"}
    target = "users/4/recordings/7/source.mp4"
    columns = {"local_video_path": target, "processed_video_path": target}
    assert tree.decided().columns == {b"users/4/recordings/7": columns}


def test_a_transcription_that_is_told_to_be_another_part_has_no_directory() -> None:
    tree = Tree()
    source = tree.put("user_4/video/unprocessed/a.mp4")
    tree.row(7, source=source, transcription=source)
    assert tree.decided().columns == {b"users/4/recordings/7": {"local_video_path": "users/4/recordings/7/source.mp4"}}


@pytest.mark.parametrize("named", ["user_4/audio/processed/a_processed.mp3", "user_4/processed_audio/a_processed.mp3"])
def test_the_same_sound_in_both_places_is_proved_by_its_bytes(named: str) -> None:
    tree = Tree()
    both = {
        tree.put("user_4/audio/processed/a_processed.mp3", "la"),
        tree.put("user_4/processed_audio/a_processed.mp3", "la"),
    }
    tree.row(7, audio=named)
    (other,) = both - {named}
    assert tree.plan() == {
        named: "copy users/4/recordings/7/audio.mp3",
        other: "duplicate users/4/recordings/7/audio.mp3",
    }
    assert set(tree.hashed) == {path.encode() for path in both}


@pytest.mark.parametrize("named", ["user_4/audio/processed/a.mp3", "user_4/processed_audio/a.mp3"])
def test_of_two_sounds_the_newer_counts_and_the_other_stays_beside_it(named: str) -> None:
    tree = Tree()
    older = tree.put("user_4/audio/processed/a.mp3", "lo", mtime_ns=5)
    newer = tree.put("user_4/processed_audio/a.mp3", "la", mtime_ns=6)
    tree.row(7, audio=named)
    assert tree.plan() == {
        newer: "copy users/4/recordings/7/audio.mp3",
        older: "aside users/4/recordings/7/audio.older.mp3",
    }
    assert tree.decided().columns[b"users/4/recordings/7"] == {"processed_audio_path": "users/4/recordings/7/audio.mp3"}
    assert ("which the database names" in reason(tree, newer)) == (named == older)


def test_equally_new_sounds_go_by_the_database() -> None:
    tree = Tree()
    other = tree.put("user_4/audio/processed/a.mp3", "lo")
    named = tree.put("user_4/processed_audio/a.mp3", "la")
    tree.row(7, audio=named)
    plan = tree.plan()
    assert (plan[named], plan[other].split()[0]) == ("copy users/4/recordings/7/audio.mp3", "aside")


def test_of_three_the_third_is_compared_with_what_stays_beside() -> None:
    tree = Tree(None)
    name = "recording_7_processed.mp3"
    newest = tree.put(f"user_4/audio/processed/{name}", "la", 9)
    older = tree.put(f"user_4/audio/processed/b/{name}", "lo", 8)
    same = tree.put(f"user_4/processed_audio/{name}", "lo", 7)
    oldest = tree.put(f"user_4/processed_audio/b/{name}", "li", 6)
    assert tree.plan() == {
        newest: "copy users/4/recordings/7/audio.mp3",
        older: "aside users/4/recordings/7/audio.older.mp3",
        same: "duplicate users/4/recordings/7/audio.older.mp3",
        oldest: "aside users/4/recordings/7/audio.older-2.mp3",
    }


def test_what_cannot_be_read_to_be_compared_is_left_alone() -> None:
    tree = Tree()
    named = tree.put("user_4/audio/processed/a.mp3", "la")
    broken = tree.put("user_4/processed_audio/a.mp3", "lo")
    tree.row(7, audio=named)
    tree.broken.add(broken.encode())
    assert tree.plan() == {named: "copy users/4/recordings/7/audio.mp3", broken: "unreadable"}
    assert reason(tree, broken) == "it cannot be read: Input/output error"
    tree.broken.add(named.encode())
    assert tree.plan() == {named: "unreadable", broken: "unreadable"}


def test_ids_in_names_are_those_of_the_users_own_recordings() -> None:
    tree = Tree()
    mine = tree.put("user_4/video/processed/recording_7_processed.mp4")
    by_folder = tree.put("user_4/transcriptions/7/master.json")
    theirs = tree.put("user_5/video/processed/recording_7_processed.mp4")
    their_folder = tree.put("user_5/transcriptions/7/master.json")
    gone = tree.put("user_4/transcriptions/9/master.json")
    both = tree.put("user_4/video/processed/7_8.mp4")
    picture = tree.put("user_4/video/processed/recording_7.jpg")
    loose = tree.put("user_4/transcriptions/master.json")
    tree.row(7)
    tree.row(8)
    assert tree.plan() == {
        mine: "copy users/4/recordings/7/video.mp4",
        by_folder: "copy users/4/recordings/7/transcription/master.json",
        theirs: "unmatched",
        their_folder: "ambiguous",
        gone: "unmatched",
        both: "ambiguous",
        picture: "unmatched",
        loose: "unmatched",
    }
    assert reason(tree, gone) == "the database has no recording 9"
    assert reason(tree, both) == "ids of several recordings are in its name: 7, 8"


def test_a_number_in_a_title_is_no_proof_against_the_title_of_another_recording() -> None:
    tree = Tree()
    second = tree.put("user_4/video/processed/Лекция_7_processed.mp4")
    tree.row(7, name="Семинар")
    tree.row(8, name="Лекция 7")
    assert tree.plan() == {second: "ambiguous"}


def test_a_recording_that_has_its_video_is_given_no_other() -> None:
    tree = Tree()
    named = tree.put("user_4/video/processed/Семинар_processed.mp4", "a")
    other = tree.put("user_4/video/processed/Лекция_7_processed.mp4", "b", mtime_ns=9)
    same = tree.put("user_4/video/processed/copy_7_processed.mp4", "a", mtime_ns=9)
    container = tree.put("user_4/video/processed/Семинар_processed.mkv", "c", mtime_ns=9)
    tree.row(7, video=named)
    assert tree.plan() == {
        named: "copy users/4/recordings/7/video.mp4",
        other: "unmatched",
        same: "duplicate users/4/recordings/7/video.mp4",
        container: "unmatched",
    }
    assert reason(tree, other) == f"recording 7 (user 4) has another video: {named}"


def test_files_of_one_id_that_differ_are_left_to_a_person() -> None:
    tree = Tree(None)
    plan = {tree.put("user_4/video/processed/a_7.mp4"), tree.put("user_4/video/processed/b_7.mp4")}
    assert tree.plan() == dict.fromkeys(plan, "ambiguous")


def test_a_stem_that_one_recording_alone_has_is_its_own() -> None:
    tree = Tree()
    moved = tree.put("user_4/video/processed/Перевод_25-12-26_processed.mp4")
    titled = tree.put("user_4/video/unprocessed/Разбор_ДЗ.mp4")
    tree.row(7, video="user_4/video/done/Перевод_25-12-26_processed.mp4")
    tree.row(8, name="Разбор: ДЗ")
    tree.row(9, user=5, name="Разбор ДЗ")  # somebody else's
    assert tree.plan() == {
        moved: "copy users/4/recordings/7/video.mp4",
        titled: "copy users/4/recordings/8/source.mp4",
    }
    tree.row(10, name="Разбор ДЗ")
    assert tree.plan()[titled] == "ambiguous"
    assert reason(tree, titled) == "several recordings have its name: 8, 10"


def test_the_size_that_the_database_tells_decides_between_files_of_one_stem() -> None:
    tree = Tree()
    right = tree.put("user_4/video/unprocessed/a.mp4", "12345")
    wrong = tree.put("user_4/video/unprocessed/a.mkv", "123")
    tree.row(7, name="a", sizes={SOURCE: 5})
    assert tree.plan() == {right: "copy users/4/recordings/7/source.mp4", wrong: "unmatched"}
    assert "by the database 5 bytes" in reason(tree, wrong)
    tree.rows = []
    tree.row(7, name="a")
    assert tree.plan() == {right: "ambiguous", wrong: "ambiguous"}


def test_without_a_database_ids_in_names_are_all_there_is() -> None:
    tree = Tree(None)
    plan = {
        tree.put("user_4/transcriptions/7/master.json"): "copy users/4/recordings/7/transcription/master.json",
        tree.put("user_4/video/unprocessed/x_7_y.mp4"): "copy users/4/recordings/7/source.mp4",
        tree.put("user_4/video/unprocessed/x_7_8.mp4"): "ambiguous",
        tree.put("user_4/video/unprocessed/Перевод_25-12-26_07-21.mp4"): "unmatched",
        tree.put("video/unprocessed/x_9.mp4"): "unmatched",
        tree.put("transcriptions/9/master.json"): "unmatched",
    }
    assert tree.plan() == plan
    assert tree.decided().columns == {}


def test_thumbnails_are_copied_where_they_are_no_copies_of_templates() -> None:
    tree = Tree(None)
    plan = {
        tree.put("templates/thumbnails/01.png", "one"): "copy shared/thumbnails/01.png",
        tree.put("templates/thumbnails/02.png", "two"): "copy shared/thumbnails/02.png",
        tree.put("user_4/thumbnails/01.png", "one"): "skip",
        tree.put("user_4/thumbnails/02.png", "owt"): "copy users/4/thumbnails/02.png",
        tree.put("user_4/thumbnails/03.png", "one"): "copy users/4/thumbnails/03.png",
        tree.put("user_5/thumbnails/own.png"): "copy users/5/thumbnails/own.png",
        tree.put("user_5/thumbnails/02.png", "twenty"): "copy users/5/thumbnails/02.png",
    }
    assert tree.plan() == plan
    assert b"user_5/thumbnails/02.png" not in tree.hashed  # its size tells
    tree.broken.add(b"user_4/thumbnails/01.png")
    assert tree.plan()["user_4/thumbnails/01.png"] == "unreadable"


def test_what_processing_left_is_skipped_unless_a_row_names_it() -> None:
    tree = Tree()
    left = tree.put("user_4/video/temp_processing/7.mp4")
    named = tree.put("user_4/video/temp_processing/8.mp4")
    legacy = tree.put("video/temp_processing/x/y.mp4")
    tree.row(7)
    tree.row(8, video=named)
    assert tree.plan() == {left: "skip", named: "ambiguous", legacy: "skip"}


def test_recordings_that_have_expired_are_skipped_whole() -> None:
    tree = Tree()
    skipped = [
        tree.put("user_4/audio/processed/a.mp3", "la"),
        tree.put("user_4/processed_audio/a.mp3", "lo"),
        tree.put("user_4/transcriptions/7/master.json"),
    ]
    tree.row(7, audio=skipped[0])
    tree.expired["4", "7"] = "its status is EXPIRED"
    assert tree.plan() == dict.fromkeys(skipped, "skip")
    assert tree.decided().columns == {}
    assert tree.hashed == []
    assert reason(tree, skipped[0]) == "recording 7 has expired: its status is EXPIRED"


def test_paths_that_name_nothing_are_told() -> None:
    tree = Tree()
    tree.put("user_4/transcriptions/8/master.json")
    tree.row(7, source="user_4/video/unprocessed/gone.mp4", transcription="user_4/transcriptions/7")
    tree.row(8, transcription="user_4/transcriptions")
    tree.decided()
    assert [(each.row.id, each.slot, each.reason) for each in tree.named.missing] == [
        ("7", SOURCE, "no such file"),
        ("7", TRANSCRIPTION, "no such directory"),
        ("8", TRANSCRIPTION, "a directory that many recordings have files in"),
    ]


def test_a_directory_in_another_belongs_to_the_inner_recording() -> None:
    tree = Tree()
    outer = tree.put("user_4/transcriptions/7/master.json")
    inner = tree.put("user_4/transcriptions/7/8/master.json")
    tree.row(7, transcription="user_4/transcriptions/7")
    tree.row(8, transcription="user_4/transcriptions/7/8")
    assert tree.plan() == {
        outer: "copy users/4/recordings/7/transcription/master.json",
        inner: "copy users/4/recordings/8/transcription/master.json",
    }


def test_targets_that_cannot_be_beside_each_other_are_left_to_a_person() -> None:
    tree = Tree()
    file = tree.put("user_4/transcripts/x", "a")
    below = tree.put("user_4/transcriptions/7/x/y")
    tree.row(7, transcription="user_4/transcripts")
    assert tree.plan() == {file: "ambiguous", below: "copy users/4/recordings/7/transcription/x/y"}
    assert reason(tree, file) == "its target users/4/recordings/7/transcription/x is a directory of other files"


def test_names_stay_within_what_a_file_system_takes() -> None:
    tree = Tree()
    name = "й" * 125 + ".json"
    newer = tree.put(f"user_4/transcriptions/7/{name}", "a", 2)
    older = tree.put(f"user_4/transcripts/{name}", "b", 1)
    deep = tree.put("user_4/transcriptions/7/" + "/".join(["d" * 200] * 20) + "/a")
    tree.row(7, transcription="user_4/transcripts")
    plan = tree.plan()
    assert plan[newer] == f"copy users/4/recordings/7/transcription/{name}"
    assert plan[deep].startswith("copy ") == (len(plan[deep]) <= 4095 + 5)
    beside = plan[older].rpartition("/")[2]
    assert beside.endswith(".older.json")
    assert len(beside.encode()) <= 255


def test_legacy_places_are_matched_by_the_database_alone() -> None:
    tree = Tree()
    source = tree.put("video/unprocessed/a.mp4")
    rest = tree.put("video/unprocessed/b.mp4")
    legacy = tree.put("transcriptions/7/master.json")
    stray = tree.put("notes.txt")
    tree.row(7, source=source, name="b")
    assert tree.plan() == {
        source: "copy users/4/recordings/7/source.mp4",
        rest: "unmatched",
        legacy: "copy users/4/recordings/7/transcription/master.json",
        stray: "unmatched",
    }


def test_rows_expire_by_status_or_date() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    words = frozenset({"expired"})
    assert Row("7", "4", "7", status=" Expired ").expired(now, words) == "its status is Expired"
    assert Row("7", "4", "7", expires=now).expired(now, words) == "it expired at 2026-11-30T00:00:00Z"
    assert Row("7", "4", "7", expires=datetime(2026, 12, 1, tzinfo=UTC)).expired(now, words) == ""
    assert Row("7", "4", "7", status="READY").expired(now, words) == ""


_STEMS = ["a", "a_processed", "recording_7", "recording_8", "7_8", "Йога"]
_PLACES = [
    *("user_4/video/unprocessed", "user_4/audio/processed", "user_4/processed_audio", "user_5/processed_audio"),
    *("user_5/audio/processed", "video/unprocessed", "user_4/video/temp_processing", "user_4/transcriptions/7"),
    *("user_4/transcriptions/7/8", "user_5/transcriptions/8", "templates/thumbnails", "user_4/thumbnails", "x"),
]


def a_platform(draw: random.Random) -> Tree:
    """A tree with whatever a database may say of it; many files of it are in each other's way."""
    tree = Tree(draw.choice([None, [], []]))
    for _ in range(draw.randrange(3, 17)):
        if draw.random() < 0.5:
            path = f"{draw.choice(_PLACES)}/{draw.choice(_STEMS)}.{draw.choice(('mp3', 'MP4'))}"
        else:
            path = f"{draw.choice(_PLACES[1:5])}/{draw.choice(_STEMS[:4])}.mp3"
        tree.put(path, draw.choice(("1", "2", "22")), draw.randrange(3))
    there = sorted(path.decode() for path in tree.files)
    named = [*there, *(path.rpartition("/")[0] for path in there), "user_4/gone.mp3"]
    if tree.rows is not None:
        for number in range(7, draw.randrange(8, 12)):
            slots = draw.sample(list(Slot), draw.randrange(4))
            paths = {slot: draw.choice(("", "/old/")) + draw.choice(named) for slot in slots}
            tree.rows.append(Row(str(number), draw.choice("45"), str(number), draw.choice(_STEMS), "READY", paths))
    return tree


@pytest.mark.parametrize("seed", range(4))
def test_whatever_there_is_every_file_has_one_line_and_every_target_one_file(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        hold(a_platform(draw))


def hold(tree: Tree) -> None:
    """Look after what is true of every plan."""
    decided = tree.decided()
    assert sorted(entry.source for entry in decided.entries) == sorted(tree.files)
    moved = {entry.target: entry for entry in decided.entries if entry.action in MOVED}
    assert len(moved) == sum(entry.action in MOVED for entry in decided.entries)
    for entry in decided.entries:
        assert entry.reason
        if entry.action in MOVED:
            role_of(tuple(entry.target.split(b"/")), is_dir=False)  # raises where a store has no such file
        elif entry.action is Action.DUPLICATE:
            assert tree.files[moved[entry.target].source][0] == tree.files[entry.source][0]
        else:
            assert not entry.target
        users = {part for part in (entry.source.split(b"/")[0],) if part.startswith(b"user_")}
        if entry.target.startswith(b"users/") and users:
            assert users == {b"user_" + entry.target.split(b"/")[1]}  # nobody's file comes to another user
    for where, columns in decided.columns.items():
        for column, path in columns.items():
            assert path.startswith(where.decode() + "/")
            assert path.encode() in moved or (
                column == "transcription_dir" and path == f"{where.decode()}/transcription"
            )
    parsed(Plan({}, decided.entries).lines())
    again = tree.decided()
    assert (again.entries, again.columns) == (decided.entries, decided.columns)
