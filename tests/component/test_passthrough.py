"""What of recfs.fuse.passthrough needs no mount: INIT answers, the extension, the words for people."""

import errno
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from recfs.errors import MountError
from recfs.fuse import acceleration, device, interpose
from recfs.fuse.acceleration import Acceleration
from recfs.fuse.device import Init, Wants, edit_init, mask_offer, offered, parse_init_answer
from recfs.fuse.loop import MAX_TASKS
from recfs.fuse.passthrough import FuseSession
from recfs.state.waits import WAITS

READAHEAD = 128 << 10
ASYNC_READ = 1 << 0
SECURITY_CTX = 1 << 32
ALL = Init.HANDLE_KILLPRIV_V2 | Init.CACHE_SYMLINKS | Init.INIT_EXT | Init.PASSTHROUGH


def request(flags: int, *, size: int = 64) -> bytes:
    """A kernel's FUSE_INIT with a fuse_init_in of this size: 16 before protocol 7.36."""
    body = struct.pack("=IIIII44x", 7, 45, READAHEAD, flags & 0xFFFFFFFF, flags >> 32)[:size]
    return struct.pack("=IIQQIIIHH", 40 + len(body), 26, 1, 0, 0, 0, 0, 0, 0) + body


def answer(flags: int, *, size: int = 64, error: int = 0) -> bytes:
    """libfuse's answer with a fuse_init_out of this size: 8, 24 or 64."""
    body = struct.pack(
        "=IIIIHHIIHHII24x", 7, 38, 4096, flags & 0xFFFFFFFF, 12, 9, 1 << 20, 1, 256, 0, flags >> 32, 0
    )  # fmt: skip
    return struct.pack("=IiQ", 16 + size, error, 1) + body[:size]


def stack_depth(data: bytes) -> int:
    return int(struct.unpack_from("=I", data, 16 + 36)[0])


# --- FUSE_INIT ---------------------------------------------------------------------------------------


def test_the_structs_are_as_large_as_the_kernel_says() -> None:
    assert (len(request(0)), len(request(0, size=16)), len(answer(0))) == (104, 56, 80)


@pytest.mark.parametrize(
    ("offer", "libfuse", "wants", "expected"),
    [
        pytest.param(0, ASYNC_READ, Wants(), ASYNC_READ, id="nothing is offered"),
        pytest.param(ALL, ASYNC_READ | Init.INIT_EXT, Wants(), ASYNC_READ | ALL, id="everything is offered"),
        pytest.param(ALL, ASYNC_READ, Wants(), ASYNC_READ | ALL, id="libfuse does not know INIT_EXT"),
        pytest.param(
            ALL, 0, Wants(passthrough=False), Init.HANDLE_KILLPRIV_V2 | Init.CACHE_SYMLINKS, id="passthrough is off"
        ),
        pytest.param(ALL, Init.WRITEBACK_CACHE, Wants(), ALL, id="the writeback cache goes"),
        pytest.param(
            ALL & ~Init.PASSTHROUGH, 0, Wants(), Init.HANDLE_KILLPRIV_V2 | Init.CACHE_SYMLINKS, id="old kernel"
        ),
        pytest.param(
            ALL & ~Init.HANDLE_KILLPRIV_V2, 0, Wants(), ALL & ~Init.HANDLE_KILLPRIV_V2, id="killpriv is not offered"
        ),
        pytest.param(
            ALL | SECURITY_CTX, Init.INIT_EXT | SECURITY_CTX, Wants(), ALL | SECURITY_CTX, id="libfuse's flags2 stay"
        ),
        pytest.param(
            ALL, ALL, Wants(passthrough=False), ALL & ~Init.PASSTHROUGH, id="a libfuse that asks by itself is overruled"
        ),
    ],
)
def test_what_is_offered_and_wanted_is_set(offer: int, libfuse: int, wants: Wants, expected: int) -> None:
    edited = edit_init(request(offer), answer(libfuse), wants)
    assert parse_init_answer(edited).flags == expected
    assert stack_depth(edited) == bool(expected & Init.PASSTHROUGH)
    assert len(edited) == 80


def test_flags2_mean_nothing_without_init_ext() -> None:
    offer = request(Init.PASSTHROUGH | Init.CACHE_SYMLINKS)
    assert offered(offer) == Init.CACHE_SYMLINKS
    edited = edit_init(offer, answer(0), Wants())
    assert parse_init_answer(edited).flags == Init.CACHE_SYMLINKS
    assert edited[16 + 32 : 16 + 40] == bytes(8)


def test_a_short_request_offers_no_flags2() -> None:
    assert offered(request(ALL, size=16)) == ALL & 0xFFFFFFFF
    assert parse_init_answer(edit_init(request(ALL, size=16), answer(0), Wants())).flags == (
        Init.HANDLE_KILLPRIV_V2 | Init.CACHE_SYMLINKS
    )


def test_an_answer_of_24_bytes_keeps_its_size_and_has_no_passthrough() -> None:
    edited = edit_init(request(ALL), answer(Init.WRITEBACK_CACHE, size=24), Wants())
    assert len(edited) == 40
    assert parse_init_answer(edited).flags == Init.HANDLE_KILLPRIV_V2 | Init.CACHE_SYMLINKS


def test_an_answer_of_8_bytes_is_left_alone() -> None:
    plain = answer(0, size=8)
    assert edit_init(request(ALL), plain, Wants()) == plain
    assert parse_init_answer(plain).flags == 0


