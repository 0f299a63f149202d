"""Empty directories that a server keeps in the place of an object: they go, and nothing that holds an object does."""

from __future__ import annotations

from typing import Any

import pytest

from recfs.ports.objects import MIB
from recfs.stores.s3 import folders
from recfs.stores.s3.folders import remove_empty
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_faults import Request, Status, Xml
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.chaos_store import DATA, META, file, proxy, store
from tests.helpers.s3_servers import moto_bucket, moto_server

__all__ = ["file", "moto_bucket", "moto_server", "proxy", "store"]

LISTING = operation("GET", "delimiter")


class Server:
    """Keys and directories, as a file system has them."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.deleted: list[str] = []

    def ask(self, operation: str, **parameters: str) -> dict[str, Any]:
        if operation == "delete_object":
            self.names.discard(parameters["Key"])
            self.deleted.append(parameters["Key"])
            return {}
        prefix = parameters["Prefix"]
        below = {name.removeprefix(prefix).partition("/") for name in self.names if name.startswith(prefix)}
        folders = sorted({prefix + first + "/" for first, slash, _ in below if slash})
        keys = sorted(prefix + first for first, slash, _ in below if first and not slash)
        return {"Contents": [{"Key": key} for key in keys], "CommonPrefixes": [{"Prefix": each} for each in folders]}


def test_empty_directories_go_from_below() -> None:
    server = Server("rec/name/", "rec/name/a/", "rec/name/a/b/", "rec/name/c/", "rec/names/", "rec/other")
    assert remove_empty(server.ask, "rec/name")
    assert server.names == {"rec/names/", "rec/other"}
    assert server.deleted[-1] == "rec/name/"


@pytest.mark.parametrize("name", ["rec/name/x", "rec/name/a/b/x"])
def test_one_object_keeps_everything(name: str) -> None:
    server = Server("rec/name/", "rec/name/a/", "rec/name/c/", name)
    assert not remove_empty(server.ask, "rec/name")
    assert server.deleted == []


def test_where_there_is_no_directory_nothing_is_deleted() -> None:
    server = Server("rec/name", "rec/name2/")
    assert not remove_empty(server.ask, "rec/name")
    assert server.deleted == []


def test_too_many_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LIMIT", 10)
    server = Server("rec/name/", *(f"rec/name/{number}/" for number in range(11)))
    assert not remove_empty(server.ask, "rec/name")
    assert server.deleted == []


def test_an_upload_is_finished_when_the_directory_in_its_place_is_gone(
    store: S3Store, proxy: ChaosProxy, file: int
) -> None:
    def listed(request: Request) -> str:
        prefix = "users/5/name/" if "name%2F" in request.target else "users/5/name"
        folder = "" if prefix.endswith("/") else "<CommonPrefixes><Prefix>users/5/name/</Prefix></CommonPrefixes>"
        return f"<ListBucketResult><IsTruncated>false</IsTruncated><Prefix>{prefix}</Prefix>{folder}</ListBucketResult>"

    upload_id = store.start_multipart("users/5/name", META)
    part = store.upload_part("users/5/name", upload_id, 1, file, 0, len(DATA))
    proxy.add(Status(500, "InternalError"), on=operation("POST", "uploadId="), times=1)
    proxy.add(Xml(listed), on=LISTING)
    made = store.finish_multipart("users/5/name", upload_id, [part], META, len(DATA))
    assert made.size_bytes == len(DATA) < MIB
    deleted = [request.target for request in proxy.requests if request.method == "DELETE"]
    assert [target.rpartition("/users")[2] for target in deleted] == ["/5/name/"]
