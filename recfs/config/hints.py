"""What is allowed, and hardly meant: a number without a unit where days were thought of, and recordings go at once."""

from typing import Final

from recfs.config.model import Config
from recfs.core.units import format_duration

_DAY_S: Final = 86_400.0
_HOUR_S: Final = 3_600.0


def hints(config: Config) -> list[str]:
    """What to look at once more, a sentence for each, with the setting's name. Lifetimes of zero are meant."""
    found = [
        (f"retention[{number}].retention", rule.retention_s, _DAY_S)
        for number, rule in enumerate(config.retention, start=1)
    ]
    found += [
        (f"retention[{number}].grace", rule.grace_s, _HOUR_S) for number, rule in enumerate(config.retention, start=1)
    ]
    found += [
        ("recordings.grace", config.recordings.grace, _HOUR_S),
        ("trash.retention", config.trash.retention, _HOUR_S),
    ]
    return [
        f'{key} is {format_duration(value)}: a number without a unit is seconds, write "{value:g}d" if days are meant'
        for key, value, least in found
        if value and value < least
    ]


__all__ = ["hints"]
