"""Credentials that change are taken without a restart, by boto3's requests and by recfs's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import CredentialRetrievalError

from recfs.ports import object_errors as kinds
from recfs.stores.s3.credentials import LOOK_S, RENEW_S, RotatingCredentials
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_faults import Request, Status
from tests.helpers.chaos_proxy import ChaosProxy
from tests.helpers.chaos_store import DATA, KEY, META, file, proxy, raised, read
from tests.helpers.s3_servers import Bucket, credentials_file, moto_bucket, moto_server

__all__ = ["file", "moto_bucket", "moto_server", "proxy"]


def signed_by(access_key: str) -> Callable[[Request], bool]:
    """Matches requests of this access key."""
    return lambda request: re.search(f"Credential={access_key}/", request.headers.get("authorization", "")) is not None


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"])
@pytest.mark.table
def test_a_key_that_was_replaced_in_its_file(
    code: str, moto_bucket: Bucket, proxy: ChaosProxy, file: int, tmp_path: Path
) -> None:
    """The old one is refused from some moment on."""
    stores = [S3Store(moto_bucket.section(endpoint=proxy.url, credentials_file=credentials_file(tmp_path)))]
    stores.append(S3Store(moto_bucket.section(endpoint=proxy.url, credentials_file=tmp_path / "credentials")))
    for store in stores:
        store.put_file(file, len(DATA), KEY, META)
        assert store.head(KEY) is not None
    proxy.add(Status(403, code), on=signed_by("recfs-test-access"))
    credentials_file(tmp_path, access_key="another-key", secret_key="another-secret-0123456789abcdef")
    own, boto = stores
    own.put_file(file, len(DATA), KEY, META)
    assert read(own) == DATA
    upload = boto.start_multipart("large", META)
    part = boto.upload_part("large", upload, 1, file, 0, len(DATA))
    assert boto.finish_multipart("large", upload, [part], META, len(DATA)).size_bytes == len(DATA)
    for store in stores:
        store.close()


@pytest.mark.slow
def test_a_key_that_stays_wrong_is_told(moto_bucket: Bucket, proxy: ChaosProxy, file: int) -> None:
    """And asked for once, not twice."""
    store = moto_bucket.store(endpoint=proxy.url)
    proxy.add(Status(403, "InvalidAccessKeyId"))
    raised(kinds.WrongCredentials, lambda: store.put_file(file, len(DATA), KEY, META))
    assert len(proxy.requests) == 1
    store.close()


def test_credentials_that_cannot_be_fetched_are_told(moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credentials server that is being restarted, say."""

    def fail() -> None:
        raise CredentialRetrievalError(provider="container-role", error_msg="<html>500</html>")

    store = moto_bucket.store()
    monkeypatch.setattr(store._session, "get_credentials", fail)
    raised(kinds.WrongCredentials, lambda: store.head(KEY))
    store.close()


class Plain:
    """Credentials that never change."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_frozen_credentials(self) -> str:
        return self.name


def test_when_they_are_read_again(tmp_path: Path) -> None:
    """When the file has changed, and after a refusal; a file that is half written leaves those in use."""
    path, now, loads = tmp_path / "credentials", [100.0], [0]
    path.write_text("one")

    def load() -> Plain | None:
        loads[0] += 1
        text = path.read_text()
        if text == "broken":
            raise ValueError(text)
        return Plain(text) if text else None

    credentials = RotatingCredentials(load, (str(path),), lambda: now[0])
    path.write_text("second")
    assert credentials.get_frozen_credentials() == "one", "it was looked at just now"
    now[0] += LOOK_S
    assert credentials.get_frozen_credentials() == "second"
    for unusable in ("broken", ""):
        path.write_text(unusable)
        now[0] += LOOK_S
        assert credentials.get_frozen_credentials() == "second"
    path.write_text("third")
    assert credentials.renew("second")
    assert credentials.get_frozen_credentials() == "third"
    asked = loads[0]
    assert not credentials.renew("third")
    assert credentials.renew("second"), "another thread was refused with the old ones"
    assert loads[0] == asked, "it was asked just now"
    now[0] += RENEW_S
    assert not credentials.renew("third")
    assert loads[0] == asked + 1
