"""What comes out of a group of errors."""

import pytest

from recfs.errors import NotFound, StoreError, first_error_alone


def test_the_first_error_of_a_group_comes_out_as_itself() -> None:
    first = StoreError("first")
    inner = ExceptionGroup("", [first, NotFound("second")])
    with pytest.raises(StoreError) as caught, first_error_alone():
        raise ExceptionGroup("", [inner])
    assert caught.value is first
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_an_error_that_is_in_no_group_does_too() -> None:
    alone = StoreError("alone")
    with pytest.raises(StoreError) as caught, first_error_alone():
        raise alone
    assert caught.value is alone


def test_what_is_none_of_ours_goes_on_as_it_is() -> None:
    with pytest.raises(KeyError), first_error_alone():
        raise KeyError
    with pytest.raises(ExceptionGroup) as caught, first_error_alone():
        raise ExceptionGroup("", [StoreError("ours"), KeyError()])
    assert caught.group_contains(KeyError)
    assert not caught.group_contains(StoreError)
