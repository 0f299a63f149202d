"""Categories of files, and what bytes cost."""

from __future__ import annotations

import pytest

from recfs.core.figures.categories import Category, category_of, folder_category, marks_of
from recfs.core.figures.costs import GIB, Prices
from recfs.core.layout import Role, role_of
from recfs.core.quota import month_of, month_start_ns

IN = "users/5/recordings/142"


def category(path: str) -> Category:
    *folders, name = path.encode().split(b"/")
    role, given = Role.ROOT, None
    for depth in range(1, len(folders) + 1):
        role = role_of(tuple(folders[:depth]))
        given = folder_category(given, role, folders[depth - 1])
    return category_of(given, role, marks_of(name))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{IN}/source.mp4", "source"),
        (f"{IN}/source.wav", "source"),
        (f"{IN}/source.mp4.part", "other"),
        (f"{IN}/cut/source.mp4", "video"),
        (f"{IN}/SOURCE.mp4", "video"),
        (f"{IN}/VIDEO.MP4", "video"),
        (f"{IN}/audio.mp3", "audio"),
        (f"{IN}/audio/words.bin", "audio"),
        (f"{IN}/words.vtt", "transcription"),
        (f"{IN}/Transcript_v2.json", "transcription"),
        (f"{IN}/transcription/a/b/c.mp4", "transcription"),
        (f"{IN}/assets/intro.mp4", "assets"),
        (f"{IN}/assets/audio/a.mp3", "assets"),
        (f"{IN}/poster.png", "assets"),
        (f"{IN}/thumbnail-1.jpg", "thumbnails"),
        (f"{IN}/thumbnail-1.mp4", "video"),
        (f"{IN}/mp4", "other"),
        (f"{IN}/.mp4", "video"),
        (f"{IN}/notes", "other"),
        ("users/5/thumbnails/source.mp4", "thumbnails"),
        ("users/5/thumbnails/audio/a.mp3", "thumbnails"),
        ("temp/5/7/source.mp4", "temp"),
        ("temp/5/7/assets/a.png", "temp"),
        ("shared/a.mp4", "shared"),
        ("shared/thumbnails/a.png", "shared"),
    ],
)
def test_place_and_name_say_what_a_file_is(path: str, expected: str) -> None:
    assert category(path) == expected


def test_a_recording_that_is_called_like_a_category_is_none() -> None:
    assert folder_category(None, Role.RECORDING, b"assets") is None


def test_prices_are_for_gibibytes_and_what_has_none_costs_nothing_that_is_known() -> None:
    prices = Prices("USD", {"local": 0.01, "GLACIER": 0.0})
    assert prices.monthly("local", 3 * GIB) == pytest.approx(0.03)
    assert prices.monthly("GLACIER", GIB) == 0.0
    assert prices.monthly("STANDARD", GIB) is None


@pytest.mark.parametrize("month", ["1970-01", "2026-02", "2026-12"])
def test_a_month_begins_where_the_one_before_ends(month: str) -> None:
    began = month_start_ns(month)
    assert month_of(began) == month
    assert month_of(began - 1) < month
