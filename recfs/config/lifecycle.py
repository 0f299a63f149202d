"""[lifecycle]: what the bucket does by itself, by the rules that `recfs lifecycle apply` writes into it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.s3 import StorageClass
from recfs.config.types import Duration, Section

DAY_S = 86_400.0


def _whole_days(value: float) -> float:
    if value % DAY_S:
        raise ValueError('S3 counts in whole days; write a multiple of "1d"')
    return value


def _prefix(value: str) -> str:
    if value.startswith("/") or "//" in value or any(part in (".", "..") for part in value.split("/")):
        raise ValueError('a prefix is the beginning of paths in the mount, such as "users/", or "" for all')
    return value


Days = Annotated[Duration, AfterValidator(_whole_days)]


class TransitionSection(Section):
    """One entry of `transitions`: S3 moves objects to another storage class when they have come of age."""

    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="", strict=True, description="beginning of the paths in the mount it is for"
    )
    after: Days = Field(description="age of the object, in whole days (seconds)")
    storage_class: StorageClass = Field(description="class the objects get")


def _checked(value: tuple[TransitionSection, ...]) -> tuple[TransitionSection, ...]:
    seen: set[tuple[str, str]] = set()
    for each in value:
        if (each.prefix, each.storage_class) in seen:
            raise ValueError(f'two transitions of "{each.prefix}" to {each.storage_class}; leave one of them out')
        seen.add((each.prefix, each.storage_class))
    return value


class LifecycleSection(Section):
    """[lifecycle]: does nothing until `recfs lifecycle apply`."""

    abort_multipart: Days = Field(
        default=7 * DAY_S, description="age at which S3 drops unfinished uploads, in whole days (seconds); 0: never"
    )
    transitions: Annotated[tuple[TransitionSection, ...], AfterValidator(_checked)] = Field(
        default=(), description="objects S3 moves to another storage class by their age"
    )


__all__ = ["DAY_S", "LifecycleSection", "TransitionSection"]
