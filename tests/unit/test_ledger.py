"""What the ledger of open files says of backing ids, to a daemon that finds it after the death of the one before."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from recfs.state.ledger import Ledger, Opened
from recfs.state.ledger.table import WRITES

NOBODYS = {8, 9, 10, 11}
"""What may have been given to the kernel after the highest that was written down, 7."""


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger.fresh()
    yield made
    os.close(made.fd)


def opened(ledger: Ledger, number: int, backing: int) -> None:
    ledger.opened(Opened(number, 100 + number, 100 + number, 0, backing, WRITES, number))


def after_death(ledger: Ledger) -> Ledger:
    return Ledger(ledger.fd)


def test_ids_of_open_files_are_no_leak(ledger: Ledger) -> None:
    for number, backing in ((1, 6), (2, 7), (3, 7), (4, 0)):
        if backing:
            ledger.backed(backing)
        opened(ledger, number, backing)
    assert after_death(ledger).leaked() == NOBODYS


def test_an_id_without_a_handle_is_one(ledger: Ledger) -> None:
    for backing in (5, 6, 7):
        ledger.backed(backing)
    opened(ledger, 1, 6)
    assert after_death(ledger).leaked() == {5, 7, *NOBODYS}
    ledger.given_back(5)
    ledger.given_back(7)
    ledger.given_back(7)
    assert after_death(ledger).leaked() == NOBODYS


def test_an_id_of_a_handle_that_the_kernel_has_let_go_of_may_be_one(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.backed(4 + number)
        opened(ledger, number, 4 + number)
    opened(ledger, 4, 6)  # the same file once more
    for number in (1, 2):
        ledger.left(number)
    assert after_death(ledger).leaked() == {5, *NOBODYS}


def test_more_ids_than_there_is_room_for_harm_nobody(ledger: Ledger) -> None:
    for backing in range(1, 1001):
        ledger.backed(backing)
    assert after_death(ledger).leaked() >= {1, 2, 3, 1001}
    for backing in range(1, 1001):
        opened(ledger, backing, backing)
    assert not after_death(ledger).leaked() & set(range(1, 1001))


def test_a_ledger_that_knows_of_no_id_tries_none(ledger: Ledger) -> None:
    assert after_death(ledger).leaked() == set()
