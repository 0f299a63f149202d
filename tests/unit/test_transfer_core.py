"""What is decided of transfers: lines of SHA256SUMS, what may come in and where it goes, and the manifest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfs.core.life import Status
from recfs.core.migration import manifest as manifests
from recfs.core.migration.arrivals import arrival, check_link, is_part, parsed_user_map, part_name
from recfs.core.migration.manifest import Life, Manifest, User
from recfs.core.migration.sums import parsed_sum, sum_line
from recfs.errors import FsError, InvalidArgument, InvalidPath, NameTooLong, NotFound

ZERO = "0" * 64
NAMES = st.binary(min_size=1, max_size=40).map(lambda name: name.replace(b"\0", b"x").replace(b"/", b"x"))


@given(NAMES.filter(lambda name: not name.startswith(b"./")))
def test_a_line_of_sums_gives_the_name_back(name: bytes) -> None:
    line = sum_line(ZERO, name)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert parsed_sum(line) == (name, ZERO)


def test_sha256sum_reads_the_lines_and_writes_the_same(tmp_path: Path) -> None:
    names = [b"plain", b"two words", b"back\\slash", b"new\nline", b"return\r", b"\\n", b"\xff\xfe", "Перевод".encode()]
    for name in names:
        (tmp_path / name.decode("utf-8", "surrogateescape")).touch()
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    lines = b"".join(sum_line(digest, name) for name in names)
    written = subprocess.run(["sha256sum", "--", *names], cwd=tmp_path, check=True, capture_output=True).stdout
    assert lines == written
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict"], cwd=tmp_path, input=lines, check=False, capture_output=True
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(b": OK") == len(names)


@pytest.mark.parametrize(
    "line", [b"", b"abc  x", ZERO.encode() + b" x", b"\\" + ZERO.encode() + b"  a\\tb", ZERO.encode()]
)
def test_what_is_no_line_of_sums_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parsed_sum(line)


def test_line_ends_of_windows_are_told_and_a_name_that_ends_like_one_is_none() -> None:
    with pytest.raises(InvalidArgument, match="CRLF"):
        parsed_sum(ZERO.encode() + b"  users/4/x\r\n")
    assert parsed_sum(sum_line(ZERO, b"x\r")) == (b"x\r", ZERO)


def test_names_of_sums_are_below_the_tree_however_they_begin() -> None:
    assert parsed_sum(ZERO.encode() + b" *./users/4/x\n") == (b"users/4/x", ZERO)


@pytest.mark.parametrize(
    ("path", "is_dir", "parts"),
    [
        (b".", True, ()),
        (b"./users", True, (b"users",)),
        (b"users/4", True, (b"users", b"17")),
        (b"users/4/recordings/7/a/b.mp4", False, (b"users", b"17", b"recordings", b"7", b"a", b"b.mp4")),
        (b"users/5/thumbnails/x.png", False, (b"users", b"5", b"thumbnails", b"x.png")),
        (b"shared/4/x", False, (b"shared", b"4", b"x")),
    ],
)
def test_what_may_come_in_has_its_place(path: bytes, is_dir: bool, parts: tuple[bytes, ...]) -> None:
    assert arrival(path, is_dir=is_dir, user_map={"4": "17"}) == parts


@pytest.mark.parametrize(
    "path",
    [
        b"/users/4/recordings/7/x",
        b".//users/../x",
        b"users/4/recordings/7/../../../5/x",
        b"..",
        b"users/four/recordings/7/x",
        b"users/4/recordings/007/x",
        b"users/4/notes.txt",
        b"users/4/recordings/7/a//b",
        b"users/4/recordings/7/./b",
        b"users/4/recordings/7/a\0b",
        b"users/17/recordings/7/x",
        b"temp/4/1/x",
        b"video/x.mp4",
        b"users",
    ],
)
def test_what_has_no_place_does_not_come_in(path: bytes) -> None:
    with pytest.raises(InvalidPath):
        arrival(path, is_dir=False, user_map={"4": "17"})


def test_a_name_that_is_too_long_does_not_come_in() -> None:
    with pytest.raises(NameTooLong):
        arrival(b"shared/" + b"x" * 256, is_dir=False, user_map={})


@given(
    st.lists(st.sampled_from([b"..", b".", b"", b"users", b"4", b"recordings", b"7", b"x\xff", b"temp"]), max_size=8)
)
def test_whatever_comes_in_lies_in_users_or_shared(parts: list[bytes]) -> None:
    try:
        found = arrival(b"/".join(parts), is_dir=False, user_map={})
    except FsError:
        return
    assert found == () or (found[0] in (b"users", b"shared") and not {b"..", b".", b""} & set(found))


RECORDING = (b"users", b"4", b"recordings", b"7", b"l")


@pytest.mark.parametrize("target", [b"x", b"./a/../x", b"../8/x", b"../../thumbnails/x", b"a/b/../../../8"])
def test_links_inside_their_users_tree_come_in(target: bytes) -> None:
    check_link(RECORDING, target)


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../../5/x", b"a/../../../../../x", b"../../../../../../etc"])
def test_links_that_lead_out_do_not(target: bytes) -> None:
    with pytest.raises(InvalidPath):
        check_link(RECORDING, target)


def test_links_stay_in_shared_and_lead_somewhere() -> None:
    check_link((b"shared", b"l"), b"x")
    with pytest.raises(InvalidPath):
        check_link((b"shared", b"l"), b"../users/4/x")
    with pytest.raises(NotFound):
        check_link(RECORDING, b"")


def test_users_are_renamed_one_to_one() -> None:
    assert parsed_user_map(["4=17", "5=4", "4=17"]) == {"4": "17", "5": "4"}
    for wrong in (["4"], ["4=x"], ["x=4"], ["4=5", "4=6"], ["4=6", "5=6"], ["=4"]):
        with pytest.raises(InvalidArgument):
            parsed_user_map(wrong)


@given(NAMES.map(lambda name: name * 8).map(lambda name: name[:255]))
def test_what_is_being_written_has_a_name_of_its_own(name: bytes) -> None:
    part = part_name(name)
    assert len(part) <= 255
    assert is_part(part)
    assert part != name
    assert part.startswith(b"."), "recfs does not upload what is still being written"


def test_long_names_that_begin_the_same_are_written_apart() -> None:
    assert part_name(b"x" * 254 + b"a") != part_name(b"x" * 254 + b"b")


FULL = Manifest(
    "1.0.0",
    123,
    {"4": User({"max_bytes": 5, "max_files": "unlimited"}, 10004, 10004, 0o2770), "5": User()},
    {"users/4/recordings/7": Life(Status.EXPIRED, 1, 2, True, "note", "root"), "users/4/recordings/8": Life()},
    {b"users/4/recordings/7/\xff": {b"user.a\xfe": b"\0\xff"}},
)


def test_a_manifest_gives_back_what_it_was_made_of() -> None:
    text = FULL.text()
    assert text.isascii()
    assert manifests.parsed(text) == FULL


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_a_manifest_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        manifests.parsed(text)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["format"], 2),
        (["users"], []),
        (["users", "../4"], {}),
        (["users", "4", "limits", "max_bytes"], -1),
        (["users", "4", "limits", "max_bytes"], True),
        (["users", "4", "limits", "used_bytes"], 1),
        (["users", "4", "uid"], 1 << 32),
        (["users", "4", "mode"], "rwx"),
        (["recordings", "users/4"], {}),
        (["recordings", "users/4/recordings/../../5/recordings/7"], {}),
        (["recordings", "temp/4/recordings/7"], {}),
        (["recordings", "users/4/recordings/7", "status"], "gone"),
        (["recordings", "users/4/recordings/7", "keep"], 1),
        (["recordings", "users/4/recordings/7", "expires_at_ns"], "soon"),
        (["recordings", "users/4/recordings/7", "note"], ["x"]),
        (["attributes", "x", "user.a"], "no base64!"),
        (["attributes", "x", "user.a"], None),
    ],
)
def test_each_value_of_a_manifest_is_looked_at(keys: list[str], value: object) -> None:
    document = json.loads(FULL.text())
    place = document
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    with pytest.raises(InvalidArgument):
        manifests.parsed(json.dumps(document))


def test_deep_json_is_no_manifest() -> None:
    with pytest.raises(InvalidArgument):
        manifests.parsed("[" * 100_000)


def test_what_a_manifest_says_of_others_stays() -> None:
    left = FULL.without(b"users/4/recordings/7")
    assert set(left.recordings) == {"users/4/recordings/8"}
    assert not left.attributes
    assert set(left.users) == {"4", "5"}
    assert set(FULL.without(b"users/4").users) == {"5"}
    assert not FULL.without(b"users/4").recordings


def test_attributes_that_set_limits_are_not_a_files_own() -> None:
    assert manifests.is_own_attribute(b"user.title")
    for name in (b"user.recfs.quota.max_bytes", b"user.", b"trusted.x", b"security.capability", b"user.a\0b"):
        assert not manifests.is_own_attribute(name)
