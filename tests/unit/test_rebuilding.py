"""What a rebuild makes of a file."""

import pytest

from recfs.core.ownership import Mark
from recfs.core.upkeep.rebuilding import (
    Content,
    Identity,
    Verdict,
    believes,
    identity_of,
    judge,
    owner_in,
    place_of,
)

A, B = b"a" * 32, b"b" * 32
LOCAL = Content(4, 100, A)


@pytest.mark.parametrize(
    ("far", "verdict"),
    [
        (None, Verdict.ALONE),
        (Content(4, 100, A), Verdict.SAME),
        (Content(4, 99, A), Verdict.SAME),
        (Content(5, 100, A), Verdict.NEWER),
        (Content(4, 99, B), Verdict.NEWER),
        (Content(4, 101, B), Verdict.NEWER),
        (Content(4, 100, B), Verdict.DAMAGED),
    ],
)
def test_which_bytes_count(far: Content | None, verdict: Verdict) -> None:
    assert judge(LOCAL, far) is verdict


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        (None, False),
        (Content(4, 100, B), True),
        (Content(4, 100, None), False),
        (Content(5, 100, A), False),
        (Content(4, 101, A), False),
    ],
)
def test_whose_checksum_is_believed(told: Content | None, believed: bool) -> None:
    assert believes(Content(4, 100, None), told) is believed


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("users/5/recordings/142/file", b"users/5/recordings/142/file"),
        ("shared/logo.png", b"shared/logo.png"),
        ("users/5/recordings/142/\uf7fc", b"users/5/recordings/142/\xfc"),
        ("users/5/recordings/142/", None),
        ("users/5/recordings/142//file", None),
        ("users/5/recordings/142/../file", None),
        ("users/5/recordings/142/back\\slash", None),
        ("users/5/file", None),
        ("users/nobody/recordings/1/file", None),
        (".recfs/store.json", None),
        ("", None),
        ("/users/5/recordings/142/file", None),
        ("users/5/recordings/142/" + "x" * 256, None),
    ],
)
def test_which_keys_are_those_of_files(key: str, path: bytes | None) -> None:
    found = place_of(key)
    assert (found if found is None else b"/".join(found)) == path


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("1005:1006", (1005, 1006)), ("0:0", (0, 0)), (None, None), ("", None), ("1005", None), ("-1:5", None),
        ("root:root", None), ("1:2:3", None), ("\u0661:1", None), ("99999999999:1", None),
        ("4294967295:1", None), ("4294967294:4294967294", (4294967294, 4294967294)),
    ],
)  # fmt: skip
def test_an_owner_in_metadata(text: str | None, owner: tuple[int, int] | None) -> None:
    assert owner_in(text) == owner


MARK = Mark("id", "token", "host", "/root", "2026")


@pytest.mark.parametrize(
    ("old", "mark", "host", "identity"),
    [
        (None, None, "host", Identity(None, "", False)),
        ("id", None, "host", Identity("id", "t", False)),
        ("id", MARK, "other", Identity("id", "t", False)),
        ("another", MARK, "host", Identity("another", "t", True)),
        (None, MARK, "host", Identity("id", "token", False)),
        (None, MARK, "other", Identity(None, "", True)),
    ],
)
def test_whose_the_bucket_is(old: str | None, mark: Mark | None, host: str, identity: Identity) -> None:
    assert identity_of(old, "t" if old else "", mark, "/root", host) == identity
