"""Lines of the audit log: one for each act, whatever names have in them."""

import errno
import json
import os

from hypothesis import given
from hypothesis import strategies as st

from recfs.core.observing.acts import DROPPED, OPS, Act, act_line

AT_NS = 1_793_880_000_123_456_789


def act(**changes: object) -> Act:
    """One like many."""
    return Act(AT_NS, "unlink", b"users/5/recordings/1/x", 1000, 100, 4711, b"rm", 0)._replace(**changes)  # type: ignore[arg-type]


def test_what_a_line_says() -> None:
    assert json.loads(act_line(act(result=errno.EACCES, detail={"to": b"temp/6/1/y", "count": 3}, via="control"))) == {
        "time": "2026-11-05T12:00:00.123456Z", "time_ns": AT_NS, "op": "unlink", "result": "EACCES", "uid": 1000,
        "gid": 100, "pid": 4711, "command": "rm", "path": "users/5/recordings/1/x", "user": "5", "via": "control",
        "to": "temp/6/1/y", "count": 3,
    }  # fmt: skip
    assert json.loads(act_line(act(path=b"", result="QuotaExceeded")))["result"] == "QuotaExceeded"
    assert "path" not in json.loads(act_line(act(path=b"")))
    assert "user" not in json.loads(act_line(act(path=b"shared/x")))
    assert DROPPED in OPS


@given(st.binary(max_size=80), st.binary(max_size=20), st.binary(max_size=40))
def test_nothing_that_users_choose_makes_another_line_or_field(path: bytes, command: bytes, name: bytes) -> None:
    line = act_line(act(path=path, command=command, detail={"name": name}))
    assert line.endswith("}\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    told = json.loads(line)
    assert told["op"] == "unlink"
    assert told["result"] == "ok"
    assert os.fsencode(told["command"]) == command
    assert os.fsencode(told["name"]) == name
    assert os.fsencode(told.get("path", "")) == path
    if "path_hex" in told:
        assert bytes.fromhex(told["path_hex"]) == path
    assert set(told) <= {
        "time", "time_ns", "op", "result", "uid", "gid", "pid", "command", "path", "path_hex", "user", "name",
        "name_hex",
    }  # fmt: skip


def test_a_name_that_looks_like_the_end_of_a_line_is_none() -> None:
    forged = b'x"}\n{"time":"2026-11-05T12:00:00.000000Z","op":"unlink","result":"ok","uid":0,"path":"users/6'
    line = act_line(act(path=forged, command=b'"}\n{"uid":0'))
    assert line.count("\n") == 1
    assert json.loads(line)["uid"] == 1000
    assert json.loads(line)["path"] == forged.decode()
