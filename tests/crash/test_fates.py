"""The operator's model: a broken promise of each kind is found, and what may be is not taken for one."""

from __future__ import annotations

import pytest

from tests.crash.fates import Fate, Fates, Thing

MOUNT, TRASH, LYING = Fate.MOUNT, Fate.TRASH, Fate.LYING
PATH = "users/4/recordings/1/f1"


@pytest.fixture
def fates() -> Fates:
    return Fates(trash=True)


def found(thing: Thing, *at: Fate) -> dict[int, dict[Fate, str]]:
    return {thing.size: dict.fromkeys(at, thing.path)} if at else {}


def test_what_was_kept_is_not_lost(fates: Fates) -> None:
    thing = fates.new(PATH, MOUNT)
    assert fates.wrong(found(thing, MOUNT)) == []
    assert fates.wrong(found(thing)) == [f"{PATH}: it is nowhere, and was told to be in the mount"]
    assert fates.wrong(found(thing, TRASH)) != []


def test_what_was_removed_is_in_the_trash_and_nowhere_else(fates: Fates) -> None:
    thing = fates.new(PATH, MOUNT)
    with fates.removal([thing]):
        for at in (MOUNT, TRASH):  # the daemon may die here
            assert fates.wrong(found(thing, at)) == []
        assert fates.wrong(found(thing)) != []
    assert fates.wrong(found(thing, TRASH)) == []
    assert fates.wrong(found(thing, MOUNT)) != []
    assert "it is in two places" in fates.wrong(found(thing, MOUNT, TRASH))[0]


def test_without_a_trash_it_is_gone() -> None:
    fates = Fates(trash=False)
    thing = fates.new(PATH, MOUNT)
    with fates.removal([thing]):
        pass
    assert fates.wrong(found(thing)) == []
    assert fates.wrong(found(thing, TRASH)) != []


def test_what_was_purged_does_not_come_back(fates: Fates) -> None:
    thing = fates.new(PATH, TRASH)
    with fates.change([thing], {TRASH: Fate.GONE}):
        pass
    assert [fates.wrong(found(thing, at)) != [] for at in (MOUNT, TRASH)] == [True, True]
    assert fates.wrong(found(thing)) == []


def test_what_was_refused_has_not_happened_and_what_raised_may_have(fates: Fates) -> None:
    refused, raised = fates.new(PATH, TRASH), fates.new(f"{PATH}2", TRASH)
    with fates.change([refused], {TRASH: MOUNT}) as change:
        change.refused = {refused.serial}
    assert refused.may_be == {TRASH}
    with pytest.raises(OSError, match="no room"), fates.change([raised], {TRASH: MOUNT}):
        raise OSError("no room")
    assert raised.may_be == {TRASH, MOUNT}


def test_what_has_expired_may_go_unless_it_is_kept(fates: Fates) -> None:
    thing, foreign = fates.new(PATH, MOUNT), fates.new(f"{PATH}2", LYING)
    recording = fates.recordings[thing.recording]
    recording.expired = {True}
    recording.keep = {True}
    fates.expire()
    assert thing.may_be == {MOUNT}
    recording.keep = {False}
    fates.expire()
    assert thing.may_be == {MOUNT, TRASH}
    assert foreign.may_be == {LYING, Fate.LOST}


def test_other_bytes_are_wrong_but_for_those_of_a_write_that_was_cut_off(fates: Fates) -> None:
    thing = fates.new(PATH, MOUNT, unfinished=True)
    assert fates.wrong(found(thing, MOUNT), [thing.size]) == []
    fates.resolve(found(thing, MOUNT))
    assert fates.wrong(found(thing, MOUNT), [thing.size]) == [f"{PATH}: its bytes are others (in the mount ({PATH}))"]


def test_what_was_found_counts_from_then_on(fates: Fates) -> None:
    thing = fates.new(PATH, MOUNT, TRASH)
    fates.resolve(found(thing, TRASH))
    assert thing.may_be == {TRASH}
    assert fates.wrong(found(thing, MOUNT)) != []
