"""tier/downloads/: which blocks are here, what is read ahead, whose request is next (extents, fetchslots)."""

from __future__ import annotations

import pytest

from recfs.tier.downloads.extents import MAX_STREAMS, MIN_WINDOW_BYTES, NEAR_BYTES, Blocks, ReadAhead
from recfs.tier.downloads.fetchslots import FIRST_REQUEST_BYTES, FetchSlots

MIB = 1 << 20


# --- blocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length", "blocks"),
    [
        (0, 1, (0, 1)),
        (0, 10, (0, 1)),
        (0, 11, (0, 2)),
        (9, 1, (0, 1)),
        (9, 2, (0, 2)),
        (10, 10, (1, 2)),
        (24, 1, (2, 3)),
        (20, 100, (2, 3)),
        (0, 10**15, (0, 3)),
        (25, 1, (0, 0)),
        (10**15, 5, (0, 0)),
        (3, 0, (0, 0)),
    ],
)
def test_the_blocks_of_a_range(offset: int, length: int, blocks: tuple[int, int]) -> None:
    assert Blocks(25, 10).covering(offset, length) == blocks


def test_negative_ranges_and_sizes_make_no_sense() -> None:
    for offset, length in ((-1, 5), (0, -1)):
        with pytest.raises(ValueError):
            Blocks(25, 10).covering(offset, length)
    for size, block in ((-1, 10), (5, 0)):
        with pytest.raises(ValueError):
            Blocks(size, block)


def test_an_empty_file_is_complete() -> None:
    blocks = Blocks(0, 10)
    assert blocks.complete
    assert blocks.count == 0
    assert blocks.first_absent(0, 0) is None


def test_a_block_comes_and_is_there_or_is_lost() -> None:
    blocks = Blocks(25, 10)
    blocks.coming(1, 3)
    assert not blocks.has(1, 2)
    assert blocks.first_absent(1, 3) is None
    blocks.lost(1, 2)
    assert blocks.first_absent(1, 3) == 1
    blocks.arrived(2, 3)
    assert blocks.has(2, 3)
    assert blocks.present_bytes == 5
    assert blocks.span(2, 3) == (20, 5)
    with pytest.raises(AssertionError):
        blocks.coming(2, 3)  # nothing is asked for twice
    with pytest.raises(AssertionError):
        blocks.arrived(0, 1)  # nothing is present that was not asked for
    blocks.coming(0, 2)
    blocks.arrived(0, 2)
    assert blocks.complete


def test_absent_blocks_end_at_those_present_and_those_coming() -> None:
    blocks = Blocks(100, 10)
    blocks.coming(3, 4)
    blocks.coming(6, 7)
    blocks.arrived(6, 7)
    assert blocks.absent_end(0, 10) == 3
    assert blocks.absent_end(4, 10) == 6
    assert blocks.absent_end(7, 10) == 10
    assert blocks.absent_end(0, 2) == 2


# --- read-ahead ---------------------------------------------------------------------------------------------------


def test_a_first_read_promises_nothing_and_a_second_one_does() -> None:
    ahead = ReadAhead(64 * MIB)
    first = ahead.note(5 * MIB, 5 * MIB + 1000)
    assert ahead.window(first) == 0
    second = ahead.note(5 * MIB + 1000, 5 * MIB + 2000)
    assert second is first
    assert ahead.window(second) == MIN_WINDOW_BYTES


def test_the_window_grows_with_what_was_read_up_to_the_maximum() -> None:
    ahead = ReadAhead(20 * MIB)
    windows = []
    for n in range(16):
        stream = ahead.note(n * MIB, (n + 1) * MIB)
        windows.append(ahead.window(stream))
    assert windows[0] == 0
    assert windows[1:10] == [2 * n * MIB for n in range(2, 11)]
    assert set(windows[10:]) == {20 * MIB}


def test_a_jump_starts_another_stream() -> None:
    ahead = ReadAhead(64 * MIB)
    for n in range(10):
        ahead.note(n * MIB, (n + 1) * MIB)
    jumped = ahead.note(500 * MIB, 501 * MIB)
    assert ahead.window(jumped) == 0
    assert next(iter(ahead)) is jumped
    back = ahead.note(10 * MIB, 11 * MIB)
    assert ahead.window(back) == 22 * MIB  # the first reader was not forgotten
    assert list(ahead) == [back, jumped]


