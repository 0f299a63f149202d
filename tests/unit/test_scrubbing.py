"""When the scrub reads, how fast, and how far it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recfs.core.verification.scrubbing import Pace, Round, Window

DAY_S = 86_400
HOUR_S = 3600.0
NS = 10**9


def test_a_window_within_a_day() -> None:
    window = Window.parse(" 09:30-17:00 ")
    assert str(window) == "09:30-17:00"
    assert [window.is_open(hour * HOUR_S) for hour in (9, 9.5, 12, 17, 23)] == [False, True, True, False, False]
    assert [window.opens_in_s(hour * HOUR_S) for hour in (9, 10, 17)] == [1800, 0, 16.5 * HOUR_S]


def test_a_window_over_midnight() -> None:
    window = Window.parse("22:00-06:00")
    assert [window.is_open(hour * HOUR_S) for hour in (21.9, 22, 23.99, 0, 5.9, 6)] == [
        False, True, True, True, True, False,
    ]  # fmt: skip
    assert window.opens_in_s(6 * HOUR_S) == 16 * HOUR_S
    assert all(0 <= window.opens_in_s(minute * 60) < DAY_S for minute in range(24 * 60))


@pytest.mark.parametrize("text", ["", "22-6", "24:00-01:00", "1:00-2:00", "22:00", "22:60-23:00", "05:00-05:00"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match="window"):
        Window.parse(text)


@pytest.mark.parametrize("rate", [100e3, 1e6, 1e9])
def test_a_pace_is_kept_over_many_pieces_and_has_no_debts_of_before(rate: float) -> None:
    pace, now_s, done = Pace(rate), 1000.0, 0
    for _ in range(200):
        done += pace.slice_bytes
        now_s += pace.pause_s(now_s, pace.slice_bytes)
    assert done / rate - 0.3 <= now_s - 1000.0 <= done / rate + 1e-6
    assert pace.pause_s(now_s + 3600, 1) == 0.0
    after_a_pause = sum(pace.pause_s(now_s + 3600, pace.slice_bytes) > 0 for _ in range(20))
    assert after_a_pause >= 1, "an hour without reading does not let it read an hour's worth at once"


def test_no_rate_is_no_pause() -> None:
    pace = Pace(None)
    assert pace.pause_s(5.0, 1 << 40) == 0.0
    assert pace.slice_bytes >= 1 << 20


def test_rounds() -> None:
    first = Round().next(5 * NS)
    assert (first.began_ns, first.due_in_s(6 * NS, 100)) == (5 * NS, 0.0)
    assert first.next(9 * NS) is first
    over = replace(first.over(25 * NS), files=1)
    assert (over.is_over, over.due_in_s(25 * NS, 100), over.due_in_s(105 * NS, 100)) == (True, 80.0, 0.0)
    assert over.due_in_s(1, 100) == 100.0, "a clock that was set back does not make it wait for ever"
    assert over.next(200 * NS) == Round(began_ns=200 * NS)


def test_a_round_survives_the_catalogue() -> None:
    at = Round(77, 5, 0, 3, 1000, 1)
    assert Round.parse(at.text()) == at
    for text in (None, "", "{", "[]", '{"after_ino": "x"}', '{"after_ino": null}'):
        assert Round.parse(text) == Round()


def test_a_round_without_files_does_not_put_off_the_next_for_a_period() -> None:
    empty = Round().next(0).over(NS)
    assert empty.due_in_s(NS, 30 * DAY_S) == HOUR_S - 1
    assert empty.due_in_s(round(HOUR_S) * NS, 30 * DAY_S) == 0.0
    assert empty.due_in_s(NS, 60.0) == 59.0
    full = replace(empty, files=1)
    assert full.due_in_s(NS, 30 * DAY_S) == 30 * DAY_S - 1
