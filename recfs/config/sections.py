"""The tables of recfs.conf that every store has."""

from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import core_schema

from recfs.config.types import AbsolutePath, AnyCase, CountLimit, Duration, Section, Size, SizeLimit
from recfs.core.fallback import FallbackRule, check_rules
from recfs.core.quota import Limits
from recfs.core.verification.scrubbing import Window

DEFAULT_FALLBACK = FallbackRule("users/*/thumbnails/*", "shared/thumbnails/*")


class LogSection(Section):
    """[log]"""

    level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = Field(
        default="info", description="how much is logged"
    )
    file: AbsolutePath | None = Field(default=None, description="log file; none: standard error")


class CatalogueSection(Section):
    """[catalogue]"""

    flush_interval: Duration = Field(
        default=0.1, gt=0.0, le=60.0, description="longest time a change is in memory only (seconds)"
    )
    cached_inodes: int = Field(
        default=200_000, strict=True, ge=1, le=100_000_000, description="files and directories kept in memory"
    )


class CommitSection(Section):
    """[commit]"""

    hash_threads: int = Field(
        default=2, strict=True, ge=1, le=256, description="threads for checksums, in each size class"
    )
    max_pending: int = Field(
        default=10_000,
        strict=True,
        ge=1,
        le=10_000_000,
        description="closed files that may wait for their commit",
    )
    settle_max: Duration = Field(
        default=30.0, le=3600.0, description="longest wait for a busy file to settle (seconds)"
    )


class QuotaSection(Section):
    """[quota]: the defaults for every user; None is no limit."""

    max_bytes: SizeLimit = Field(default=None, description="bytes a user may store, temp/<id> included")
    max_files: CountLimit = Field(default=None, description="files a user may store, temp/<id> included")
    max_file_size: SizeLimit = Field(default=None, description="bytes a single file of a user may have")
    max_monthly_uploads: CountLimit = Field(
        default=None, description="source.<ext> files a user may create per calendar month (UTC)"
    )

    def limits(self) -> Limits:
        """Give the defaults as the core's value."""
        return Limits(self.max_bytes, self.max_files, self.max_file_size, self.max_monthly_uploads)


class TempSection(Section):
    """[temp]"""

    max_age: Duration = Field(default=86_400.0, gt=0.0, description="age at which a job is removed (seconds)")
    sweep_interval: Duration = Field(
        default=300.0, ge=0.1, le=86_400.0, description="time between two sweeps (seconds)"
    )


class TrashSection(Section):
    """[trash]"""

    retention: Duration = Field(default=0.0, description="time deleted bytes are kept (seconds)")
    charged: bool = Field(
        default=False, strict=True, description="whether what a user has in the trash counts towards max_bytes"
    )
    max_metadata: Size = Field(
        default=128 << 20,
        ge=1 << 20,
        description="bytes of paths, attributes and targets of a user in the trash, at most",
    )


class WatchSection(Section):
    """[watch]"""

    enabled: bool = Field(
        default=True, strict=True, description="whether what is done to the home tree past recfs is looked after"
    )
    quiet: Duration = Field(
        default=2.0, ge=0.1, le=3600.0, description="how long a file must be left alone before it is believed (seconds)"
    )
    scan_interval: Duration = Field(
        default=600.0, ge=1.0, description="time between two looks at everything where not all can be watched (seconds)"
    )


def _window(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('a window of hours is a text such as "22:00-06:00"; "" for all day')
    return str(Window.parse(value)) if value.strip() else ""


class ScrubSection(Section):
    """[scrub]"""

    enabled: bool = Field(default=False, strict=True, description="whether all files are verified in the background")
    level: Annotated[Literal["presence", "size", "hash", "remote"], AnyCase] = Field(
        default="hash", description="how closely each file is looked at"
    )
    rate: Size = Field(default=20 << 20, ge=64 << 10, description="bytes read a second, at most")
    window: Annotated[str, BeforeValidator(_window)] = Field(
        default="", description="hours in which it reads, local time; empty: all day"
    )
    period: Duration = Field(
        default=30 * 86_400.0, ge=60.0, description="time from the beginning of a round to the next (seconds)"
    )


class FallbackSection(Section):
    """One [[fallback]] table, as written; `Config.fallback` holds the checked rules made from these."""

    pattern: str = Field(strict=True, description="where a name may be missing: <directory glob>/<name glob>")
    target: str = Field(strict=True, description="what is shown instead: shared/<directory>/<* or name>")


def _fallback_rule(value: object, handler: pydantic.ValidatorFunctionWrapHandler) -> FallbackRule:
    if isinstance(value, FallbackRule):
        return value
    section: FallbackSection = handler(value)
    return FallbackRule(section.pattern, section.target)


def _checked_fallback(rules: tuple[FallbackRule, ...]) -> tuple[FallbackRule, ...]:
    check_rules(rules)
    return rules


_Fallback = Annotated[
    FallbackRule,
    pydantic.GetPydanticSchema(
        lambda _type, schema: core_schema.no_info_wrap_validator_function(_fallback_rule, schema(FallbackSection))
    ),
]
FallbackRules = Annotated[tuple[_Fallback, ...], AfterValidator(_checked_fallback)]