def test_reads_out_of_order_and_small_skips_are_one_stream() -> None:
    ahead = ReadAhead(64 * MIB)
    step = 128 << 10
    streams = {id(ahead.note(n * step, (n + 1) * step)) for n in (0, 3, 1, 2, 5, 4, 7, 6)}
    assert len(streams) == 1
    (stream,) = ahead
    assert stream.position == 8 * step
    assert stream.run_bytes == 4 * step  # what was skipped is not what was read
    ahead.note(stream.position + NEAR_BYTES, stream.position + NEAR_BYTES + 10)
    assert len(list(ahead)) == 1
    ahead.note(stream.position + NEAR_BYTES + 1, stream.position + NEAR_BYTES + 10)
    assert len(list(ahead)) == 2


def test_the_streams_kept_are_few_and_the_latest() -> None:
    ahead = ReadAhead(64 * MIB)
    for n in range(3 * MAX_STREAMS):
        ahead.note(n * 10 * MIB, n * 10 * MIB + 1)
    positions = [stream.position for stream in ahead]
    assert positions == [n * 10 * MIB + 1 for n in reversed(range(2 * MAX_STREAMS, 3 * MAX_STREAMS))]
    ahead.forget()
    assert not list(ahead)


# --- slots --------------------------------------------------------------------------------------------------------


class Asker:
    """Takes one slot each time it is called, as long as it wants some."""

    def __init__(self, slots: FetchSlots, name: str, served: list[str], *, urgent: bool, wants: int = 1) -> None:
        self._slots, self._name, self._served = slots, name, served
        self._urgent, self.wants = urgent, wants

    def __call__(self) -> None:
        while self.wants and self._slots.take(self, urgent=self._urgent):
            self.wants -= 1
            self._served.append(self._name)


def test_readers_come_before_read_ahead_and_each_in_turn() -> None:
    slots, served = FetchSlots(2, reserved=0), list[str]()
    assert slots.take(lambda: None, urgent=False)
    assert slots.take(lambda: None, urgent=False)
    ahead_a = Asker(slots, "ahead a", served, urgent=False, wants=2)
    ahead_b = Asker(slots, "ahead b", served, urgent=False, wants=2)
    reader_a = Asker(slots, "reader a", served, urgent=True, wants=2)
    reader_b = Asker(slots, "reader b", served, urgent=True)
    for asker in (ahead_a, ahead_b, reader_a, reader_b):
        asker()
        assert slots.waits(asker)
    for _ in range(7):
        slots.give_back()
    assert served == ["reader a", "reader b", "reader a", "ahead a", "ahead b", "ahead a", "ahead b"]


def test_read_ahead_leaves_slots_to_readers() -> None:
    slots, served = FetchSlots(8), list[str]()
    ahead = Asker(slots, "ahead", served, urgent=False, wants=100)
    ahead()
    assert len(served) == 6
    reader = Asker(slots, "reader", served, urgent=True, wants=100)
    reader()
    assert served[6:] == ["reader", "reader"]
    slots.give_back()
    assert served[8:] == ["reader"]


def test_who_wants_nothing_any_more_is_passed_over() -> None:
    slots, served = FetchSlots(1), list[str]()
    assert slots.take(lambda: None, urgent=True)
    gone, left, last = (Asker(slots, name, served, urgent=True) for name in ("gone", "left", "last"))
    for asker in (gone, left, last):
        asker()
    gone.wants = 0
    slots.forget(left)
    assert not slots.waits(left)
    slots.give_back()
    assert served == ["last"]


def test_there_is_a_slot_for_read_ahead() -> None:
    assert FetchSlots(1).take(lambda: None, urgent=False)
    for total, reserved in ((0, 0), (4, 4)):
        with pytest.raises(ValueError):
            FetchSlots(total, reserved)


def test_requests_are_no_larger_than_the_connection_carries_in_two_seconds() -> None:
    slots = FetchSlots(8)
    assert slots.sensible_bytes() == FIRST_REQUEST_BYTES
    slots.learn(100, 1.0)
    slots.learn(MIB, 0.0)
    assert slots.sensible_bytes() == FIRST_REQUEST_BYTES  # neither says anything
    slots.learn(MIB, 0.5)
    assert slots.sensible_bytes() == 4 * MIB
    slots.learn(MIB, 1.0)
    assert slots.sensible_bytes() == 3 * MIB
