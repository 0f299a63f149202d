"""What may change while a daemon runs, and what of another configuration holds then.

What takes another process, or another mount, stays as it is, and is told by name. Compared are settings by their keys;
what goes on although its section is gone goes on by all of the settings that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from recfs.config.model import SECTIONS, Config
from recfs.config.plain import from_plain, plain
from recfs.config.settings import Settings
from recfs.errors import ConfigError

NEW_MOUNT: Final = frozenset({"root", "mountpoint", "allow_other", "passthrough"})
"""Settings that a mount is made with."""
WHILE_RUNNING: Final = frozenset(
    {
        *("min_free", "passthrough_headroom", "log.level", "commit.max_pending", "commit.settle_max"),
        *("quota.max_bytes", "quota.max_files", "quota.max_file_size", "quota.max_monthly_uploads"),
        *("temp.max_age", "temp.sweep_interval", "backup.every", "backup.keep", "backup.recipients"),
        *("trash.retention", "trash.charged", "trash.max_metadata", "stats.survey_every", "stats.keep", "fallback"),
        *("sweep.orphans_every", "sweep.orphans_mode", "sweep.orphans_grace", "sweep.multiparts_every"),
        *("sweep.multiparts_age", "sweep.versions_every", "sweep.catalogue_every", "sweep.tier_every"),
        *("watch.quiet", "watch.scan_interval", "recordings.sweep_interval"),
        *("retention", "recordings.grace", "recordings.allowed_extensions", "versions", "events.keep", "events.most"),
        *("audit.reads", "audit.file_size", "audit.rotate", "audit.keep", "audit.most"),
        *("notify.command", "notify.events", "notify.timeout", "notify.per_minute", "notify.most_events"),
        *("scrub.rate", "scrub.window", "scrub.period", "route", "upload.settle"),
        *("upload.copy_identical", "upload.copy_min_size"),
        *("cache.max_size", "cache.read_ahead_max", "cache.fetch_whole_below"),
        *("derive", "deriving.timeout", "deriving.max_output", "deriving.max_fetch"),
        *("chunks.threshold", "chunks.length", "chunks.overlap", "chunks.silences", "chunks.automatic"),
        *("media.timeout", "media.cpu", "media.memory", "media.largest_text", "media.decode_tail", "media.upload_wait"),
        *("metrics.users", "prices.currency", "prices.per_gib_month"),
        *("lifecycle.abort_multipart", "lifecycle.transitions"),
    }
)
"""Settings that hold from the next request on. All others take another process."""

UPGRADE: Final = "`recfs upgrade`"
REMOUNT: Final = "an unmount and a new mount"
RESTART: Final = "a restart of `recfs serve`"


def settings_of(config: Config) -> dict[str, Any]:
    """Give each setting by its key, `section.key`; those of [[…]] tables together."""
    found: dict[str, Any] = {}
    for key, value in plain(config).items():
        if key in SECTIONS and isinstance(value, dict):
            found |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            found[key] = value
    return found


def takes(key: str, old: Config, new: Config) -> str | None:
    """What a change of a setting takes; None: nothing."""
    if key in NEW_MOUNT:
        return REMOUNT
    if key.startswith("serve."):
        return RESTART
    if key not in WHILE_RUNNING:
        return UPGRADE
    # Whoever does that is there or not from the start on: what goes on, goes on by the settings that it has.
    return None if _has_service(key, old) == _has_service(key, new) else UPGRADE


def _has_service(key: str, config: Config) -> bool:
    """Whether there is somebody who goes by a setting."""
    match key.partition(".")[0]:
        case "events" | "notify":
            return config.events.enabled
        case "audit":
            return config.audit.enabled
        case "scrub":
            return config.scrub.enabled
        case "media":
            return config.media.enabled
        case "watch":
            return config.watch.enabled
        case "metrics":
            return config.metrics.listen is not None
        case "route" | "cache" | "upload" | "lifecycle":
            return config.s3 is not None
        case "retention":
            return any(rule.archive_storage_class is not None for rule in config.retention)
    return config.backup.every > 0 if key == "backup.every" else True


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload does."""

    settings: Settings
    """What holds afterwards."""
    changed: Mapping[str, tuple[Any, Any]]
    """Old and new value by key."""
    left: Mapping[str, str]
    """What else was changed, and what that takes."""


def plan(now: Settings, wanted: Settings) -> Plan:
    """Compare. Raises ConfigError where what can change does not fit what cannot."""
    old, new = settings_of(now.config), settings_of(wanted.config)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if (now.config.s3 is None) != (wanted.config.s3 is None):
        differing = sorted({"s3" if key.startswith("s3.") else key for key in differing})
    left = {key: what for key in differing if (what := takes(key, now.config, wanted.config)) is not None}
    changed = {key: (old.get(key), new.get(key)) for key in differing if key not in left}
    merged = plain(wanted.config)
    origins = dict(wanted.origins)
    for key in left:
        _keep(plain(now.config), merged, key)
        for each in [each for each in origins if _is_of(each, key)]:
            del origins[each]
        origins |= {each: origin for each, origin in now.origins.items() if _is_of(each, key)}
    try:
        config = from_plain(merged, "the configuration with what cannot change now")
    except ConfigError as error:
        names = ", ".join(f"{key} ({what})" for key, what in left.items())
        raise ConfigError(f"{error}; nothing is changed, for these take more than a reload: {names}") from None
    return Plan(replace(wanted, config=config, origins=origins), changed, left)


def _keep(old: dict[str, Any], merged: dict[str, Any], key: str) -> None:
    section, _, name = key.partition(".")
    if not name or old[section] is None or merged[section] is None:
        merged[section] = old[section]
    else:
        merged[section][name] = old[section][name]


def _is_of(key: str, setting: str) -> bool:
    return key == setting or key.startswith((f"{setting}.", f"{setting}["))


__all__ = ["NEW_MOUNT", "REMOUNT", "RESTART", "UPGRADE", "WHILE_RUNNING", "Plan", "plan", "settings_of", "takes"]
