"""Conformance to tus 1.0.0, sentence by sentence of the protocol, on real connections.

There is no public suite of it. The same table runs against another server with RECFS_TEST_TUS_URL=http://…/files: what
is recfs's own is left out there then, and what the other one does otherwise fails, by name.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.helpers.gateway_process import GatewayProcess, Reply

TUS = {"Tus-Resumable": "1.0.0"}
STREAM = {**TUS, "Content-Type": "application/offset+octet-stream"}
DATA = bytes(range(256)) * 40
OTHER = os.environ.get("RECFS_TEST_TUS_URL")
own = pytest.mark.skipif(OTHER is not None, reason="this is recfs's own, and another server was asked for")


class Server:
    """A tus server, asked on a connection for each request."""

    def __init__(self, url: str, headers: Mapping[str, str], tree: Path | None) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = str(parts.hostname), int(parts.port or 80), parts.path
        self.token = headers
        self.tree = tree
        self.made = 0

    def ask(
        self, method: str, where: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, urlsplit(where).path, body, {**self.token, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def metadata(self, **more: str) -> str:
        self.made += 1
        told = {"filename": "talk.mp4", "recording": str(self.made), **more}
        return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in told.items())

    def create(self, length: int = len(DATA), headers: Mapping[str, str] | None = None, **more: str) -> str:
        told = {**TUS, "Upload-Length": str(length), "Upload-Metadata": self.metadata(**more), **(headers or {})}
        made = self.ask("POST", self.path, told)
        assert made.status == 201, made
        return made.headers["location"]

    def append(self, where: str, offset: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("PATCH", where, {**STREAM, "Upload-Offset": str(offset), **(headers or {})}, body)

    def offset(self, where: str) -> int:
        told = self.ask("HEAD", where, TUS)
        assert told.status in (200, 204)
        return int(told.headers["upload-offset"])

    def recording(self) -> Path:
        """The recording of the last upload that was made."""
        assert self.tree is not None
        return self.tree / "users/5/recordings" / str(self.made)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if OTHER is not None:
        yield Server(OTHER, {}, None)
        return
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="recfs-web-", dir=memory if memory.is_dir() else None) as made:
        tree, state = Path(made, "tree"), Path(made, "own")
        for each in (tree / "users/5/recordings", tree / "users/7/recordings", tree / "temp", state):
            each.mkdir(parents=True)
        gateway = GatewayProcess(tree, state, plain=True).start()
        try:
            yield Server(f"http://127.0.0.1:{gateway.port}/api/v1/uploads", gateway.headers(), tree)
            assert "Traceback" not in gateway.log()
        finally:
            gateway.stop()


# -- Core ---


def test_options_tell_what_is_spoken(server: Server) -> None:
    told = server.ask("OPTIONS", server.path)
    assert told.status in (200, 204)
    assert "1.0.0" in told.headers["tus-version"].split(",")
    extensions = told.headers["tus-extension"].split(",")
    assert {"creation", "creation-with-upload", "expiration", "termination"} <= set(extensions)


@own
def test_options_tell_of_checksums(server: Server) -> None:
    told = server.ask("OPTIONS", server.path)
    assert "checksum" in told.headers["tus-extension"].split(",")
    assert {"sha1", "sha256"} <= set(told.headers["tus-checksum-algorithm"].split(","))
    assert int(told.headers["tus-max-size"]) > 1 << 40


def test_head_tells_offset_and_length_and_is_not_kept(server: Server) -> None:
    where = server.create()
    told = server.ask("HEAD", where, TUS)
    assert told.status in (200, 204)
    assert (told.headers["upload-offset"], told.headers["upload-length"]) == ("0", str(len(DATA)))
    assert "no-store" in told.headers["cache-control"]
    assert told.headers["tus-resumable"] == "1.0.0"
    assert told.body == b""


def test_head_of_what_there_is_not_has_no_offset(server: Server) -> None:
    for name in (
        "5.01234567-89ab-cdef-0123-456789abcdef",
        "nonsense",
        "5.%2e%2e",
        "7.01234567-89ab-cdef-0123-456789abcdef",
    ):
        told = server.ask("HEAD", f"{server.path}/{name}", TUS)
        assert told.status in (403, 404, 410)
        assert "upload-offset" not in told.headers


def test_bytes_go_on_at_the_offset_until_all_are_there(server: Server) -> None:
    where = server.create()
    for at in range(0, len(DATA), 3000):
        piece = DATA[at : at + 3000]
        told = server.append(where, at, piece)
        assert told.status == 204
        assert told.headers["tus-resumable"] == "1.0.0"
        assert int(told.headers["upload-offset"]) == at + len(piece)
    assert server.offset(where) == len(DATA)
    if server.tree is not None:
        assert (server.recording() / "source.mp4").read_bytes() == DATA


def test_another_offset_is_a_conflict_and_changes_nothing(server: Server) -> None:
    where = server.create()
    assert server.append(where, 0, DATA[:100]).status == 204
    for wrong in (0, 99, 101, len(DATA)):
        assert server.append(where, wrong, DATA[wrong:]).status == 409
    assert server.offset(where) == 100


@pytest.mark.parametrize("wrong", ["-1", "1.5", "0x10", "", "+0", " ", "1e3", "\u0661", "9" * 40])
def test_an_offset_that_is_none(server: Server, wrong: str) -> None:
    where = server.create()
    told = server.ask("PATCH", where, {**STREAM, "Upload-Offset": wrong.encode().decode("latin-1")}, b"x")
    assert told.status in (400, 403, 409)
    assert server.offset(where) == 0


def test_a_patch_without_an_offset(server: Server) -> None:
    where = server.create()
    assert server.ask("PATCH", where, STREAM, b"x").status in (400, 403)
    assert server.offset(where) == 0


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "application/offset+octet-streams"])
def test_another_type_of_body_is_not_taken(server: Server, kind: str) -> None:
    where = server.create()
    told = server.ask("PATCH", where, {**TUS, "Upload-Offset": "0", "Content-Type": kind}, b"x")
    assert told.status in (403, 415)
    assert server.offset(where) == 0


def test_a_patch_of_what_there_is_not(server: Server) -> None:
    told = server.append(f"{server.path}/5.01234567-89ab-cdef-0123-456789abcdef", 0, b"x")
    assert told.status in (403, 404, 410)


@pytest.mark.parametrize("version", ["0.2.2", "1.0", "2.0.0", None])
def test_another_version_is_refused_and_told_which_there_is(server: Server, version: str | None) -> None:
    where = server.create()
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    if version is not None:
        headers["Tus-Resumable"] = version
    told = server.ask("PATCH", where, headers, DATA)
    assert told.status == 412
    assert "1.0.0" in told.headers["tus-version"]
    assert server.offset(where) == 0
    assert server.ask("HEAD", where, {"Tus-Resumable": version} if version else {}).status == 412


def test_a_post_may_stand_for_another_method(server: Server) -> None:
    where = server.create()
    override = {"X-HTTP-Method-Override": "PATCH"}
    told = server.ask("POST", where, {**STREAM, "Upload-Offset": "0", **override}, DATA[:10])
    assert (told.status, told.headers["upload-offset"]) == (204, "10")
    assert server.ask("POST", where, {**TUS, "X-HTTP-Method-Override": "DELETE"}).status == 204
    assert server.ask("HEAD", where, TUS).status in (404, 410)


def test_an_empty_patch_changes_nothing(server: Server) -> None:
    where = server.create()
    told = server.append(where, 0, b"")
    assert (told.status, told.headers["upload-offset"]) == (204, "0")
    assert server.append(where, 0, DATA).status == 204


def test_bytes_that_came_before_the_connection_was_lost_count(server: Server) -> None:
    where = server.create()
    with socket.create_connection((server.host, server.port), timeout=30) as raw:
        fields = {**server.token, **STREAM, "Upload-Offset": "0", "Content-Length": str(len(DATA)), "Host": "x"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        raw.sendall(f"PATCH {urlsplit(where).path} HTTP/1.1\r\n{head}\r\n".encode() + DATA[:7000])
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(4096):  # until it is heard of
            pass
    assert server.offset(where) == 7000
    assert server.append(where, 7000, DATA[7000:]).headers["upload-offset"] == str(len(DATA))


def test_more_than_was_announced_is_not_taken(server: Server) -> None:
    where = server.create(100)
    assert server.append(where, 0, bytes(101)).status in (400, 403, 413)
    assert server.offset(where) in (0, 100)


@own
def test_a_body_without_a_length_is_taken_as_far_as_it_goes(server: Server) -> None:
    where = server.create()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    headers = {**server.token, **STREAM, "Upload-Offset": "0"}
    connection.request("PATCH", urlsplit(where).path, iter([DATA[:100], DATA[100:300]]), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "300")
    connection.close()


# -- Creation ---


def test_a_creation_has_a_place_and_a_version(server: Server) -> None:
    made = server.ask("POST", server.path, {**TUS, "Upload-Length": "10", "Upload-Metadata": server.metadata()})
    assert made.status == 201
    assert made.headers["tus-resumable"] == "1.0.0"
    assert made.headers["location"]


@pytest.mark.parametrize("length", ["-1", "abc", "1.5", "", "+1", "9" * 40, "1 1"])
def test_a_length_that_is_none(server: Server, length: str) -> None:
    made = server.ask("POST", server.path, {**TUS, "Upload-Length": length, "Upload-Metadata": server.metadata()})
    assert made.status in (400, 413)
    assert "location" not in made.headers


def test_a_creation_without_a_length(server: Server) -> None:
    assert server.ask("POST", server.path, {**TUS, "Upload-Metadata": server.metadata()}).status == 400


@own
def test_a_length_that_comes_later_is_not_offered(server: Server) -> None:
    made = server.ask("POST", server.path, {**TUS, "Upload-Defer-Length": "1", "Upload-Metadata": server.metadata()})
    assert made.status == 400
    assert "creation-defer-length" not in server.ask("OPTIONS", server.path).headers["tus-extension"]


def test_a_larger_one_than_tus_max_size_is_refused(server: Server) -> None:
    most = server.ask("OPTIONS", server.path).headers.get("tus-max-size")
    if most is not None:
        told = {**TUS, "Upload-Length": str(int(most) + 1), "Upload-Metadata": server.metadata()}
        assert server.ask("POST", server.path, told).status in (400, 413)


def test_metadata_is_told_as_it_was_sent(server: Server) -> None:
    raw = server.metadata(note="Привет", flag="")
    raw = raw.replace("flag ", "flag")
    made = server.ask("POST", server.path, {**TUS, "Upload-Length": "10", "Upload-Metadata": raw})
    assert made.status == 201
    assert server.ask("HEAD", made.headers["location"], TUS).headers["upload-metadata"] == raw


@pytest.mark.parametrize(
    "raw", ["filename !!!", "a YQ==,a YQ==", "ключ YQ==", "a YQ== b", ",", "filename dGFsay5tcDQ=,"]
)
def test_metadata_that_is_none(server: Server, raw: str) -> None:
    told = {**TUS, "Upload-Length": "10", "Upload-Metadata": raw.encode().decode("latin-1")}
    assert server.ask("POST", server.path, told).status == 400


@own
def test_an_empty_one_is_done_at_once(server: Server) -> None:
    told = {**TUS, "Upload-Length": "0", "Upload-Metadata": server.metadata(path="assets/notes.txt")}
    made = server.ask("POST", server.path, told)
    assert (made.status, made.headers["upload-offset"]) == (201, "0")
    assert (server.recording() / "assets/notes.txt").read_bytes() == b""


def test_another_version_makes_nothing(server: Server) -> None:
    told = {"Tus-Resumable": "0.2.2", "Upload-Length": "10", "Upload-Metadata": server.metadata()}
    made = server.ask("POST", server.path, told)
    assert (made.status, "location" in made.headers) == (412, False)


# -- Creation with upload ---


def test_first_bytes_may_come_with_the_creation(server: Server) -> None:
    told = {**STREAM, "Upload-Length": str(len(DATA)), "Upload-Metadata": server.metadata()}
    made = server.ask("POST", server.path, told, DATA[:5000])
    assert (made.status, made.headers["upload-offset"]) == (201, "5000")
    assert server.append(made.headers["location"], 5000, DATA[5000:]).status == 204


def test_all_bytes_may_come_with_the_creation(server: Server) -> None:
    told = {**STREAM, "Upload-Length": str(len(DATA)), "Upload-Metadata": server.metadata()}
    made = server.ask("POST", server.path, told, DATA)
    assert (made.status, made.headers["upload-offset"]) == (201, str(len(DATA)))
    if server.tree is not None:
        assert (server.recording() / "source.mp4").read_bytes() == DATA


@own
def test_a_creation_with_another_type_of_body(server: Server) -> None:
    told = {**TUS, "Content-Type": "text/plain", "Upload-Length": "3", "Upload-Metadata": server.metadata()}
    assert server.ask("POST", server.path, told, b"abc").status == 415


# -- Checksum ---


def _checksum(algorithm: str, data: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"}


@own
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_bytes_count_only_with_their_checksum(server: Server, algorithm: str) -> None:
    where = server.create()
    refused = server.append(where, 0, DATA[:100], _checksum(algorithm, DATA[:99]))
    assert (refused.status, server.offset(where)) == (460, 0)
    assert server.append(where, 0, DATA[:100], _checksum(algorithm, DATA[:100])).status == 204
    assert server.offset(where) == 100


@own
@pytest.mark.parametrize(
    "raw", ["crc32 AAAAAA==", "sha1 !!!", "sha1", "sha1 YQ==", "SHA1 2jmj7l5rSw0yVb/vlWAYkK/YBwk="]
)
def test_checksums_that_are_not_offered_or_none(server: Server, raw: str) -> None:
    where = server.create()
    assert server.append(where, 0, DATA[:100], {"Upload-Checksum": raw}).status == 400
    assert server.offset(where) == 0


@own
def test_a_checksum_of_the_bytes_of_a_creation(server: Server) -> None:
    told = {**STREAM, "Upload-Length": str(len(DATA)), "Upload-Metadata": server.metadata()}
    assert server.ask("POST", server.path, {**told, **_checksum("sha1", b"x")}, DATA[:9]).status == 460


@own
def test_a_creation_whose_first_bytes_are_refused_leaves_nothing(server: Server) -> None:
    assert server.tree is not None
    server.create()
    staged = server.tree / "temp/5"
    before = sorted(os.listdir(staged))
    told = {**STREAM, "Upload-Length": "9", "Upload-Metadata": server.metadata()}
    for status, more, body in ((460, _checksum("sha1", b"x"), DATA[:9]), (413, {}, DATA[:10])):
        made = server.ask("POST", server.path, {**told, **more}, body)
        assert (made.status, "location" in made.headers) == (status, False)
        assert sorted(os.listdir(staged)) == before
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    told["Upload-Metadata"] = server.metadata()
    connection.request("POST", server.path, iter([DATA[:5], DATA[:5]]), {**server.token, **told}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    assert sorted(os.listdir(staged)) == before


# -- Expiration ---


def test_an_unfinished_upload_tells_when_it_expires(server: Server) -> None:
    where = server.create()
    told = server.append(where, 0, DATA[:100])
    assert parsedate_to_datetime(told.headers["upload-expires"]).timestamp() > parsedate_to_datetime(
        told.headers["date"]
    ).timestamp() + (3600 if OTHER is None else 0)


# -- Termination ---


def test_an_upload_that_was_ended_is_gone(server: Server) -> None:
    where = server.create()
    server.append(where, 0, DATA[:100])
    assert server.ask("DELETE", where, TUS).status == 204
    assert server.ask("HEAD", where, TUS).status in (404, 410)
    assert server.append(where, 100, DATA[100:]).status in (404, 410)
    assert server.ask("DELETE", where, TUS).status in (404, 410)


# -- What tus leaves open, and users of other servers complain about ---


@own
def test_a_last_request_whose_answer_was_lost_has_the_same_answer(server: Server) -> None:
    where = server.create()
    first = server.append(where, 0, DATA)
    again = server.append(where, len(DATA), b"")
    told = server.ask("HEAD", where, TUS)
    for name in ("upload-offset", "etag", "repr-digest", "content-location"):
        assert first.headers[name] == again.headers[name] == told.headers[name]
    assert first.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert server.append(where, 0, DATA).status == 409
    assert [each.name for each in server.recording().iterdir()] == ["source.mp4"]


@own
def test_another_digest_than_was_announced_is_gone_and_may_begin_anew(server: Server) -> None:
    where = server.create(sha256="0" * 64)
    assert server.append(where, 0, DATA).status == 410
    assert server.ask("HEAD", where, TUS).status == 410
    assert not server.recording().exists()
    where = server.create(sha256=hashlib.sha256(DATA).hexdigest().upper())
    assert server.append(where, 0, DATA).status == 204


@own
def test_a_name_that_is_taken_is_refused_before_any_byte(server: Server) -> None:
    server.append(server.create(), 0, DATA)
    told = {**TUS, "Upload-Length": "10", "Upload-Metadata": server.metadata(recording=str(server.made))}
    made = server.ask("POST", server.path, told)
    assert (made.status, made.problem) == (412, "Exists")


@own
@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"filename": "talk.exe"}, 422), ({"filename": ""}, 422), ({"path": "../../1/source.mp4"}, 400),
        ({"path": "a/../b.txt"}, 400), ({"path": "/etc/passwd"}, 400), ({"path": "a\n.txt"}, 400),
        ({"path": ".x"}, 400), ({"path": "x.mp4.part"}, 400), ({"filetype": "text"}, 400),
        ({"recording": "../1"}, 400), ({"recording": "x"}, 400), ({"user": "7"}, 404),
        ({"user": "../5"}, 404), ({"user": "05"}, 404), ({"sha256": "x"}, 400),
        ({"chunk_bytes": "0"}, 422), ({"path": "x" * 256}, 400),
    ],
)  # fmt: skip
def test_what_is_refused_before_any_byte(server: Server, told: dict[str, str], status: int) -> None:
    before = sorted((server.tree or Path()).rglob("*"))
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": server.metadata(**told)}
    made = server.ask("POST", server.path, headers)
    assert (made.status, made.headers["content-type"]) == (status, "application/problem+json")
    assert sorted((server.tree or Path()).rglob("*")) == before


@own
def test_who_may_not(server: Server) -> None:
    told = {**TUS, "Upload-Length": "10", "Upload-Metadata": server.metadata()}
    where = server.create()
    nobody = Server(f"http://{server.host}:{server.port}{server.path}", {}, server.tree)
    assert nobody.ask("POST", server.path, told).status == 401
    assert nobody.ask("HEAD", where, TUS).status == 401
    assert re.fullmatch(r"/api/v1/uploads/5\.[0-9a-f-]{36}", where)
