"""Lines of the audit log: one for each act, whatever names have in them."""

import errno
import json
import os

from hypothesis import given
from hypothesis import strategies as st

from recfs.core.observing.acts import DROPPED, OPS, Act, act_line, act_lines

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


_names = st.sampled_from((b"users", b"5", b"shared", b"temp", b"a b", b'"', b"\xc5\x99", b"\xff", b"\n", b"x"))
_paths = st.lists(_names, max_size=5)
_acts = st.builds(
    Act,
    st.sampled_from((AT_NS, AT_NS + 1, AT_NS + 10**9, -1, 2**63)),
    st.sampled_from(("unlink", "rename")),
    st.one_of(_paths.map(b"/".join), st.binary(max_size=12)),
    st.sampled_from((0, 1000)),
    st.just(100),
    st.sampled_from((0, 4711)),
    st.sampled_from((b"rm", b'"}\n', b"\xff")),
    st.sampled_from((0, errno.EACCES, 4711, "QuotaExceeded")),
    st.sampled_from((None, {"to": b"users/5/\xff"}, {"count": 3})),
    st.sampled_from(("", "control")),
)


@given(st.lists(_acts, max_size=8))
def test_many_lines_at_once_are_the_same_lines(acts: list[Act]) -> None:
    assert act_lines(acts).decode() == "".join(map(act_line, acts))
