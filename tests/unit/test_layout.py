"""core/layout.py: what the tree allows where."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.layout import (
    TOP_DIRS,
    Role,
    child_role,
    is_fixed,
    is_id,
    is_upload,
    owner_of,
    role_of,
)
from recfs.errors import InvalidPath, NameTooLong

UUID = b"0b7d6c1e-5a0f-4f6e-9c7b-2f1f0a6f3d10"
FIXED_LEVELS = (
    Role.ROOT,
    Role.USERS_TOP,
    Role.USER,
    Role.USER_RECORDINGS,
    Role.TEMP_TOP,
    Role.TEMP_USER,
)
FREE_LEVELS = tuple(role for role in Role if role not in FIXED_LEVELS)

names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
likely_ids = st.one_of(
    st.uuids().map(lambda value: str(value).encode()),
    st.uuids().map(lambda value: str(value).upper().encode()),
    st.uuids().map(lambda value: value.hex.encode()),
    st.uuids().map(lambda value: b"{" + str(value).encode() + b"}"),
    st.integers(-5, 10**22).map(lambda value: str(value).encode()),
    st.text("0123456789", min_size=1, max_size=25).map(str.encode),
    st.text("0123456789abcdefABCDEFg-", max_size=40).map(str.encode),
    st.text("0123456789abcdef-", min_size=36, max_size=36).map(str.encode),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
)


def is_id_by_the_book(name: bytes) -> bool:
    """Say the same with the tools of the standard library: printing what was parsed gives the name back."""
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        return False
    for parse in (int, uuid.UUID):
        try:
            value = parse(text)
        except ValueError:
            continue
        if str(value) == text.lower():
            return not isinstance(value, int) or (value >= 0 and len(text) <= 20)
    return False


@given(likely_ids)
def test_is_id_agrees_with_int_and_the_uuid_module(name: bytes) -> None:
    assert is_id(name) == is_id_by_the_book(name)


@given(st.uuids(), st.integers(0, 10**20 - 1))
def test_every_uuid_and_integer_is_an_id(value: uuid.UUID, number: int) -> None:
    assert is_id(str(value).encode())
    assert is_id(str(value).upper().encode())
    assert is_id(str(number).encode())


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"",
            b"00",
            b"007",
            b"-1",
            b"+1",
            b"1.0",
            b" 1",
            b"1\n",
            b"1_000",
            b"0x1",
            b"9" * 21,
            b"\xb2",
            b"a",
        ),
        *("٣".encode(), b"-" * 36, UUID + b"\n", UUID[:-1], UUID + b"0", UUID.replace(b"-", b"")),
        UUID.replace(b"0", b"g"),
    ],
)
def test_not_an_id(name: bytes) -> None:
    assert not is_id(name)


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("", Role.ROOT),
        ("shared", Role.SHARED_TOP),
        ("shared/thumbnails", Role.SHARED_DIR),
        ("shared/thumbnails/deep/er", Role.SHARED_DIR),
        ("users", Role.USERS_TOP),
        ("users/5", Role.USER),
        (f"users/{UUID.decode()}", Role.USER),
        ("users/5/thumbnails", Role.USER_THUMBNAILS),
        ("users/5/thumbnails/old", Role.INSIDE),
        ("users/5/recordings", Role.USER_RECORDINGS),
        ("users/5/recordings/142", Role.RECORDING),
        ("users/5/recordings/142/assets", Role.INSIDE),
        ("users/5/recordings/142/a/b/recordings", Role.INSIDE),
        ("temp", Role.TEMP_TOP),
        ("temp/5", Role.TEMP_USER),
        ("temp/5/77", Role.JOB),
        (f"temp/5/{UUID.decode()}", Role.JOB),
        ("temp/5/77/frames", Role.INSIDE),
    ],
)
def test_the_role_of_a_directory(path: str, role: Role) -> None:
    assert role_of(tuple(path.encode().split(b"/")) if path else ()) is role


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("shared/logo.png", Role.SHARED_DIR),
        ("users/5/thumbnails/a.png", Role.INSIDE),
        ("users/5/recordings/142/source.mp4", Role.INSIDE),
        ("temp/5/77/x", Role.INSIDE),
    ],
)
def test_files_may_be_in_the_free_levels(path: str, role: Role) -> None:
    assert role_of(tuple(path.encode().split(b"/")), is_dir=False) is role


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("other", "shared, users and temp"),
        ("users/jane", "user id"),
        ("users/5/videos", "thumbnails and recordings"),
        ("users/5/recordings/take 1", "recording id"),
        ("temp/jane", "user id"),
        ("temp/5/render", "job directories"),
        ("users/05", "user id"),
    ],
)
def test_a_refused_directory_is_told_the_rule(path: str, says: str) -> None:
    with pytest.raises(InvalidPath, match=says):
        role_of(tuple(path.encode().split(b"/")))


@given(
    st.sampled_from(FIXED_LEVELS),
    names | st.sampled_from([*TOP_DIRS, b"5", UUID, b"thumbnails", b"recordings"]),
)
def test_a_fixed_level_never_takes_a_file(parent: Role, name: bytes) -> None:
    with pytest.raises(InvalidPath):
        child_role(parent, name, is_dir=False)


@given(st.sampled_from([role for role in FIXED_LEVELS if role not in (Role.ROOT, Role.USER)]), names | likely_ids)
def test_an_id_level_takes_exactly_the_directories_named_by_an_id(parent: Role, name: bytes) -> None:
    if is_id(name):
        assert child_role(parent, name, is_dir=True) in (Role.USER, Role.RECORDING, Role.TEMP_USER, Role.JOB)
    else:
        with pytest.raises(InvalidPath):
            child_role(parent, name, is_dir=True)


@given(st.sampled_from(FREE_LEVELS), names, st.booleans())
def test_a_free_level_takes_any_name(parent: Role, name: bytes, is_dir: bool) -> None:
    shared = parent in (Role.SHARED_TOP, Role.SHARED_DIR)
    assert child_role(parent, name, is_dir=is_dir) is (Role.SHARED_DIR if shared else Role.INSIDE)


@pytest.mark.parametrize("parent", list(Role))
@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"/", b"5/"])
def test_what_is_no_name_is_refused_everywhere(parent: Role, name: bytes) -> None:
    with pytest.raises(InvalidPath):
        child_role(parent, name, is_dir=True)


@pytest.mark.parametrize("parent", list(Role))
def test_256_bytes_are_too_long_everywhere(parent: Role) -> None:
    with pytest.raises(NameTooLong):
        child_role(parent, b"x" * 256, is_dir=True)


def test_255_bytes_and_odd_names_are_fine() -> None:
    for name in (b"x" * 255, b"\xff\xfe", b"a\nb", b"...", b".a", b" "):
        assert child_role(Role.RECORDING, name, is_dir=False) is Role.INSIDE


def test_only_the_top_directories_and_the_root_are_fixed() -> None:
    assert {role for role in Role if is_fixed(role)} == {Role.ROOT, *TOP_DIRS.values()}


@pytest.mark.parametrize(
    ("parent", "name", "counts"),
    [
        (Role.RECORDING, b"source.mp4", True),
        (Role.RECORDING, b"source.\xff", True),
        (Role.RECORDING, b"source.", False),
        (Role.RECORDING, b"source", False),
        (Role.RECORDING, b"source.mp4.part", False),
        (Role.RECORDING, b"Source.mp4", False),
        (Role.RECORDING, b".source.mp4", False),
        (Role.RECORDING, b"video.mp4", False),
        (Role.INSIDE, b"source.mp4", False),
        (Role.JOB, b"source.mp4", False),
    ],
)
def test_what_counts_as_an_upload(parent: Role, name: bytes, counts: bool) -> None:
    assert is_upload(parent, name) is counts


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ((), None),
        ((b"users",), None),
        ((b"users", b"5"), "5"),
        ((b"users", UUID, b"recordings", b"\xff"), UUID.decode()),
        ((b"temp", b"5", b"77"), "5"),
        ((b"temp",), None),
        ((b"shared", b"5"), None),
        ((b"users", b"\xff"), None),
    ],
)
def test_who_is_charged(path: tuple[bytes, ...], owner: str | None) -> None:
    assert owner_of(path) == owner
