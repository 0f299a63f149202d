"""The commands of the S3 tier: what they ask the daemon, what they show, and how they end."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from recfs.cli.checks import Check, Level
from recfs.cli.checks.bucket import check_bucket, examine, reached
from recfs.cli.checks.owner import OwnStore, owner_check
from recfs.cli.common.exits import exit_code_of
from recfs.config import config_for_root
from recfs.core.ownership import MARK_KEY, Mark
from recfs.errors import NotSupported
from recfs.offline import offline
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    BucketMissing,
    ClockSkewed,
    ObjectStoreError,
    Throttled,
    Unreachable,
    Untrusted,
    WrongCredentials,
    WrongRegion,
)
from recfs.ports.objects import CheckReport, ObjectMeta
from tests.fake_object_store import FakeObjectStore
from tests.system.fake_daemon import ANSWERS, STATUS, FakeDaemon, run
from tests.system.s3_samples import (
    EXPLAINED,
    FAILED,
    FAR,
    LIFECYCLE,
    OUTCOME,
    PATH,
    QUEUE,
    RULE,
    TIER_RUN,
    TOTALS,
)

READ = {"path": PATH, "reason": "gone; bring it back", "tries": 2, "since": "2026-11-28T11:00:00+00:00"}

COMMANDS = {
    "queue": (
        ["queue"],
        ANSWERS["queue"],
        ["running", "the server said no", "42s", "1h", "1 MiB", "2 uploads, 1 deletion", "6 MiB not uploaded yet"],
    ),
    "queue retry": (["queue", "retry", "7", "8"], ANSWERS["queue_retry"], ["2 tried again now"]),
    "queue drop": (["queue", "drop", "7"], ANSWERS["queue_drop"], ["1 dropped"]),
    "evict": (["evict", PATH], OUTCOME, ["2 files evicted, 6 MiB, 1 were evicted before"]),
    "fetch": (["fetch", PATH], OUTCOME, ["2 files fetched, 6 MiB, 1 were here before"]),
    "pin": (["pin", PATH], ANSWERS["pin"], ["2 files pinned", "1 file fetched"]),
    "unpin": (["unpin", PATH], ANSWERS["pin"], ["2 files unpinned"]),
    "route explain": (
        ["route", "explain", PATH],
        EXPLAINED,
        ["below min_size", "decides", "in S3, storage class GLACIER_IR", "committed", "upload: rule 2"],
    ),
    "tier run": (
        ["tier", "run", "--dry-run"],
        TIER_RUN,
        ["1,234 files looked at", "1 would be queued for upload, 5 MiB", PATH],
    ),
    "restore": (["restore", PATH], ANSWERS["restore"], ["GLACIER", "asked for now; being restored"]),
    "presign": (["presign", PATH], ANSWERS["presign"], ["https://s3.invalid/bucket/source.mp4?X-Amz-Expires=3600"]),
    "lifecycle show": (
        ["lifecycle", "show"],
        LIFECYCLE,
        [
            "recfs-abort-multipart",
            "to GLACIER after 30 days",
            "unfinished uploads after 7 days",
            "`recfs lifecycle apply`",
        ],
    ),
    "lifecycle apply": (["lifecycle", "apply"], ANSWERS["lifecycle_apply"], ["written"]),
}


@pytest.mark.parametrize(("args", "document", "shown"), COMMANDS.values(), ids=COMMANDS)
def test_commands_show_the_daemons_answer(daemon: FakeDaemon, args: list[str], document: Any, shown: list[str]) -> None:
    plain = run(*args, "--root", daemon.root)
    assert plain.exit_code == 0, plain.output
    assert [text for text in shown if text not in plain.stdout] == []
    for machine in (run(*args, "--root", daemon.root, "--json"), run("--json", "--root", daemon.root, *args)):
        assert machine.exit_code == 0
        assert json.loads(machine.stdout) == document
        assert machine.stderr == ""


def test_commands_pass_their_options_on(daemon: FakeDaemon) -> None:
    for args in (
        ("queue", "--limit", "0"),
        ("queue", "retry", "--all"),
        ("queue", "drop", "3", "4"),
        ("evict", "users/5", "shared", "-r"),
        ("fetch", PATH),
        ("pin", PATH, "--recursive"),
        ("unpin", PATH),
        ("route", "explain", PATH, "--size", "9 MiB", "--age", "2d"),
        ("route", "explain", PATH),
        ("tier", "run"),
        ("restore", PATH, "--days", "3", "--tier", "Bulk"),
        ("presign", PATH, "--expires", "2h", "--put"),
        ("lifecycle", "apply", "--dry-run"),
    ):
        run(*args, "--root", daemon.root)
    assert daemon.asked == [
        ("queue", {"limit": 0}),
        ("queue_retry", {"all": True}),
        ("queue_drop", {"ids": [3, 4]}),
        ("evict", {"path": "users/5", "recursive": True}),
        ("evict", {"path": "shared", "recursive": True}),
        ("fetch", {"path": PATH, "recursive": False}),
        ("pin", {"path": PATH, "recursive": True, "pinned": True}),
        ("pin", {"path": PATH, "recursive": False, "pinned": False}),
        ("route_explain", {"path": PATH, "size_bytes": 9 << 20, "age_s": 172_800.0}),
        ("route_explain", {"path": PATH, "size_bytes": None, "age_s": None}),
        ("tier_run", {"dry_run": False}),
        ("restore", {"path": PATH, "days": 3, "tier": "Bulk"}),
        ("presign", {"path": PATH, "expires_s": 7200.0, "put": True}),
        ("lifecycle_apply", {"dry_run": True}),
    ]


KEPT = OUTCOME | {"kept": [{"path": PATH, "reason": "it is open"}], "kept_files": 3}


@pytest.mark.parametrize(
    ("args", "method", "answer", "shown"),
    [
        (["evict", PATH], "evict", KEPT, f"{PATH}: it is open\nand 2 more"),
        (["fetch", PATH], "fetch", KEPT, "it is open"),
        (["pin", PATH], "pin", OUTCOME | {"fetched": KEPT}, "it is open"),
        (["tier", "run"], "tier_run", TIER_RUN | {"kept": KEPT["kept"], "kept_files": 1}, "it is open"),
        (
            ["queue", "retry", "3"],
            "queue_retry",
            {"retried": [], "kept": [], "gone": [3]},
            "3: not in the queue (any more)",
        ),
        (
            ["queue", "retry", "3"],
            "queue_retry",
            {"retried": [], "kept": [{"id": 3, "reason": "its name looks temporary"}], "gone": []},
            "3: kept, its name looks temporary",
        ),
        (
            ["queue", "drop", "3"],
            "queue_drop",
            {"dropped": [], "kept": [{"id": 3, "reason": "a move cannot be dropped"}], "gone": []},
            "3: kept, a move cannot be dropped",
        ),
        (
            ["lifecycle", "apply", "--dry-run"],
            "lifecycle_apply",
            LIFECYCLE | {"dry_run": True, "applied": False},
            "would be written",
        ),
    ],
)
def test_what_could_not_be_done_is_exit_code_1(
    root: Path, args: list[str], method: str, answer: Any, shown: str
) -> None:
    with FakeDaemon(root, {method: answer}):
        plain, machine = run(*args, "--root", root), run(*args, "--root", root, "--json")
    assert (plain.exit_code, machine.exit_code) == (1, 1)
    assert shown in plain.stdout


@pytest.mark.parametrize(
    ("method", "args", "answer", "shown"),
    [
        ("queue", ["queue"], {"rows": [], "more": 0, "totals": TOTALS, "breaker": None}, "nothing to do"),
        (
            "queue",
            ["queue"],
            QUEUE | {"more": 5, "breaker": {"state": "open", "error": "no route"}},
            "S3 is down: no route",
        ),
        ("queue", ["queue"], QUEUE | {"more": 5}, "5 more rows with --limit 0"),
        ("status", ["status"], STATUS | {"s3": FAR | {"breaker": {"state": "open", "error": "no route"}}}, "no route"),
        ("status", ["status"], STATUS | {"s3": FAR | {"tier_run": TIER_RUN}}, "1,234 files looked at, 1 moved"),
        ("status", ["status"], STATUS | {"s3": FAR | {"failed_reads": [READ]}}, f"{PATH}: gone; bring it back (since"),
        (
            "tier_run",
            ["tier", "run"],
            TIER_RUN | {"steps": {"upload": {"files": 0, "bytes": 0}}, "moved": []},
            "every file is where it belongs",
        ),
        (
            "lifecycle_show",
            ["lifecycle", "show"],
            LIFECYCLE | {"bucket": [RULE], "differs": False},
            "the bucket has what the configuration says",
        ),
        (
            "lifecycle_show",
            ["lifecycle", "show"],
            LIFECYCLE | {"configured": [], "bucket": [], "differs": False},
            "no rules",
        ),
        (
            "lifecycle_show",
            ["lifecycle", "show"],
            LIFECYCLE | {"configured": [], "bucket": [RULE | {"enabled": False, "expire_days": 3}]},
            "delete after 3 days, drop unfinished uploads after 7 days (disabled)",
        ),
        (
            "route_explain",
            ["route", "explain", PATH],
            EXPLAINED | {"exists": False, "now": None, "move": None, "assumed": ["size", "age"], "s3": None},
            "--size and --age say otherwise",
        ),
        ("restore", ["restore", PATH], ANSWERS["restore"] | {"state": "restored"}, "restored: it can be read"),
    ],
)
def test_special_cases_are_told(root: Path, method: str, args: list[str], answer: Any, shown: str) -> None:
    with FakeDaemon(root, {method: answer}):
        result = run(*args, "--root", root)
    assert result.exit_code == 0, result.output
    assert shown in result.stdout


def test_a_refusal_of_s3_has_an_exit_code_of_its_own(root: Path) -> None:
    with FakeDaemon(root, {"lifecycle_show": AccessRefused("you may not; ask somebody who may")}):
        result = run("lifecycle", "show", "--root", root, "--json")
    assert (result.exit_code, result.stderr) == (8, "recfs: you may not; ask somebody who may\n")
    assert json.loads(result.stdout)["error"]["kind"] == "AccessRefused"
    assert exit_code_of(Unreachable("x")) == 8


def test_without_s3_the_refusal_is_the_daemons(root: Path) -> None:
    with FakeDaemon(root, {"queue": NotSupported("this store has no S3 tier; add [s3]")}):
        result = run("queue", "--root", root)
    assert (result.exit_code, result.stderr) == (7, "recfs: this store has no S3 tier; add [s3]\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["queue", "retry"], "or --all"),
        (["queue", "drop", "1", "--all"], "or --all"),
        (["queue", "drop", "one"], "'one'"),
        (["queue", "--limit", "-1"], "limit"),
        (["evict"], "PATH"),
        (["route", "explain", PATH, "--size", "9 Mib/s"], "size"),
        (["restore", PATH, "--days", "0"], "days"),
        (["restore", PATH, "--tier", "Fast"], "Expedited"),
        (["presign", PATH, "--expires", "soon"], "not a duration"),
        (["presign", PATH, "--expires", "8d"], "from 1 s to 604800 s"),
        (["presign", PATH, "--expires", "0s"], "from 1 s to 604800 s"),
    ],
)
def test_usage_errors(root: Path, args: list[str], message: str) -> None:
    result = run("--root", root, *args)
    assert result.exit_code == 2
    assert message in result.stderr


# --- without a daemon ------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(root: Path) -> Path:
    """A store that nobody serves, with a catalogue and nothing in it."""
    with offline(config_for_root(root)) as store:
        store.call("quota_show")
    return root


@pytest.fixture
def conf(stopped: Path, tmp_path: Path) -> Path:
    """A configuration with [s3] for it."""
    path = tmp_path / "recfs.conf"
    path.write_text(f'root = "{stopped}"\n[s3]\nbucket = "bucket"\n')
    return path


def test_the_queue_and_the_routes_are_read_from_the_catalogue(conf: Path) -> None:
    result = run("queue", "--config", conf, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == []


def test_a_stopped_store_without_s3_says_so(stopped: Path) -> None:
    result = run("queue", "--root", stopped)
    assert (result.exit_code, "add [s3]" in result.stderr) == (7, True)


def test_the_status_of_a_stopped_store_tells_of_s3(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("status", "--config", conf)
    assert result.exit_code == 0, result.output
    assert "s3://bucket/" in result.stdout


def test_everything_else_takes_a_daemon(conf: Path) -> None:
    for args in (
        ["queue", "retry", "--all"],
        ["queue", "drop", "--all"],
        ["evict", PATH],
        ["fetch", PATH],
        ["pin", PATH],
        ["tier", "run"],
        ["restore", PATH],
        ["presign", PATH],
        ["lifecycle", "show"],
        ["lifecycle", "apply"],
    ):
        result = run(*args, "--config", conf)
        assert result.exit_code == 6, args
        assert "`recfs mount` starts it" in result.stderr


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_drain_says_what_it_waits_for_and_what_is_left(root: Path) -> None:
    left = {"sealing": 2, "settling": 1, "dirty": 3, "s3": {"totals": TOTALS, "rows": [FAILED]}}
    answers = iter([{"pending": count, "left": left, "since_s": 7.5} for count in (8, 8, 1)])
    with FakeDaemon(root, {"drain": lambda params: next(answers)}) as daemon:
        result = run("drain", "--root", root, "--timeout", "12s")
    assert result.exit_code == 1
    assert [params["timeout_s"] for _method, params in daemon.asked] == [5.0, 5.0, 2.0]
    told = [params.get("since_s") for _method, params in daemon.asked]
    assert told == [None, 7.5, 7.5], "only the first one is to try again what was refused"
    lines = result.stdout.splitlines()
    assert lines[0].startswith("waiting for 2 closed files to be committed; 1 entry")
    assert lines[1] == "1 still pending after 12s", "what has not changed is not told again"
    assert f"  upload of {FAILED['path']} fails: the server said no; next try in 42s (3 so far)" in lines
    assert "  S3: 2 uploads, 1 deletion (1 running, 1 failed, 1 waiting), 6 MiB not uploaded yet, 1 MiB sent" in lines


def test_a_countdown_alone_is_not_told_again_but_another_try_is(root: Path) -> None:
    def left(attempts: int, next_try_s: float) -> dict[str, Any]:
        row = FAILED | {"attempts": attempts, "next_try_s": next_try_s}
        return {"pending": 1, "left": {"s3": {"totals": TOTALS, "rows": [row]}}}

    answers = iter([left(3, 42.0), left(3, 37.2), left(4, 0.0), {"pending": 0}])
    with FakeDaemon(root, {"drain": lambda params: next(answers)}):
        lines = run("drain", "--root", root, "--timeout", "1m").stdout.splitlines()
    assert [line.partition("next try ")[2] for line in lines[:-1]] == ["in 42s (3 so far)", "now (4 so far)"]


@pytest.mark.parametrize("as_json", [False, True])
def test_drain_ends_with_what_will_not_get_done_by_waiting(root: Path, as_json: bool) -> None:
    item = {
        "part": "catalogue", "path": "users/5/file", "reason": "constraint failed", "tries": 3, "next_try_s": 4.0,
        "remedy": "unmount and mount again",
    }  # fmt: skip
    with FakeDaemon(root, {"drain": {"pending": 12, "stuck": {"items": 12, "first": [item]}}}) as daemon:
        result = run("drain", "--root", root, "--timeout", "1d", *(["--json"] if as_json else []))
    assert (result.exit_code, len(daemon.asked)) == (1, 1)
    if not as_json:
        assert result.stdout.splitlines() == [
            "12 will not get done by waiting; everything else is done",
            "  catalogue: users/5/file: constraint failed; next try in 4s (3 so far): unmount and mount again",
            "  …: `recfs status` and `recfs queue` name them all",
        ]


def test_drain_names_what_waits_for_another_object(root: Path) -> None:
    row = FAILED | {"state": "waiting", "path": "users/5/a", "why": "waits for the move of users/5/b", "error": ""}
    left = {"s3": {"totals": TOTALS, "rows": [row]}}
    with FakeDaemon(root, {"drain": {"pending": 1, "left": left}}):
        result = run("drain", "--root", root, "--timeout", "1s")
    assert "  upload of users/5/a waits for the move of users/5/b" in result.stdout.splitlines()


def test_drain_says_what_s3_may_yet_replace(root: Path) -> None:
    with FakeDaemon(root, {"drain": {"pending": 0, "s3": True, "watched": 2}}):
        result = run("drain", "--root", root)
    assert result.exit_code == 0
    assert "2 files of them S3 may yet replace by what it was asked before" in result.stdout


def test_drain_does_not_say_that_all_is_in_a_bucket_that_lost_it(root: Path) -> None:
    with FakeDaemon(root, {"drain": {"pending": 0, "s3": True, "lost": "s3://b has lost the mark"}}):
        result = run("drain", "--root", root)
    assert result.exit_code == 1
    assert "s3://b has lost the mark" in result.stdout
    assert "in S3 where it belongs" not in result.stdout


def test_drain_ends_as_soon_as_it_is_done(root: Path) -> None:
    answers = iter([{"pending": 8, "left": {"sealing": 8}}, {"pending": 0, "s3": True}])
    with FakeDaemon(root, {"drain": lambda params: next(answers)}):
        result = run("drain", "--root", root, "--timeout", "1h")
    assert (result.exit_code, result.stdout) == (
        0,
        "waiting for 8 closed files to be committed\neverything is committed, and in S3 where it belongs there\n",
    )


# --- doctor ----------------------------------------------------------------------------------------------------------


def _raises(error: Exception) -> list[Check]:
    raise error


@pytest.mark.parametrize(
    ("error", "level", "remedy"),
    [
        (WrongCredentials("wrong; do this"), Level.FAIL, "credentials_file"),
        (AccessRefused("no; ask"), Level.FAIL, "list the bucket"),
        (BucketMissing("no bucket"), Level.FAIL, "bucket in [s3]"),
        (WrongRegion("elsewhere"), Level.FAIL, "region"),
        (ClockSkewed("late"), Level.FAIL, "timedatectl"),
        (Untrusted("who?"), Level.FAIL, "ca_bundle"),
        (BadAnswer("<html>"), Level.FAIL, "no S3 server"),
        (Unreachable("no route"), Level.WARN, "network"),
        (Throttled("slow down"), Level.WARN, "network"),
        (ObjectStoreError("something else"), Level.FAIL, "[s3]"),
        (ImportError("no boto3"), Level.FAIL, "scripts/setup"),
        (ZeroDivisionError("oops"), Level.FAIL, "[s3]"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_doctor_judges_the_bucket(error: Exception, level: Level, remedy: str) -> None:
    [check] = check_bucket("s3://bucket/", lambda: _raises(error), patience_s=10)
    assert (check.name, check.level) == ("s3", level)
    assert remedy in check.remedy
    assert str(error).partition(";")[0] in check.detail


def test_doctor_tells_of_a_good_bucket_and_of_warnings() -> None:
    report = CheckReport("bucket", "https://s3.invalid", "eu-west-1", -61.0, ("the clocks differ by 61 s",))
    good, warning = reached("s3://bucket/", report)
    assert (good.level, good.remedy) == (Level.OK, "")
    assert "https://s3.invalid, region eu-west-1, clocks differ by 61 s" in good.detail
    assert (warning.level, "timedatectl" in warning.remedy) == (Level.WARN, True)


def test_doctor_writes_reads_and_deletes_one_object() -> None:
    store = FakeObjectStore()
    checks = examine("s3://bucket/", store)
    assert [(check.name, check.level) for check in checks] == [
        ("s3", Level.OK), ("s3 access", Level.OK), ("s3 uploads", Level.OK),
    ]  # fmt: skip
    assert list(store.keys()) == []


def test_doctor_says_whose_the_prefix_is() -> None:
    store = FakeObjectStore()
    assert owner_check("s3://bucket/", store, OwnStore("mine")).detail.endswith("no store has taken it into use yet")
    mark = Mark("mine", "token", "studio", "/srv/recfs", "2026-11-28T11:00:00+00:00")
    store.put_small(MARK_KEY, mark.to_json(), only_new=True)
    assert owner_check("s3://bucket/", store, OwnStore("mine")).level is Level.OK
    lost = owner_check("s3://bucket/", FakeObjectStore(), OwnStore("mine", ["there"], 2))
    assert (lost.level, "2 files are in S3 only" in lost.detail) == (Level.FAIL, True)
    assert "recfs bucket claim" in lost.remedy
    for other in ("another", None):
        check = owner_check("s3://bucket/", store, OwnStore(other))
        assert (check.level, "/srv/recfs on studio" in check.detail) == (Level.FAIL, True)
        assert "recfs bucket claim --force" in check.remedy
    store.fail("get_small", AccessRefused("may not read; ask"))
    assert owner_check("s3://bucket/", store, OwnStore("mine")).level is Level.WARN


@pytest.mark.parametrize("operation", ["put_file", "get_range", "delete"])
def test_doctor_says_what_the_credentials_may_not(operation: str) -> None:
    store = FakeObjectStore()
    store.fail(operation, AccessRefused(f"may not {operation}; ask"))
    access = examine("s3://bucket/", store)[1]
    assert (access.name, access.level, access.detail) == ("s3 access", Level.FAIL, f"may not {operation}")
    assert "read, write and delete" in access.remedy
    assert operation == "delete" or list(store.keys()) == []


def test_doctor_finds_uploads_that_were_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeObjectStore()
    store.start_multipart("key", ObjectMeta())
    begun_ns = store.list_multiparts()[0].initiated_ns
    monkeypatch.setattr("recfs.cli.checks.bucket.time", SimpleNamespace(time_ns=lambda: begun_ns + 3600 * 10**9))
    assert examine("s3://bucket/", store)[2].level is Level.OK
    monkeypatch.setattr("recfs.cli.checks.bucket.time", SimpleNamespace(time_ns=lambda: begun_ns + 180_000 * 10**9))
    uploads = examine("s3://bucket/", store)[2]
    assert (uploads.level, "unfinished uploads left over: 1, the oldest" in uploads.detail) == (Level.WARN, True)
    assert "lifecycle apply" in uploads.remedy
    store.fail("list_multiparts", AccessRefused("may not list; ask"))
    assert "ListBucketMultipartUploads" in examine("s3://bucket/", store)[2].remedy


def test_doctor_does_not_wait_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    never = threading.Event()
    [check] = check_bucket("s3://bucket/", lambda: _raises(TimeoutError(str(never.wait(10)))), patience_s=0.01)
    never.set()
    assert capsys.readouterr().err == "recfs: waiting for s3://bucket/\n"
    assert (check.level, "no answer within" in check.detail) == (Level.WARN, True)


def test_doctor_looks_at_the_bucket_of_the_configuration(
    conf: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.cli.checks.doctor.host_checks", list)
    monkeypatch.setattr("recfs.cli.checks.doctor.version_checks", list)
    monkeypatch.setattr(
        "recfs.cli.checks.doctor.bucket_checks",
        lambda section, _id: check_bucket(section.url, lambda: _raises(BucketMissing("no such bucket")), patience_s=10),
    )
    result = run("doctor", "--config", conf)
    assert result.exit_code == 1
    assert "no such bucket" in result.stdout
    assert "no such bucket" not in run("doctor", "--root", stopped).stdout


@pytest.mark.parametrize("command", [["bucket", "owner"], ["lifecycle", "show"], ["fetch", PATH]], ids=" ".join)
def test_a_command_that_waits_for_s3_says_so(root: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Once, and again when S3 says something else."""
    monkeypatch.setattr("recfs.cli.common.store._QUIET_S", 0.01)
    monkeypatch.setattr("recfs.cli.common.store._LOOK_S", 0.01)
    said = iter([None, None, "refused", "refused", "refused", "timed out", "timed out"])
    over = trio.Event()

    def status(params: dict[str, Any]) -> Any:
        trouble = next(said, "ended")
        if trouble == "ended":
            over.set()
        return STATUS | {"s3": FAR | {"trouble": trouble}}

    async def refuse(params: dict[str, Any]) -> Any:
        await over.wait()
        raise Unreachable("no more")

    asked = {"bucket_owner": refuse, "lifecycle_show": refuse, "fetch": refuse}
    with FakeDaemon(root, {"status": status, **asked}):
        result = run(*command, "--root", root)
    lines = [line.removeprefix(f"recfs: waiting for {FAR['url']}") for line in result.stderr.splitlines()]
    assert (result.exit_code, lines[:3], lines[-1]) == (8, ["", ": refused", ": timed out"], "recfs: no more")


