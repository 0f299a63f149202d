"""Uploads by the gateway on a mount: one file or none, whoever is killed; and what the mount's limits refuse."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.client import facts
from tests.helpers.gateway_process import API, GatewayProcess, Reply

from .clients import need_root
from .harness import Mount

pytestmark = pytest.mark.modes("auto")

UID = 41_300
TUS = {"Tus-Resumable": "1.0.0"}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
DATA = random.Random(17).randbytes(24 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
AWAY = (OSError, http.client.HTTPException)


def users_on(mount: Mount) -> None:
    for user in ("5", "7"):
        (mount.path / "users" / user / "recordings").mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def gateway_on(mount: Mount, own: Path) -> Iterator[GatewayProcess]:
    """A gateway on a mount, with a directory of its own."""
    users_on(mount)
    own.mkdir()
    serving = GatewayProcess(mount.path, own, plain=False, store=mount.root).start()
    yield serving
    serving.stop()
    assert "Traceback" not in serving.log()


@pytest.fixture(scope="module")
def gateway(mount: Mount, workspace: Path) -> Iterator[GatewayProcess]:
    """A gateway on the module's mount."""
    with gateway_on(mount, workspace / "gateway") as serving:
        yield serving


@pytest.fixture
def own_gateway(store: Mount, workspace: Path) -> Iterator[GatewayProcess]:
    """One on a store of the test's own."""
    store.start()
    with gateway_on(store, workspace / f"gateway-{store.base.name}") as serving:
        yield serving


def metadata(**told: str) -> dict[str, str]:
    pairs = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in told.items())
    return {"Upload-Metadata": ",".join(pairs)}


def created(gateway: GatewayProcess, recording: str, length: int = len(DATA), *, user: str = "5", **told: str) -> Reply:
    about = metadata(filename="talk.mp4", recording=recording, **told)
    return gateway.ask("POST", "uploads", {**TUS, **about, "Upload-Length": str(length)}, user=user)


