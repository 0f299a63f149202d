"""The bucket of the S3 tier: reachable with these credentials, by this clock, and free to be written and deleted in."""

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from recfs.cli.checks import Check, Level
from recfs.cli.checks.features import impatient
from recfs.cli.checks.owner import OwnStore, owner_check
from recfs.core.naming import show_name
from recfs.core.units import format_duration
from recfs.errors import RecfsError
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    BucketMissing,
    ClockSkewed,
    ObjectStoreError,
    StoreOutage,
    Untrusted,
    WrongCredentials,
    WrongRegion,
)

if TYPE_CHECKING:
    from recfs.config import S3Section
    from recfs.ports.objects import CheckReport, ObjectStore

_NAME, _ACCESS, _UPLOADS = "s3", "s3 access", "s3 uploads"
_PATIENCE_S = 30.0
_QUIET_S = 3.0
"""So long nothing is said of it."""
_STALE_S = 86_400.0
"""An unfinished upload of that age is hardly one under way."""
_PROBE = b"written by recfs doctor, to be deleted at once\n"
_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (
        WrongCredentials,
        "set profile or credentials_file in [s3], or $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY for the daemon",
    ),
    (AccessRefused, "let these credentials list the bucket, and read, write and delete objects in it"),
    (BucketMissing, "check bucket in [s3], or make the bucket: recfs does not"),
    (WrongRegion, "set region in [s3] to the bucket's"),
    (ClockSkewed, "set this machine's clock (timedatectl set-ntp true): S3 refuses more than 15 minutes' difference"),
    (Untrusted, "set ca_bundle in [s3] to the certificate of the authority that signed the server's"),
    (BadAnswer, "check endpoint in [s3]: something answers there that is no S3 server"),
    (StoreOutage, "check endpoint in [s3] and the network; until it answers, files wait in the queue"),
)
_ELSE = "look at [s3] in recfs.conf"


def bucket_checks(section: "S3Section", own: OwnStore) -> list[Check]:
    """Return the findings about the bucket, for the store that is to use it.

    Writes and deletes one small object; waits up to 30 seconds.
    """

    def ask() -> list[Check]:
        from recfs.stores.s3.features.endpoint import who_answers
        from recfs.stores.s3.store import connect

        hurried = impatient(section)
        store = connect(hurried)
        try:
            return [*examine(section.url, store), owner_check(section.url, store, own)]
        except ObjectStoreError:
            other = who_answers(hurried)
            if other is None:
                raise
            return [_no_s3(section, other)]
        finally:
            store.close()

    return check_bucket(section.url, ask, patience_s=_PATIENCE_S)


def _no_s3(section: "S3Section", what: str) -> Check:
    """Judge an endpoint that is something else: nothing else that it says means what it would mean of S3."""
    detail = f"{section.url}: {section.endpoint or 'the endpoint'} is no S3 server but {what}"
    return Check(_NAME, Level.FAIL, detail, "set endpoint in [s3] to the address at which S3 is served")


def examine(url: str, store: "ObjectStore") -> list[Check]:
    """Judge a bucket. Raises what makes everything else pointless."""
    return [*reached(url, store.check()), _access(url, store), *_uploads(store, time.time_ns())]


def check_bucket(url: str, ask: Callable[[], list[Check]], *, patience_s: float) -> list[Check]:
    """Give what *ask* finds, or judge what it raises, within *patience_s*."""
    found: list[list[Check]] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            found.append(ask())
        except Exception as exc:
            errors.append(exc)

    # Looking a name up may take minutes and cannot be interrupted: left to itself after a while.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(min(_QUIET_S, patience_s))
    if thread.is_alive():
        click.echo(f"recfs: waiting for {show_name(url)}", err=True)
        thread.join(patience_s - _QUIET_S)
    if found:
        return found[0]
    if errors:
        return [_bad(_NAME, url, errors[0])]
    detail = f"{url}: no answer within {patience_s:g} s; files wait in the queue until there is"
    return [Check(_NAME, Level.WARN, detail, "check endpoint in [s3], the network, and name resolution")]


def reached(url: str, report: "CheckReport") -> list[Check]:
    """Judge what a bucket says of itself."""
    clock = f"clocks differ by {abs(report.skew_s):.0f} s"
    found = [Check(_NAME, Level.OK, f"{url} at {report.endpoint}, region {report.region}, {clock}")]
    for warning in report.warnings:
        remedy = _ntp() if "clock" in warning else _ELSE
        found.append(Check(_NAME, Level.WARN, warning, remedy))
    return found


def _access(url: str, store: "ObjectStore") -> Check:
    """Write an object, read it back, delete it: below the prefix, where no file's object can be."""
    from recfs.ports.objects import ObjectMeta

    key = f".recfs/doctor-{secrets.token_hex(8)}"
    with tempfile.TemporaryFile() as file:
        file.write(_PROBE)
        file.flush()
        try:
            try:
                store.put_file(file.fileno(), len(_PROBE), key, ObjectMeta(storage_class="STANDARD"))
                back = bytearray(len(_PROBE))
                store.get_range(key, 0, len(back), if_match=None, into=memoryview(back))
            finally:
                refused = store.delete([key])
            if refused:
                raise refused[0][1]
        except ObjectStoreError as exc:
            return _bad(_ACCESS, url, exc)
    if back != _PROBE:
        remedy = "something between here and the server changes what passes; look at endpoint in [s3]"
        return Check(_ACCESS, Level.FAIL, f"{url}: other bytes came back than were written", remedy)
    return Check(_ACCESS, Level.OK, f"{url}: may write, read and delete")


def _uploads(store: "ObjectStore", now_ns: int) -> list[Check]:
    """Unfinished multipart uploads that nobody can be working on any more."""
    try:
        ages = [(now_ns - each.initiated_ns) / 10**9 for each in store.list_multiparts()]
    except ObjectStoreError as exc:
        remedy = "let these credentials list unfinished uploads (s3:ListBucketMultipartUploads)"
        return [Check(_UPLOADS, Level.WARN, str(exc).partition("; ")[0], remedy)]
    stale = [age for age in ages if age > _STALE_S]
    if not stale:
        return [Check(_UPLOADS, Level.OK, f"{len(ages)} under way, none left over")]
    oldest = format_duration(round(max(stale) / 3600) * 3600.0)
    detail = f"unfinished uploads left over: {len(stale)}, the oldest {oldest} ago; they cost as much as objects"
    return [Check(_UPLOADS, Level.WARN, detail, "`recfs lifecycle apply` has S3 drop them by their age")]


def _ntp() -> str:
    return next(remedy for kind, remedy in _REMEDIES if kind is ClockSkewed)


def _bad(name: str, url: str, exc: Exception) -> Check:
    if isinstance(exc, ImportError):
        return Check(name, Level.FAIL, f"boto3 does not load: {exc}", "run scripts/setup again")
    remedy = next((text for kind, text in _REMEDIES if isinstance(exc, kind)), _ELSE)
    # Recorders go on while the server is away; with what else is wrong nothing will ever be uploaded.
    is_outage = isinstance(exc, StoreOutage) and not isinstance(exc, BadAnswer)
    # What follows the first semicolon of recfs's own messages is the remedy.
    what = str(exc).partition("; ")[0] if isinstance(exc, RecfsError) else f"{url}: {type(exc).__name__}: {exc}"
    return Check(name, Level.WARN if is_outage else Level.FAIL, what, remedy)