def test_a_retry_that_finds_everything_under_way_says_what_s3_says(root: Path) -> None:
    answer = {"retried": [], "kept": [], "gone": [], "running": 3, "trouble": "refused"}
    with FakeDaemon(root, {"queue_retry": answer}):
        shown = run("queue", "retry", "--all", "--root", root).stdout
    assert shown == "0 tried again now; 3 are being tried already: refused\n"


@pytest.mark.parametrize(
    ("verdict", "force", "says"),
    [
        ("foreign", True, "it is this store's now; it was another's, which changes nothing there any more"),
        ("foreign", False, "it is another store's: nothing there is changed"),
        ("free", False, "it is this store's now; it was nobody's"),
        ("lost", False, "it is this store's now; its mark and objects were gone"),
    ],
)
def test_claim_says_what_it_did(root: Path, verdict: str, force: bool, says: str) -> None:
    claimed = force or verdict in ("free", "lost")
    mark = {"store": "id", "host": "other", "root": "/srv/other", "since": "2026-11-01"}
    answer = {"url": "s3://media/", "verdict": verdict, "usable": claimed, "claimed": claimed, "owner": mark}
    with FakeDaemon(root, {"bucket_claim": answer}):
        result = run("bucket", "claim", *["--force"] * force, "--root", root)
    assert result.exit_code == (0 if claimed else 1)
    assert f"s3://media/: {says}" in result.stdout
    assert ("nothing there is changed" in result.stdout) is not claimed
