"""A `Config` as JSON carries it, in the shape of recfs.conf; and back."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recfs.config.load import build
from recfs.config.model import Config
from recfs.core.fallback import FallbackRule
from recfs.core.media.derived import DeriveRule
from recfs.core.retention import RetentionRule
from recfs.core.routing import RouteRule
from recfs.core.upkeep.versions import VersionRule


def plain(value: Any) -> Any:
    """Return settings in the shape of recfs.conf: sizes in bytes, durations in seconds, null for what is not set."""
    if isinstance(value, BaseModel):
        return {key: plain(each) for key, each in value}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, FallbackRule):
        return {"pattern": value.pattern, "target": value.target}
    if isinstance(value, RouteRule):
        return {
            "pattern": value.pattern,
            "to": value.to,
            "min_size": value.min_size,
            "max_size": value.max_size,
            "min_age": value.min_age_s,
            "max_age": value.max_age_s,
            "storage_class": value.storage_class,
            "keep_local": value.keep_local_s,
            "broken": value.broken,
        }
    if isinstance(value, RetentionRule):
        return {
            "pattern": value.pattern,
            "user": value.user,
            "retention": value.retention_s,
            "since": value.since,
            "auto_cleanup": value.auto_cleanup,
            "grace": value.grace_s,
            "archive_threshold": value.archive_threshold_s,
            "archive_storage_class": value.archive_storage_class,
        }
    if isinstance(value, DeriveRule):
        return {
            "make": value.make,
            "pattern": value.pattern,
            "automatic": value.automatic,
            "at": value.at_s,
            "width": value.width,
        }
    if isinstance(value, VersionRule):
        return {"pattern": value.pattern, "keep": value.keep, "min_age": value.min_age_s}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def from_plain(settings: dict[str, Any], source: str) -> Config:
    """Return the `Config` that `plain` was made of. Raises ConfigError, as of a file called *source*."""
    return build(_without_nothing(settings), source)


def _without_nothing(value: Any) -> Any:
    """TOML has no null: a key that is not set is not there."""
    if isinstance(value, dict):
        return {key: _without_nothing(each) for key, each in value.items() if each is not None}
    return [_without_nothing(each) for each in value] if isinstance(value, list) else value