def test_limits_are_set_and_the_rest_of_the_answer_stays() -> None:
    edited = edit_init(request(0), answer(0), Wants(max_background=20, congestion_threshold=15))
    assert parse_init_answer(edited) == device.Negotiated(0, max_background=20, max_readahead_bytes=READAHEAD)
    assert struct.unpack_from("=H", edited, 16 + 18) == (15,)
    assert edited[:24] == answer(0)[:24]  # header and version
    assert edited[16 + 20 : 16 + 32] == answer(0)[16 + 20 : 16 + 32]  # max_write, time_gran, max_pages


def test_a_refusal_is_not_edited_and_is_told() -> None:
    refusal = answer(0, error=-errno.EPROTO)
    assert edit_init(request(ALL), refusal, Wants()) == refusal
    with pytest.raises(OSError, match="did not accept"):
        parse_init_answer(refusal)


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ([], ALL),
        (["passthrough"], ALL & ~Init.PASSTHROUGH),
        (["killpriv", "reply"], ALL & ~Init.HANDLE_KILLPRIV_V2),
        (["killpriv", "passthrough", "passthrough"], ALL & ~Init.HANDLE_KILLPRIV_V2 & ~Init.PASSTHROUGH),
    ],
)
def test_tests_can_take_flags_from_the_offer(names: list[str], left: int) -> None:
    assert offered(mask_offer(request(ALL), names)) == left
    assert len(mask_offer(request(ALL, size=16), names)) == 56


# --- the extension -----------------------------------------------------------------------------------


@pytest.fixture
def dlopen_flags() -> int:
    return sys.getdlopenflags()


def test_a_missing_extension_is_told_and_nothing_else_happens(dlopen_flags: int) -> None:
    module, why_not = interpose.load("recfs.fuse._no_such_extension")
    assert module is None
    assert "_no_such_extension" in why_not
    assert sys.getdlopenflags() == dlopen_flags


def test_tests_can_leave_the_extension_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(interpose.WITHOUT_VARIABLE, "passthrough,reply")
    assert interpose.without() == {"passthrough", "reply"}
    assert interpose.load() == (None, "RECFS_TEST_WITHOUT says so")


def test_the_extension_loads_and_leaves_the_flags_as_they_were(dlopen_flags: int) -> None:
    module, why_not = interpose.load()
    assert module is not None, why_not
    assert module is interpose.reply
    assert sys.getdlopenflags() == dlopen_flags


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1, 2), TypeError),
        ((-1, 0, 0), OverflowError),
        ((1 << 64, 0, 0), OverflowError),
        ((1, 1 << 32, 0), OverflowError),
        ((1, 0, 1 << 31), OverflowError),
        ((1, 0, -1), OverflowError),
        (("1", 0, 0), TypeError),
    ],
)
def test_staging_refuses_nonsense(arguments: tuple[object, ...], error: type[Exception]) -> None:
    assert interpose.reply is not None
    with pytest.raises(error):
        interpose.reply.stage(*arguments)


def test_a_session_without_the_extension_stages_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpose, "reply", None)
    FuseSession(Path("/nowhere"), set(), wanted="auto").stage(1, acceleration.FOPEN_NOFLUSH, 3)


# --- the session, unmounted --------------------------------------------------------------------------


def test_a_session_that_never_opened_closes_and_has_no_backing_files() -> None:
    session = FuseSession(Path("/nowhere"), set(), wanted="auto")
    with pytest.raises(OSError, match="no backing files"):
        session.backing_open(0)
    session.backing_close(7)
    session.close()
    session.close()


def test_a_refused_mount_says_what_fusermount_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "fusermount3"
    helper.write_text("#!/bin/sh\necho 'fusermount3: no room today' >&2\nexit 1\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    session = FuseSession(tmp_path, {"fsname=recfs"}, wanted="auto")
    with pytest.raises(MountError, match=r"cannot be mounted \(fusermount3: no room today\); `recfs doctor`"):
        session.open(object())  # type: ignore[arg-type]
    session.close()


def test_a_helper_that_sends_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "fusermount3"
    helper.write_text("#!/bin/sh\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(OSError, match="sent no descriptor"):
        device.mount(tmp_path, ["fsname=recfs"])


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EPERM, "run recfs as root, or give its service AmbientCapabilities=CAP_SYS_ADMIN"),
        (errno.ELOOP, "put it on a volume or disk of its own"),
        (errno.EINVAL, "Invalid argument"),
    ],
)
def test_each_obstacle_has_its_remedy(code: int, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_device: int, _fd: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(device, "backing_open", refuse)
    session = FuseSession(Path("/nowhere"), set(), wanted="auto")
    session._flags = Init.PASSTHROUGH
    session._device = 1 << 30
    assert remedy in (session._obstacle(0, effective=True) or "")


# --- for people --------------------------------------------------------------------------------------


AUTO = Acceleration("auto")


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (replace(AUTO, reads=True, writes=True), "reads and writes"),
        (Acceleration("read", reads=True), "reads only"),
        (replace(AUTO, why_not="no luck; try again"), "off: no luck; try again"),
        (Acceleration("off"), "off: switched off in the configuration"),
        (AUTO, "off: not tried yet"),
    ],
)
def test_a_summary_is_one_line(told: Acceleration, line: str) -> None:
    assert told.summary() == line


def test_it_can_be_sent_as_json() -> None:
    assert replace(AUTO, reads=True, max_background=64).as_dict() == {
        "wanted": "auto",
        "reads": True,
        "writes": False,
        "why_not": None,
        "killpriv": False,
        "open_flags": False,
        "interrupts": False,
        "read_ahead_bytes": 0,
        "max_background": 64,
    }


def test_the_requests_that_may_wait_are_not_all_that_the_kernel_sends() -> None:
    """Read-ahead that waits for S3 and RELEASE stand in one queue."""
    assert WAITS < Wants().max_background < MAX_TASKS
