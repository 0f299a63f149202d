"""[recordings] and [[retention]]: how long recordings live."""

from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import core_schema

from recfs.config.s3 import StorageClass
from recfs.config.types import AnyCase, Duration, Section
from recfs.core.access.sources import extensions
from recfs.core.retention import RetentionRule, check_retention

DAY_S = 86_400.0


def _extensions(told: tuple[str, ...]) -> tuple[str, ...]:
    return extensions(told)


class RecordingsSection(Section):
    """[recordings]"""

    sweep_interval: Duration = Field(
        default=DAY_S, ge=1.0, le=30 * DAY_S, description="time between two looks at what has expired (seconds)"
    )
    grace: Duration = Field(
        default=7 * DAY_S, description="time an expired recording can still be read before it is removed (seconds)"
    )
    allowed_extensions: Annotated[tuple[Annotated[str, Field(strict=True)], ...], AfterValidator(_extensions)] = Field(
        default=(), description="extensions that source.* may have; empty: any"
    )


class RetentionSection(Section):
    """One [[retention]] table, as written; `Config.retention` holds the checked rules made from these."""

    pattern: str = Field(
        default="users/*/recordings/*", strict=True, description="glob on the path of the recording's directory"
    )
    user: str = Field(default="*", strict=True, description="id of the user, or a pattern of ids")
    retention: Duration | None = Field(default=None, description="age at which a recording expires (seconds)")
    since: Annotated[Literal["change", "creation"], AnyCase] = Field(
        default="change", description="from when the age counts"
    )
    auto_cleanup: bool = Field(default=True, strict=True, description="whether what is due expires by itself")
    grace: Duration | None = Field(default=None, description="as in [recordings], for these (seconds)")
    archive_threshold: Duration | None = Field(
        default=None, description="age at which the objects get another storage class (seconds)"
    )
    archive_storage_class: StorageClass | None = Field(default=None, description="that class")


def _rule(value: object, handler: pydantic.ValidatorFunctionWrapHandler) -> RetentionRule:
    if isinstance(value, RetentionRule):
        return value
    written: RetentionSection = handler(value)
    return RetentionRule(
        written.pattern,
        written.user,
        retention_s=written.retention,
        since=written.since,
        auto_cleanup=written.auto_cleanup,
        grace_s=written.grace,
        archive_threshold_s=written.archive_threshold,
        archive_storage_class=written.archive_storage_class,
    )


def _checked(rules: tuple[RetentionRule, ...]) -> tuple[RetentionRule, ...]:
    check_retention(rules)
    return rules


_Retention = Annotated[
    RetentionRule,
    pydantic.GetPydanticSchema(
        lambda _type, schema: core_schema.no_info_wrap_validator_function(_rule, schema(RetentionSection))
    ),
]
RetentionRules = Annotated[tuple[_Retention, ...], AfterValidator(_checked)]

__all__ = ["RecordingsSection", "RetentionRules", "RetentionSection"]
