"""A minute of the race fuzzer; `scripts/fuzz` goes on for longer."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.harness import remove_tree
from tests.fuzz.clients import SIZE, expected, is_foreign
from tests.fuzz.fuzz import Plan, play
from tests.helpers.machine import skip


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory where stores are made."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix=f"recfs-fuzz-{os.getpid()}-", dir=memory if memory.is_dir() else None))
    path.chmod(0o755)
    yield path
    remove_tree(path)


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("mode", "s3"), [("auto", False), ("read", True), ("off", False)], ids=["auto", "S3", "off"])
def test_nothing_is_lost_or_left_behind_where_many_use_the_same_names(base: Path, mode: str, s3: bool) -> None:
    """Root and a user, with a daemon that pauses at its awaits, and another seed each time."""
    if os.geteuid():
        skip("needs root")
    plan = Plan(seed=random.randrange(1 << 30), mode=mode, clients=6, seconds=8.0, s3=s3)
    wrong, done = play(base / "round", plan)
    assert not wrong, f"{plan}:\n" + "\n".join(wrong)
    assert done["acts"] > 100


def test_a_foreign_byte_is_found() -> None:
    """The bytes that all write are told from others wherever they lie; holes are as good."""
    for offset in (0, 1, 511, 512, 100_000):
        right = bytearray(expected(offset, 2000))
        assert not is_foreign(bytes(right), offset)
        assert not is_foreign(bytes(700) + right[700:], offset)
        assert not is_foreign(right[:700] + bytes(1300), offset)
        for place in (0, 700, 1999):
            other = bytearray(right)
            other[place] ^= 0x55
            assert is_foreign(bytes(other), offset), (offset, place)
    assert is_foreign(expected(512, 10), 0)
    assert len(expected(SIZE, 512)) == 512
