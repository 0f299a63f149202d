"""scripts/old-tree: that the tree is what its truth says, has all kinds, is real media, and is the same for a seed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from recfs.core.migration.plan import MOVED, Action, Entry, Plan
from scripts.old_tree_lib import media, names
from scripts.old_tree_lib.accounts import plan_differences, store_differences
from scripts.old_tree_lib.stories import ODD
from scripts.old_tree_lib.tree import Wishes, make
from scripts.old_tree_lib.truth import Truth

ROOT = Path(__file__).parents[2]
SMALL = Wishes(users=3, recordings=len(ODD) + 5, seed=5, large=1, large_mb=1, picture_width=16)
KINDS = {
    "plain",
    "same twice",
    "absolute",
    "moved base",
    "prefixed",
    "row in NFD",
    "disk in NFD",
    "row in mojibake",
    "disk in mojibake",
    "disk in Windows-1251",
    "differ by case",
    "differ by form",
    "255 bytes",
    "odd characters",
    "id in the name",
    "title in the name",
    "title of two",
    "transcription by id",
    "named by two rows",
    "differing audio",
    "hard link",
    "expired",
    "expires later",
    "cut off",
    "1970",
    "2040",
    "link",
    "pipe",
    "mode 000",
    "other ending",
    "template",
    "copy of a template",
    "temporary",
    "large",
    "legacy",
    "no row",
}

pytestmark = [pytest.mark.needs("ffmpeg"), pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    """A tree, not to be changed."""
    base = tmp_path_factory.mktemp("old")
    return base / "media", make(base / "media", base / "outside", SMALL)


def names_below(top: Path) -> set[bytes]:
    """Every name that is no directory, relative to *top*; links are not followed."""
    return {
        os.path.relpath(os.path.join(folder, name), os.fsencode(top))
        for folder, folders, files in os.walk(os.fsencode(top))
        for name in (*files, *(each for each in folders if os.path.islink(os.path.join(folder, each))))
    }


def test_the_truth_names_every_file_and_its_bytes(made: tuple[Path, Truth]) -> None:
    old, truth = made
    assert len({file.source for file in truth.files}) == len(truth.files)
    assert {file.source for file in truth.files} == names_below(old) - {b"data.db"}
    for file in truth.files:
        found = os.lstat(os.path.join(os.fsencode(old), file.source))
        if not stat.S_ISREG(found.st_mode):
            assert (file.becomes, file.sha256) == (Action.UNREADABLE, "")
        elif stat.S_IMODE(found.st_mode):
            data = Path(os.fsdecode(os.path.join(os.fsencode(old), file.source))).read_bytes()
            assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
            assert file.mtime_ns == found.st_mtime_ns


def test_every_kind_is_there(made: tuple[Path, Truth]) -> None:
    _, truth = made
    assert truth.kinds().keys() >= KINDS
    assert {file.becomes for file in truth.files} == set(Action)
    assert set(truth.missing.values()) == {"row without files"}
    assert truth.expired
    assert truth.expiries
    years = {file.mtime_ns // (365 * 86400 * 10**9) for file in truth.files if file.kind in ("1970", "2040")}
    assert years == {0, 70}
    assert max(len(file.source.rpartition(b"/")[2]) for file in truth.files) in (254, 255)


def test_what_is_copied_has_a_target_of_its_own_and_duplicates_share_one(made: tuple[Path, Truth]) -> None:
    _, truth = made
    targets = {file.target: file for file in truth.files if file.becomes is Action.COPY}
    assert len(targets) == truth.counts()[Action.COPY][0]
    for file in truth.files:
        if file.becomes is Action.DUPLICATE:
            assert targets[file.target].sha256 == file.sha256
        elif file.becomes in (Action.SKIP, Action.UNMATCHED, Action.AMBIGUOUS, Action.UNREADABLE):
            assert file.target == b""
    copies = [file.sha256 for file in targets.values()]
    assert len(copies) == len(set(copies)), "each has bytes of its own"


def test_the_truth_survives_its_file(made: tuple[Path, Truth], tmp_path: Path) -> None:
    _, truth = made
    truth.write(tmp_path / "truth.json")
    assert Truth.read(tmp_path / "truth.json") == truth
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="not the truth"):
        Truth.read(tmp_path / "other.json")


def test_nothing_that_is_there_is_written_over_or_through(made: tuple[Path, Truth], tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "media.truth.json").symlink_to(precious)
    with pytest.raises(FileExistsError):
        made[1].write(tmp_path / "media.truth.json")
    (tmp_path / "away").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "away")
    for name in ("media", "linked"):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/old-tree", tmp_path / name], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1, done.stderr
    assert precious.read_text() == "mine"
    assert not list((tmp_path / "away").iterdir())


def test_the_database_has_a_row_for_every_recording(made: tuple[Path, Truth]) -> None:
    old, truth = made
    connection = sqlite3.connect(old / "data.db")
    try:
        rows = connection.execute("SELECT user_id, id, status, expire_at FROM recordings").fetchall()
        paths = [path for (path,) in connection.execute("SELECT local_video_path FROM recordings") if path]
    finally:
        connection.close()
    recordings = {f"users/{user}/recordings/{number}" for user, number, _, _ in rows}
    for file in truth.files:
        if b"/recordings/" in file.target:
            assert "/".join(os.fsdecode(file.target).split("/")[:4]) in recordings
    assert truth.expiries.keys() | truth.expired <= recordings
    assert {path.split("/")[0] for path in paths} >= {"", "media", "video"}, "absolute, prefixed, legacy"
    assert any(names.composed(path) != path for path in paths)


def as_planned(truth: Truth) -> Plan:
    """The plan that the truth wants."""
    aside = {file.source: b"audio.1.mp3" for file in truth.files if file.becomes is Action.ASIDE}
    entries = [
        Entry(file.becomes, file.size, file.target + aside.get(file.source, b""), file.source, "")
        for file in truth.files
    ]
    return Plan({}, [*entries, Entry(Action.SKIP, 1, b"", b"data.db", "the database")])


def test_a_plan_is_held_to_the_truth(made: tuple[Path, Truth]) -> None:
    _, truth = made
    plan = as_planned(truth)
    assert plan_differences(truth, plan) == []
    one_of_each = {file.becomes: index for index, file in enumerate(truth.files)}
    assert one_of_each.keys() == set(Action)
    for index in one_of_each.values():
        entry = plan.entries[index]
        spoiled = [replace(entry, source=b"elsewhere"), replace(entry, action=Action.SKIP, target=b"")]
        if entry.target:
            spoiled.append(replace(entry, target=b"shared/elsewhere"))
        for each in spoiled:
            if each != entry:
                entries = [*plan.entries[:index], each, *plan.entries[index + 1 :]]
                assert plan_differences(truth, Plan({}, entries)), each
        assert plan_differences(truth, Plan({}, [*plan.entries, entry]))


def test_a_store_is_held_to_the_truth(made: tuple[Path, Truth], tmp_path: Path) -> None:
    old, truth = made
    plan = as_planned(truth)
    moved = [entry for entry in plan.entries if entry.action in MOVED]
    for entry in moved:
        target = tmp_path / os.fsdecode(entry.target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(old / os.fsdecode(entry.source), target)
    assert store_differences(truth, plan, tmp_path) == []
    first, second, third = (tmp_path / os.fsdecode(entry.target) for entry in moved[:3])
    times = second.stat()
    second.write_bytes(second.read_bytes()[::-1])
    os.utime(second, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(third, ns=(0, 1))
    first.rename(tmp_path / "shared/strange")
    names_of = [os.fsdecode(entry.target) for entry in moved[:3]]
    kinds = ["is not in the store", "has other bytes", "has another time"]
    found = store_differences(truth, plan, tmp_path)
    assert found[0] == "shared/strange is in the store, and nobody wanted it"
    assert [line.split(" (")[0] for line in found[1:]] == names_of
    assert [line.rpartition(") ")[2] for line in found[1:]] == kinds


def test_the_files_can_be_played(made: tuple[Path, Truth], tmp_path: Path) -> None:
    old, truth = made
    damaged = {"cut off", "temporary", "mode 000"}
    wanted: dict[bytes, Path] = {}
    for file in truth.files:
        end = file.source.rpartition(b".")[2]
        if file.sha256 and file.kind not in damaged and end != b"json":
            wanted[end] = old / os.fsdecode(file.source)
    assert wanted.keys() == {b"mp4", b"mkv", b"mp3", b"png"}
    marked = tmp_path / "own.png"
    marked.write_bytes(media.marked_png(wanted[b"png"].read_bytes(), b"mine"))
    for path in (*wanted.values(), marked):
        command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{path}", "-f", "null", "-"]
        played = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (played.returncode, played.stderr) == (0, ""), path


def test_a_seed_makes_the_same_tree_and_another_one_a_different_tree(made: tuple[Path, Truth], tmp_path: Path) -> None:
    old, _ = made
    script: list[str | Path] = [
        sys.executable,
        ROOT / "scripts/old-tree",
        "--users=3",
        f"--recordings={SMALL.recordings}",
    ]
    script += ["--large=1", "--large-mb=1", "--picture-width=16"]
    kept = {}
    for seed in ("5", "6"):
        dest = tmp_path / seed / "media"
        done = subprocess.run([*script, "--seed", seed, dest], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        truth = Truth.read(tmp_path / seed / "media.truth.json")
        assert f"{len(truth.files):,} files of 3 users" in done.stdout
        kept[seed] = {(file.source, file.sha256, file.becomes, file.target, file.mtime_ns) for file in truth.files}
    again = Truth.read(tmp_path / "5/media.truth.json")
    assert kept["5"] == {(f.source, f.sha256, f.becomes, f.target, f.mtime_ns) for f in made[1].files}
    assert kept["5"] != kept["6"]
    assert names_below(old) == names_below(tmp_path / "5/media")
    refused = subprocess.run([*script, tmp_path / "5/media"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "is there already, and is not empty" in refused.stderr
    assert json.loads((tmp_path / "5/media.truth.json").read_text())["old"] == os.fsdecode(again.old)
