"""Byte strings packed into one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.disk.packing import packed, unpacked


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=20), max_size=5))
def test_they_come_back_and_equal_ones_look_equal(pairs: dict[bytes, bytes]) -> None:
    assert unpacked(packed(pairs)) == pairs
    assert packed(dict(reversed(pairs.items()))) == packed(pairs)


@pytest.mark.parametrize("cut", range(1, len(packed({b"name": b"value"}))))
def test_what_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"cut off|without a value"):
        unpacked(packed({b"name": b"value"})[:cut])
