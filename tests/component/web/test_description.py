"""The API is as its description says: schemathesis asks every route what it may be asked, and what it may not.

Its examples are the same in each run. A failure tells the request as a command for curl.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import allow_header_conformance
from schemathesis.transport.serialization import serialize_binary

from recfs.web.who.tokens import Role
from tests.component.web.gateways import FakeDaemon, answers_of_daemon
from tests.component.web.running import Running
from tests.component.web.site import API

pytestmark = pytest.mark.slow

EXAMPLES: Final = 12
"""Of each route, besides those that its description leads to one by one."""
UPLOAD: Final = "5.01920000-0000-4000-8000-000000000000"
"""Stands for one that there is."""
_REFUSED: Final = [400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 415, 422, 501]
TAGS: Final = ("health", "recordings", "access", "events", "figures", "work", "audit", "uploads", "platform")
OF_USERS: Final = ("recordings", "uploads", "platform", "events")
"""What a user asks for, not an admin."""
CONFIG: Final[dict[str, Any]] = {
    "seed": 17,
    "dictionaries": {
        "users": {"values": ["5"]},
        "recordings": {"values": ["142"]},
        "paths": {"values": ["source.mp4", "assets", "assets/notes.txt", "new.txt"]},
        "uploads": {"values": [UPLOAD]},
        "numbers": {"values": [0, 3]},
        "offsets": {"values": ["0"]},
    },
    "parameters": {
        name: {"dictionary": values, "probability": 0.8}
        for values, names in {
            "users": ["path.user", "path.project", "query.user", "body.user"],
            "recordings": ["path.recording", "path.asset", "body.recording"],
            "paths": ["path.path"], "uploads": ["path.id"], "numbers": ["path.index", "body.length"],
            "offsets": ["header.Upload-Offset"],
        }.items()
        for name in names
    },
    "generation": {"deterministic": True, "max-examples": EXAMPLES, "database": "none"},
    # Not all that a value may be is said by a pattern: a cursor, a date, a name that is free.
    "checks": {
        "missing_required_header": {"expected-statuses": _REFUSED},  # 412 is what tus has for its own
        "negative_data_rejection": {"expected-statuses": _REFUSED},
        "positive_data_acceptance": {"enabled": False},
    },
    "phases": {"stateful": {"enabled": False}},
}  # fmt: skip


class Api:
    """A gateway with something of everything, and what it says of itself."""

    def __init__(self, running: Running, token: str) -> None:
        self.running = running
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.url = "http://{}:{}".format(*running.address)
        told = self.session.get(f"{self.url}{API}/openapi.json").json()
        config = schemathesis.Config.from_dict(CONFIG)
        self.schema = schemathesis.openapi.from_dict(told, config=config)

    def lay(self, case: schemathesis.Case) -> None:
        """Have the tree as it was before an example took something of it away, and an upload that is not done."""
        site = self.running.site
        site.file("users/5/recordings/142/source.mp4", b"of a film", mime="video/mp4")
        site.file("users/5/recordings/142/assets/notes.txt", b"noted")
        if case.path_parameters.get("id") == UPLOAD:
            wanted = {"user": "5", "recording": "9", "length": 3, "chunk_bytes": 2, "filename": "a.mp4"}
            made = self.session.post(f"{self.url}{API}/uploads", json=wanted)
            case.path_parameters["id"] = made.json()["id"]


@schemathesis.serializer("application/offset+octet-stream")
def _as_it_is(_context: Any, value: Any) -> bytes:
    """Bytes of an upload by tus."""
    return serialize_binary(value)


@pytest.fixture(params=TAGS)
def tag(request: pytest.FixtureRequest) -> str:
    """What the routes have in common that are asked."""
    found: str = request.param
    return found


@pytest.fixture
def api(tmp_path: Path, tag: str) -> Iterator[Api]:
    running = Running(tmp_path)
    context = running.site.context
    daemon = FakeDaemon()
    daemon.answers |= answers_of_daemon()
    object.__setattr__(context, "daemon", daemon)
    context.feed._daemon = daemon  # type: ignore[assignment]
    context.errands._daemon = daemon  # type: ignore[assignment]
    context.feed.close()  # a stream of events ends with its first one
    with running():
        yield Api(running, running.site.token if tag in OF_USERS else running.site.token_of(Role.ADMIN))


_SETTINGS: Final = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


def _documented(_context: Any, response: Any, case: Any) -> None:
    """A success is one that the description names, whatever it says of the rest (`default` is for refusals)."""
    if case.method != case.operation.method.upper():
        return  # a method of the same path that it does not tell of
    named = case.operation.definition.raw["responses"]
    assert response.status_code >= 400 or str(response.status_code) in named, response.status_code


def _told(_context: Any, response: Any, _case: Any) -> None:
    """A refusal is a problem document of this status."""
    if response.status_code >= 400 and response.content:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert response.json()["status"] == response.status_code


def test_every_route_is_as_it_is_described(api: Api, tag: str) -> None:
    def check(case: schemathesis.Case) -> None:
        api.lay(case)
        # What is below a recording's picture by its path is a file of that name for PUT and DELETE.
        left_out = [allow_header_conformance] if case.path.endswith("/thumbnail") else []
        case.call_and_validate(
            api.url, session=api.session, timeout=20, allow_redirects=False,
            additional_checks=[_documented, _told], excluded_checks=left_out,
        )  # fmt: skip

    tests = get_all_tests(schema=api.schema, test_func=check, settings=_SETTINGS, given_kwargs={})
    asked = 0
    for operation, test in (each.ok() for each in tests):
        assert operation.tags in [[each] for each in TAGS], operation.label
        if operation.tags == [tag]:
            test()
            asked += 1
    assert asked
