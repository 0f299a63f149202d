"""Where long audio is cut: chunks meet or overlap exactly, cover all of it, and are cut at silences."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.media.chunks import MAX_SILENCES, ChunkOptions, chunks, cuts, is_long, silences_in


@pytest.mark.parametrize(
    ("duration_ms", "ends"),
    [
        (300_000, [300_000]),
        (300_999, [300_999]),  # less than a second would be left
        (301_000, [300_000, 301_000]),
        (731_400, [300_000, 600_000, 731_400]),
    ],
)
def test_it_is_cut_every_five_minutes(duration_ms: int, ends: list[int]) -> None:
    assert cuts(duration_ms, 300_000) == ends


def test_a_cut_goes_to_the_middle_of_a_silence_near_by_and_the_next_is_counted_from_there() -> None:
    silences = [(290_000, 294_000), (280_000, 281_000), (640_000, 650_000)]
    assert cuts(900_000, 300_000, silences) == [292_000, 592_000, 892_000, 900_000]
    assert cuts(900_000, 300_000, [(318_000, 322_000)]) == [320_000, 620_000, 900_000]


class Counted(int):
    """A number that counts what is done with it: comparisons, and how far it is from others."""

    done = 0

    def __add__(self, other: int) -> Counted:
        return Counted(int(self) + other)

    def __floordiv__(self, other: int) -> Counted:
        return Counted(int(self) // other)

    def __lt__(self, other: int) -> bool:
        Counted.done += 1
        return int(self) < other

    def __sub__(self, other: int) -> int:
        Counted.done += 1
        return int(self) - other


def test_what_is_done_does_not_grow_with_silences_times_chunks() -> None:
    silences = [(Counted(at), Counted(at + 300)) for at in range(0, 2_000_000, 500)]
    Counted.done = 0
    found = cuts(2_000_000, 2000, silences)
    assert len(found) > 900
    assert Counted.done < 2 * 12 * (len(silences) + len(found)), "n log n, where all for each would be four million"


def test_too_many_silences_and_too_many_chunks_at_silences_are_refused() -> None:
    text = "".join(f"silence_start={at}\nsilence_end={at}.5\n" for at in range(MAX_SILENCES + 1))
    assert len(silences_in(text[: text.rindex("silence_start")], 10**9)) == MAX_SILENCES
    with pytest.raises(ValueError, match="more than 50,000 silences: cut it without them"):
        silences_in(text + "silence_start=9", 10**9)
    early = [(at - 50, at + 50) for at in range(905, 9_990_000, 905)]  # each cut a tenth early makes more of them
    with pytest.raises(ValueError, match="more than 10,000 chunks"):
        chunks("a", 9_990_000, ChunkOptions(1.0, silences=True), early)


def test_chunks_are_numbered_from_nothing_and_named_in_order() -> None:
    found = chunks("audio", 731_400, ChunkOptions(overlap_s=2.5))
    assert [(each.number, each.start_ms, each.end_ms, each.duration_ms, each.name) for each in found] == [
        (0, 0, 300_000, 300_000, "audio_chunk_000.mp3"),
        (1, 297_500, 600_000, 302_500, "audio_chunk_001.mp3"),
        (2, 597_500, 731_400, 133_900, "audio_chunk_002.mp3"),
    ]
    assert chunks("audio", 0, ChunkOptions()) == ()
    many = chunks("a", 2_000_000, ChunkOptions(length_s=1.0))
    assert (len(many), many[-1].name, sorted(each.name for each in many)) == (
        2000, "a_chunk_1999.mp3", [each.name for each in many],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length_s": 0.5}, "between 1 s and 1 d"),
        ({"length_s": float("nan")}, "between 1 s and 1 d"),
        ({"overlap_s": 151.0}, "at most half of the length"),
        ({"format": "ogg"}, "mp3 or wav"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ChunkOptions(**options)


def test_too_many_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match="choose longer ones"):
        chunks("a", 86_400_000, ChunkOptions(length_s=1.0))


def test_options_are_read_as_they_were_written() -> None:
    options = ChunkOptions(60.0, 1.5, True, "wav")
    assert ChunkOptions.parsed(options.text) == options


def test_silences_are_read_as_far_as_they_lie_in_the_audio() -> None:
    text = (
        "frame:1 pts:1 pts_time:1\nlavfi.silence_start=-0.02\nlavfi.silence_end=1.5\nlavfi.silence_duration=1.52\n"
        "lavfi.silence_start=8\nlavfi.silence_end=8\nlavfi.silence_start=9.25\n"
    )
    assert silences_in(text, 10_000) == [(0, 1500), (9250, 10_000)]
    assert silences_in("nothing of the kind", 10_000) == []


def test_only_longer_audio_is_cut() -> None:
    assert not is_long(300_000, 300.0)
    assert is_long(300_001, 300.0)


@given(
    duration_ms=st.integers(1, 20_000_000),
    length_s=st.floats(20.0, 4000.0),
    share=st.floats(0.0, 0.5),
    silences=st.lists(st.tuples(st.integers(0, 20_000_000), st.integers(1, 5000)), max_size=30),
)
def test_chunks_cover_all_of_it_and_none_is_empty(
    duration_ms: int, length_s: float, share: float, silences: list[tuple[int, int]]
) -> None:
    options = ChunkOptions(length_s, length_s * share, silences=True)
    found = chunks("a", duration_ms, options, [(start, start + length) for start, length in silences])
    assert (found[0].start_ms, found[-1].end_ms) == (0, duration_ms)
    assert all(0 <= each.start_ms < each.end_ms <= duration_ms for each in found)
    overlap_ms = round(options.overlap_s * 1000)
    for one, next_one in itertools.pairwise(found):
        assert next_one.start_ms == max(0, one.end_ms - overlap_ms)
        assert one.end_ms < next_one.end_ms
    assert len({each.name for each in found}) == len(found)
