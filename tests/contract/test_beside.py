"""Work in a second thread while the next bytes are read: order, buffers, and what fails."""

from __future__ import annotations

import pytest

from recfs.disk.beside import ROUND_BUFFERS, Beside


@pytest.mark.parametrize("beside", [False, True])
def test_parts_are_fed_in_order_and_buffers_go_round(beside: bool) -> None:
    fed = bytearray()
    with Beside(fed.extend, 1, beside=beside) as second:
        for number in range(200):
            buffer = second.buffer()
            buffer[0] = number
            second.give(buffer[:1], buffer)
        second.catch_up()
        assert fed == bytes(range(200))
        second.give(memoryview(b"end"), second.buffer())
    assert fed == bytes(range(200)) + b"end"


def test_what_fails_is_raised_in_the_end_and_keeps_nobody_waiting() -> None:
    fed: list[int] = []

    def feed(part: memoryview) -> None:
        fed.append(part[0])
        raise OSError("no")

    def fill() -> None:
        with Beside(feed, 1, beside=True) as second:
            for number in range(3 * ROUND_BUFFERS):
                buffer = second.buffer()
                buffer[0] = number
                second.give(buffer, buffer)

    with pytest.raises(OSError, match="no"):
        fill()
    assert fed == [0]
