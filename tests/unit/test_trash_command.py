"""`recfs trash`: what numbers and options together mean."""

from __future__ import annotations

import pytest

from recfs.cli.common.options import Invocation
from recfs.cli.upkeep import trash
from recfs.errors import NotFound


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> object:
    """The store of the command."""
    store = object()
    monkeypatch.setattr(trash, "open_store", lambda invocation: store)
    return store


def test_options_choose_among_numbers_too(store: object) -> None:
    found = trash._chosen(Invocation(), ("17", "18"), older_s=30.0, user="5", since_s=None)
    assert found == [(store, {"ids": [17, 18], "older_s": 30.0, "user": "5"})]


@pytest.mark.parametrize("number", ["9" * 19, "9" * 20, "9" * 5000], ids=len)
def test_a_number_that_cannot_be_is_none_of_the_trash(number: str) -> None:
    with pytest.raises(NotFound, match=f"the trash has no number {number[:19]}"):
        trash._chosen(Invocation(), ("3", number), since_s=None)
