"""core/naming.py: which names programs write under before they rename."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.naming import is_temporary_name


@pytest.mark.parametrize(
    "name",
    [
        *(b".source.mp4.Ab3dEf", b".hidden", b".", b".tmp"),
        *(b"source.mp4.tmp", b"source.mp4.part", b"source.partial", b"source.mp4.crdownload", b"notes.txt~", b"~"),
        *(b"SOURCE.TMP", b"source.Part", b"\xff\xfe.tmp"),
    ],
)
def test_temporary(name: bytes) -> None:
    assert is_temporary_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(b"source.mp4", b"a.tmp.mp4", b"tmp", b"part", b"source.parts", b"a~b", b"~notes", b"x.part1"),
        *(b"source.Ab3dEf", b"template", b"\xff", b"a."),
    ],
)
def test_final(name: bytes) -> None:
    assert not is_temporary_name(name)


@given(st.binary(min_size=1, max_size=40))
def test_what_comes_before_the_ending_does_not_matter(name: bytes) -> None:
    for ending in (b".tmp", b".part", b".partial", b".crdownload", b"~"):
        assert is_temporary_name(name + ending)
    assert is_temporary_name(b"." + name)


@given(st.binary(max_size=40))
def test_a_final_ending_makes_a_final_name(name: bytes) -> None:
    assert not is_temporary_name(b"a" + name + b".mp4")