def upload(
    gateway: GatewayProcess, where: str, data: bytes = DATA, piece: int = 5 << 20, timeout_s: float = 60.0
) -> Reply:
    """Go on with an upload to its end as clients do: ask where, send, and ask again whatever becomes of that."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(*AWAY):
            told = gateway.ask("HEAD", where, TUS)
            if told.status in (404, 410):
                return told
            at = int(told.headers.get("upload-offset", "0"))
            if told.status == 200 and at == len(data):
                return told
            if told.status == 200:
                gateway.ask("PATCH", where, {**STREAM, "Upload-Offset": str(at)}, data[at : at + piece])
                continue
        time.sleep(0.02)  # it is away, or in work
    raise AssertionError(f"not done in {timeout_s} s: {gateway.log()}")


def settled(gateway: GatewayProcess, where: str, user: str) -> Reply:
    """What HEAD says once the upload is not in work any more; pytest-timeout ends this."""
    while (told := gateway.ask("HEAD", where, TUS, user=user)).status == 423:
        time.sleep(0.02)
    return told


def one_file(mount: Mount, recording: str, name: str = "source.mp4") -> None:
    folder = mount.path / "users/5/recordings" / recording
    assert os.listdir(folder) == [name]
    found = facts(folder / name, media=False)
    assert (found.sha256, found.size_bytes, found.whole) == (SHA256, len(DATA), True)


@pytest.mark.smoke
def test_an_upload_by_tus_is_committed_when_it_is_answered(mount: Mount, gateway: GatewayProcess) -> None:
    where = created(gateway, "1", sha256=SHA256).headers["location"]
    used = os.getxattr(mount.path / "users/5", "user.recfs.quota.used_bytes")
    assert int(used) >= len(DATA), "room is kept for all of it"
    answers = [
        gateway.ask("PATCH", where, {**STREAM, "Upload-Offset": str(at)}, DATA[at : at + (5 << 20)])
        for at in range(0, len(DATA), 5 << 20)
    ]
    assert [each.status for each in answers] == [204] * 5
    told = answers[-1]
    assert told.headers["etag"] == f'"{SHA256}"'
    assert os.getxattr(mount.path / "users/5/recordings/1/source.mp4", "user.recfs.state") == b"committed"
    one_file(mount, "1")
    assert mount.info(mount.path / "users/5/recordings/1/source.mp4")["xattrs"]["user.original_name"] == "talk.mp4"
    files = os.getxattr(mount.path / "users/5", "user.recfs.quota.used_files")
    assert int(files) == sum(len(names) for _, _, names in os.walk(mount.path / "users/5"))


def test_chunks_in_any_order_are_one_file(mount: Mount, gateway: GatewayProcess) -> None:
    document = f'{{"length": {len(DATA)}, "recording": "2", "filename": "a.mp4", "sha256": "{SHA256}"}}'.encode()
    made = gateway.ask("POST", "uploads", {"Content-Type": "application/json"}, document)
    assert made.status == 201
    where, size, count = made.headers["location"], made.json()["chunk_bytes"], made.json()["chunks"]
    assert (size, count) == (5_000_000, 6)

    def send(index: int) -> None:
        told = gateway.ask("POST", f"{where}/chunks/{index}", None, DATA[index * size : (index + 1) * size])
        assert told.status == 200

    senders = [threading.Thread(target=send, args=(index,)) for index in (3, 0, 5, 1, 4)]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    refused = gateway.ask("POST", f"{where}/complete")
    assert (refused.status, refused.json()["missing"]) == (409, [[2 * size, 3 * size]])
    send(2)
    told = gateway.ask("GET", f"{where}/progress").json()
    assert (told["state"], told["received_bytes"], told["missing"]) == ("waiting", len(DATA), [])
    done = [gateway.ask("POST", f"{where}/complete") for _ in range(2)]
    assert [(each.status, each.json()["sha256"]) for each in done] == [(201, SHA256)] * 2
    one_file(mount, "2")


def test_put_is_whole_or_not_at_all(mount: Mount, gateway: GatewayProcess) -> None:
    digest = {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"}
    path = "users/5/recordings/3/source.mp4"
    assert gateway.ask("PUT", path, digest, DATA[:-1] + b"x").status == 410
    assert not (mount.path / "users/5/recordings/3").exists()
    made = gateway.ask("PUT", path, digest, DATA)
    assert (made.status, made.headers["location"], made.headers["etag"]) == (201, f"{API}/{path}", f'"{SHA256}"')
    again = gateway.ask("PUT", path, digest, DATA)
    assert (again.status, again.headers["etag"]) == (204, f'"{SHA256}"')
    assert gateway.ask("PUT", path, None, b"other").status == 412
    assert gateway.ask("PUT", path, {"If-Match": f'"{"0" * 64}"'}, b"other").status == 412
    one_file(mount, "3")
    assert gateway.ask("PUT", path, {"If-Match": f'"{SHA256}"'}, b"other").status == 204
    assert (mount.path / path).read_bytes() == b"other"
    assert list((mount.path / "temp/5").glob("*/data")) == []


def _half(gateway: GatewayProcess, method: str, path: str, headers: dict[str, str]) -> tuple[bytes, bool]:
    """Send a header that announces bytes, and none of them; what came back, and whether that was 100."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as raw:
        fields = {"Host": "x", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = raw.recv(65_536)
    return answer, answer.startswith(b"HTTP/1.1 100")


def test_what_a_limit_has_no_room_for_is_refused_before_any_byte(mount: Mount, gateway: GatewayProcess) -> None:
    user = mount.path / "users/7"
    limits = {
        "max_bytes": (b"1000000", b"507", "QuotaExceeded"),
        "max_file_size": (b"1000000", b"413", "FileTooLarge"),
        "max_monthly_uploads": (b"0", b"429", "MonthlyLimit"),
        "max_files": (b"0", b"507", "QuotaExceeded"),
    }
    for limit, (value, status, kind) in limits.items():
        os.setxattr(user, f"user.recfs.quota.{limit}", value)
        try:
            refused = created(gateway, "1", user="7")
            assert (str(refused.status).encode(), refused.problem) == (status, kind)
            if status == b"429":
                assert 0 < int(refused.headers["retry-after"]) <= 31 * 86_400 + 1
            headers = gateway.headers({"Content-Length": str(len(DATA)), "Expect": "100-continue"}, "7")
            answer, asked_for_more = _half(gateway, "PUT", f"{API}/users/7/recordings/1/source.mp4", headers)
            assert (asked_for_more, answer.split()[1]) == (False, status)
        finally:
            os.removexattr(user, f"user.recfs.quota.{limit}")
    assert os.listdir(user / "recordings") == []
    assert int(os.getxattr(user, "user.recfs.quota.used_bytes")) == 0


def test_the_month_s_limit_counts_when_it_gets_its_name(mount: Mount, gateway: GatewayProcess) -> None:
    user = mount.path / "users/7"
    os.setxattr(user, "user.recfs.quota.max_monthly_uploads", b"1")
    try:
        places = [created(gateway, str(n), 3, user="7").headers["location"] for n in (1, 2)]
        told = [gateway.ask("PATCH", where, {**STREAM, "Upload-Offset": "0"}, b"abc", user="7") for where in places]
        assert [each.status for each in told] == [204, 429]
        assert settled(gateway, places[1], "7").status == 429
    finally:
        os.removexattr(user, "user.recfs.quota.max_monthly_uploads")
    assert settled(gateway, places[1], "7").headers["upload-offset"] == "3"
    assert sorted(each.name for each in user.glob("recordings/*/source.mp4")) == ["source.mp4"] * 2


def test_a_gateway_of_an_ordinary_user_makes_files_where_its_group_may(store: Mount, workspace: Path) -> None:
    """Directories of user 5 are of the gateway's group (2770), those of user 7 are closed to it."""
    need_root()
    store.start()
    users_on(store)
    for user, mode in (("5", 0o2770), ("7", 0o700)):
        (store.path / "temp" / user).mkdir()
        for folder in (f"users/{user}/recordings", f"users/{user}", f"temp/{user}"):
            os.chown(store.path / folder, 0, UID if user == "5" else 0)
            (store.path / folder).chmod(mode)
    own = workspace / f"gateway-{store.base.name}"
    own.mkdir()
    serving = GatewayProcess(store.path, own, plain=False, store=store.root, uid=UID).start()
    try:
        assert serving.ask("PUT", "users/5/recordings/1/source.mp4", None, DATA).status == 201
        where = created(serving, "2", sha256=SHA256).headers["location"]
        assert upload(serving, where).status == 200
        for recording in ("1", "2"):
            one_file(store, recording)
            made = (store.path / "users/5/recordings" / recording / "source.mp4").stat()
            assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (UID, UID, 0o660)
        for refused in (
            serving.ask("PUT", "users/7/recordings/1/source.mp4", None, DATA, user="7"), created(serving, "1", user="7")
        ):  # fmt: skip
            assert (refused.status, refused.problem) == (403, "AccessDenied")
        assert "Traceback" not in serving.log()
    finally:
        serving.stop()


def test_a_gateway_that_is_killed_anywhere_leaves_one_file_for_who_comes_back(
    own_gateway: GatewayProcess, store: Mount
) -> None:
    """Killed in the middle of a piece and when all bytes were sent; what it left of a PUT frees its room."""
    for number, (at, share) in enumerate([(15 << 20, 0.6), (20 << 20, 1.0)], start=1):
        where = created(own_gateway, str(number), sha256=SHA256).headers["location"]
        told = own_gateway.ask("PATCH", where, {**STREAM, "Upload-Offset": "0"}, DATA[:at])
        assert told.headers["upload-offset"] == str(at)
        piece = DATA[at : at + (5 << 20)]
        with sent(own_gateway, "PATCH", where, {**STREAM, "Upload-Offset": str(at)}, piece, share):
            if number == 1:
                with sent(own_gateway, "PUT", f"{API}/users/5/recordings/3/source.mp4", {}, DATA, 0.3):
                    while len(list((store.path / "temp/5").glob("*/data"))) < 2:
                        time.sleep(0.01)
                    own_gateway.kill()
            else:
                own_gateway.kill()
        used = int(os.getxattr(store.path / "users/5", "user.recfs.quota.used_bytes"))
        assert used == (2 if number == 1 else number) * len(DATA)
        own_gateway.start()
        told = upload(own_gateway, where)
        assert (told.status, told.headers["etag"]) == (200, f'"{SHA256}"')
        one_file(store, str(number))
    while list((store.path / "temp/5").glob("*/data")):  # the PUT's; pytest-timeout ends this
        time.sleep(0.01)
    assert int(os.getxattr(store.path / "users/5", "user.recfs.quota.used_bytes")) == 2 * len(DATA)
    assert not (store.path / "users/5/recordings/3").exists()


@contextlib.contextmanager
def sent(
    gateway: GatewayProcess, method: str, path: str, headers: dict[str, str], body: bytes, share: float
) -> Iterator[http.client.HTTPConnection]:
    """A request of whose body a share is sent, as long as the block lasts."""
    connection = gateway.connect()
    connection.putrequest(method, path)
    for name, value in gateway.headers({**headers, "Content-Length": str(len(body))}).items():
        connection.putheader(name, value)
    connection.endheaders(body[: int(len(body) * share)])
    try:
        yield connection
    finally:
        connection.close()


def test_a_daemon_that_is_killed_leaves_one_file_for_who_goes_on(own_gateway: GatewayProcess, store: Mount) -> None:
    """Between two pieces, and at whatever it is when all bytes were sent. The gateway goes on."""
    first, second = (created(own_gateway, number, sha256=SHA256).headers["location"] for number in ("1", "2"))
    half = 7 << 20
    assert own_gateway.ask("PATCH", first, {**STREAM, "Upload-Offset": "0"}, DATA[:half]).status == 204
    with sent(own_gateway, "PATCH", second, {**STREAM, "Upload-Offset": "0"}, DATA, 1.0) as connection:
        store.kill(unmount=False)
        with contextlib.suppress(*AWAY):
            connection.getresponse()
    told = own_gateway.ask("PATCH", first, {**STREAM, "Upload-Offset": str(half)}, DATA[half:])
    assert (told.status, told.problem) == (503, "DaemonGone")
    assert own_gateway.ask("HEAD", first, TUS).status == 503
    store.clear()
    store.remount()
    for number, where in (("1", first), ("2", second)):
        told = upload(own_gateway, where)
        assert (told.status, told.headers["etag"]) == (200, f'"{SHA256}"')
        one_file(store, number)


def test_chunks_come_in_any_order_however_many_there_are(gateway: GatewayProcess) -> None:
    """Half of 600 lie apart from each other in between: more than the attributes of a directory have room for."""
    data, size = DATA[:60_000], 100
    wanted = {"length": len(data), "user": "5", "recording": "611", "filename": "a.mp4", "chunk_bytes": size}
    begun = gateway.ask("POST", "uploads", {"Content-Type": "application/json"}, json.dumps(wanted).encode())
    assert begun.status == 201, begun.body
    where = begun.json()["upload_href"]
    order = [*range(0, 600, 2), *range(1, 600, 2)]
    for at in order:
        sent = gateway.ask("POST", f"{where}/chunks/{at}", body=data[at * size : (at + 1) * size])
        assert sent.status == 200, (at, sent.body)
    done = gateway.ask("POST", f"{where}/complete")
    assert (done.status, done.json()["sha256"]) == (201, hashlib.sha256(data).hexdigest())
    source = gateway.root / "users/5/recordings/611/source.mp4"
    assert not [name for name in os.listxattr(source) if name.startswith("user.upload.")]


def test_an_upload_that_is_begun_has_room_to_go_on(gateway: GatewayProcess) -> None:
    """Whatever is told of it: a plan that filled the attributes of its directory was taken, and its bytes never."""
    data, statuses = DATA[:1000], set()
    for size in range(1500, 3000, 50):
        about = metadata(filename="\N{GRINNING FACE}" * 20 + ".mp4", recording=str(20_000 + size), note="x" * size)
        begun = gateway.ask("POST", "uploads", {**TUS, **about, "Upload-Length": "1000"})
        statuses.add(begun.status)
        if begun.status == 201:
            sent = gateway.ask("PATCH", begun.headers["location"], {**STREAM, "Upload-Offset": "0"}, data)
            assert sent.status == 204, (size, sent.body)
        else:
            assert begun.problem == "UploadRefused", begun.body
    assert statuses == {201, 422}
