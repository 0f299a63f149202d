"""Users who are told apart by uid."""

from typing import TYPE_CHECKING

from recfs.cli.checks import Check, Level
from recfs.cli.common.store import reports_at
from recfs.core.access.owners import mistaken_operator
from recfs.errors import RecfsError

if TYPE_CHECKING:
    from recfs.config import Config


def user_checks(config: "Config") -> list[Check]:
    """Judge whether the operator is a user; nothing where the catalogue cannot be read: others tell of that."""
    if config.operator is None:
        return []
    try:
        with reports_at(config.root).reading() as snapshot:
            found = mistaken_operator(config.operator, ((each.user, each.owner) for each in snapshot.accounts()))
    except (RecfsError, OSError):
        return []
    if found is None:
        return [Check("operator", Level.OK, f"uid {config.operator} is no user's")]
    return [Check("operator", Level.FAIL, found.what, found.remedy)]
