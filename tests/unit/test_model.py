"""core/model.py: the states and the legal steps between them."""

import itertools

import pytest

from recfs.core.model import TRANSITIONS, Kind, State, check_transition

LEGAL = {
    ("writing", "sealing"),
    ("writing", "incomplete"),
    ("sealing", "committed"),
    ("sealing", "writing"),
    ("sealing", "incomplete"),
    ("committed", "writing"),
    ("committed", "corrupt"),
    ("incomplete", "writing"),
    ("incomplete", "sealing"),
    ("corrupt", "writing"),
    ("corrupt", "committed"),
    ("corrupt", "evicted"),
    ("committed", "uploading"),
    ("uploading", "committed"),
    ("uploading", "stored"),
    ("uploading", "writing"),
    ("uploading", "corrupt"),
    ("committed", "stored"),
    ("stored", "writing"),
    ("stored", "committed"),
    ("stored", "corrupt"),
    ("stored", "evicted"),
    ("evicted", "fetching"),
    ("evicted", "writing"),
    ("evicted", "corrupt"),
    ("evicted", "archived"),
    ("fetching", "stored"),
    ("fetching", "evicted"),
    ("archived", "evicted"),
    ("archived", "writing"),
    ("writing", "evicted"),
}


def test_the_words() -> None:
    local = {"writing", "sealing", "committed", "incomplete", "corrupt"}
    assert {str(state) for state in State} == local | {"uploading", "stored", "evicted", "fetching", "archived"}
    assert {str(kind) for kind in Kind} == {"file", "dir", "symlink"}


def test_every_state_is_reached_from_writing() -> None:
    reached = {State.WRITING}
    while more := {new for old, new in TRANSITIONS if old in reached} - reached:
        reached |= more
    assert reached == set(State)


def test_every_state_leads_back_to_committed() -> None:
    leading = {State.COMMITTED}
    while more := {old for old, new in TRANSITIONS if new in leading} - leading:
        leading |= more
    assert leading == set(State)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_exactly_the_legal_pairs_pass(old: State, new: State) -> None:
    if (old.value, new.value) in LEGAL:
        check_transition(old, new)
    else:
        with pytest.raises(ValueError, match=f"{old} -> {new}"):
            check_transition(old, new)
