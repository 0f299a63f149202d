"""The place in the bucket where features are tried: below a prefix of its own, and empty again afterwards.

Whatever is made is remembered before it is asked for, so that it is removed whatever became of the answer. A run that
was killed leaves what it had made at that moment; one that comes an hour later finds it by its prefix and removes it.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from recfs.config import S3Section
from recfs.errors import RecfsError
from recfs.ports.object_errors import ObjectMissing, ObjectStoreError
from recfs.ports.objects import DELETE_BATCH, LifecycleRule, ObjectMeta
from recfs.stores.s3.admin import RULE_MARK
from recfs.stores.s3.body import crc32c_of
from recfs.stores.s3.faults import faults
from recfs.stores.s3.features.wants import Wants
from recfs.stores.s3.meta import b64
from recfs.stores.s3.store import S3Store

_T = TypeVar("_T")
PLACE = ".recfs/doctor-"
"""Keys that are made begin so, and no path in a mount does."""
STALE_S = 3600.0
"""What is older is left over from a run that was killed: no run lasts so long."""
AT_ONCE = 4
"""Requests side by side."""
PART_BYTES = 5 << 20
"""The smallest part that another may follow (S3's limit)."""
HIDDEN = (".versions/a", "x.versions/a", ".uploads/a")
"""Names that SeaweedFS keeps for itself: what lies there is served by name, and left out of listings."""
HIDDEN_PLACE = "hidden/"
"""Where they are tried, below the prefix of the run."""


_MAKING = ("put_object", "copy_object", "create_multipart_upload")


class OutOfTime(RecfsError):
    """The time for trying is over, or nobody waits for the result any more."""


class Client(S3Store):
    """A store that can also be asked for what recfs does not use; its other calls end with the run, too."""

    def __init__(self, section: S3Section, go_on: Callable[[], None], ended: Callable[[str], None]) -> None:
        super().__init__(section)
        self._go_on, self._ended = go_on, ended
        self.was_answered = False
        """Whether the server did at least one thing it was asked for."""

    def _call(self, doing: str, key: str | None, operation: str, **parameters: Any) -> dict[str, Any]:
        self._go_on()
        if operation in _MAKING and "ServerSideEncryption" not in parameters:
            parameters |= self._encryption()
        answer = super()._call(doing, key, operation, **parameters)
        self.was_answered = True
        if operation in ("complete_multipart_upload", "abort_multipart_upload"):
            self._ended(str(parameters["UploadId"]))
        return answer

    def _send(self, doing: str, key: str, operation: str, *args: Any, **parameters: Any) -> dict[str, Any]:
        self._go_on()
        answer = super()._send(doing, key, operation, *args, **parameters)
        self.was_answered = True
        return answer

    def ask(self, operation: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One request of boto3's, by its name. Raises ObjectStoreError."""
        return self._call("try it", key, operation, **parameters)

    def send(self, body: Any, key: str, sha256: bytes, **parameters: Any) -> dict[str, Any]:
        """A PutObject with *sha256* in its signature. Raises ObjectStoreError."""
        return self._send("try it", key, "put_object", body, sha256, **parameters)

    def body_of(self, key: str, answer: dict[str, Any]) -> bytes:
        """The bytes of an answer to GetObject. Raises ObjectStoreError."""
        with faults(self._target, "read", key), answer["Body"] as body:
            data: bytes = body.read()
        return data

    def full(self, key: str) -> str:
        """The key as the server knows it."""
        return self._full(key)

    def delete_versions(self, versions: Sequence[tuple[str, str]]) -> None:
        """Delete these for good, as far as the server does so for many at once."""
        for first in range(0, len(versions), DELETE_BATCH):
            batch = versions[first : first + DELETE_BATCH]
            named = [{"Key": self._full(key), "VersionId": version} for key, version in batch]
            self.ask("delete_objects", Delete={"Objects": named, "Quiet": True})

    def rules(self) -> tuple[list[dict[str, Any]], tuple[LifecycleRule, ...]]:
        """Lifecycle rules of others, as they are, and recfs's own."""
        others = [rule for rule in self._raw_rules() if not str(rule.get("ID", "")).startswith(RULE_MARK)]
        return others, self.get_lifecycle()

    @property
    def session(self) -> Any:
        """boto3's."""
        return self._session

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self._section.bucket

    def ask_elsewhere(self, bucket: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """As `ask`, of another bucket."""
        self._go_on()
        section = self._section.model_copy(update={"bucket": bucket, "prefix": ""})
        other = Client(section, self._go_on, self._ended)
        try:
            return other.ask(operation, **parameters)
        finally:
            other.close()


class Room:
    """Where one run tries things. Thread-safe."""

    def __init__(self, section: S3Section, wants: Wants, *, until: float) -> None:
        self.section, self.wants = section, wants
        self._until = until
        self._stopped = threading.Event()
        self._cleaning = False
        self.base = f"{PLACE}{secrets.token_hex(8)}/"
        self._lock = threading.Lock()
        self._keys: dict[str, bool] = {}
        self._uploads: dict[str, str] = {}
        """Keys by ids of uploads that were neither finished nor dropped."""
        self._undo: dict[str, Callable[[], object]] = {}
        self.one_at_a_time = threading.Lock()
        """For what changes the bucket itself."""
        self._used = section.model_copy(update={"sse": "none", "kms_key": None})
        self.client = Client(self._used, self.go_on, self._end_upload)
        self._others: list[Client] = []

    def go_on(self) -> None:
        """Raises OutOfTime once the run has to come to its end."""
        if (self._stopped.is_set() and not self._cleaning) or time.monotonic() > self._until:
            raise OutOfTime("there was no time left")

    def is_over(self) -> bool:
        """Whether a transfer is not worth its end any more."""
        try:
            self.go_on()
        except OutOfTime:
            return True
        return False

    def stop(self) -> None:
        """Try nothing any more; what was made is removed all the same."""
        self._stopped.set()

    # --- making --------------------------------------------------------------------------------------------------

    def another(self) -> Client:
        """A client that knows nothing of what the first one has done, as after a restart of the daemon."""
        other = Client(self._used, self.go_on, self._end_upload)
        with self._lock:
            self._others.append(other)
        return other

    def encrypt(self) -> None:
        """Have all objects encrypted from now on as the section says: the bucket may take no others."""
        self._others.append(self.client)
        self._used = self.section
        self.client = Client(self._used, self.go_on, self._end_upload)
        self.client.was_answered = True

    def will_make(self, key: str, *, odd: bool = False) -> str:
        """An object will be made there. *odd*: the server may mistake the name in a list of names."""
        with self._lock:
            self._keys[key] = self._keys.get(key, False) or odd
        return key

    def afterwards(self, what: str, undo: Callable[[], object]) -> None:
        """To be called when all is over, unless `undone` was."""
        with self._lock:
            self._undo[what] = undo

    def undone(self, what: str) -> None:
        """There is nothing to be done about it any more."""
        with self._lock:
            self._undo.pop(what, None)

    def put(self, key: str, data: bytes, **parameters: Any) -> dict[str, Any]:
        """Make an object."""
        return self.client.ask("put_object", self.will_make(key), Body=data, **parameters)

    def get(self, key: str, **parameters: Any) -> bytes | None:
        """The bytes of an object; None if there is none."""
        try:
            answer = self.client.ask("get_object", key, **parameters)
        except ObjectMissing:
            return None
        return self.client.body_of(key, answer)

    def start_upload(self, key: str, *, sha256: bytes | None = None) -> str:
        """Begin an upload in parts, as recfs does."""
        return self._begun(key, self.client.start_multipart(self.will_make(key), ObjectMeta(sha256=sha256)))

    def start_bare_upload(self, key: str, **parameters: str) -> str:
        """Begin one with nothing but this."""
        answer = self.client.ask("create_multipart_upload", self.will_make(key), **parameters)
        return self._begun(key, str(answer["UploadId"]))

    def _begun(self, key: str, upload_id: str) -> str:
        with self._lock:
            self._uploads[upload_id] = key
        return upload_id

    def _end_upload(self, upload_id: str) -> None:
        with self._lock:
            self._uploads.pop(upload_id, None)

    def listed(self, at: str, **parameters: Any) -> list[str]:
        """Keys below *at*, in the order in which they come, by as many pages as it takes."""
        keys: list[str] = []
        more: dict[str, Any] = {}
        while True:
            page = self.client.ask("list_objects_v2", Prefix=self.client.full(at), **parameters, **more)
            keys += [each["Key"][len(self.section.prefix) :] for each in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return keys
            more = {"ContinuationToken": page["NextContinuationToken"]}

    # --- removing ------------------------------------------------------------------------------------------------

    def clean(self, *, within_s: float) -> list[str]:
        """Remove all that was made. Returns what could not be removed, for people."""
        self._cleaning, self._until = True, time.monotonic() + within_s
        left: dict[str, None] = {}

        def do(step: Callable[[], object]) -> None:
            if trouble := self._trouble_of(step):
                left[trouble] = None

        if self.client.was_answered:
            side_by_side(do, self._known())
            do(partial(self._remove_below, self.base))
        for client in (self.client, *self._others):
            client.close()
        return list(left)

    def _known(self) -> list[Callable[[], object]]:
        """A step for each thing that is known to have been made."""
        keys, odd = list(self._keys), [key for key, is_odd in self._keys.items() if is_odd]
        steps: list[Callable[[], object]] = list(self._undo.values())
        steps += [partial(self.client.abort_multipart, key, upload_id) for upload_id, key in self._uploads.items()]
        return [*steps, partial(self.client.delete, keys), *(partial(self._remove, key) for key in odd)]

    def _trouble_of(self, step: Callable[[], object]) -> str:
        """What kept a step from being done; empty: nothing."""
        try:
            step()
        except OutOfTime as error:
            return f"{self.section.url}{self.base}: {error}"
        except Exception as error:  # of any class: the other steps are still to be done
            return str(error).partition("; ")[0] or type(error).__name__
        return ""

    def _remove(self, key: str) -> None:
        """By itself: a server that mistakes a name in a list of names says all the same that it is done."""
        try:
            self.client.ask("delete_object", key)
        except ObjectMissing:
            pass

    def _remove_below(self, at: str) -> None:
        for key in self.listed(at):
            self.client.ask("delete_object", key)
        for upload in self.client.list_multiparts(at):
            self.client.abort_multipart(upload.key, upload.upload_id)
        self._remove_versions(at)

    def _remove_versions(self, at: str) -> None:
        """Where the bucket keeps versions, what was deleted is still there, and costs as much."""
        try:
            state = self.client.ask("get_bucket_versioning").get("Status")
        except ObjectStoreError:
            return
        if not state:
            return
        self.client.delete_versions(self._versions(at))
        for key, version in self._versions(at):
            self.client.ask("delete_object", key, VersionId=version)

    def _versions(self, at: str) -> list[tuple[str, str]]:
        """Key and id of every version below *at*, deletions among them."""
        found: list[tuple[str, str]] = []
        more: dict[str, Any] = {}
        while True:
            page = self.client.ask("list_object_versions", Prefix=self.client.full(at), **more)
            both = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            found += [(each["Key"][len(self.section.prefix) :], each["VersionId"]) for each in both]
            if not page.get("IsTruncated"):
                return found
            more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def sweep(self, now_ns: int) -> int:
        """Remove what runs that were killed have left. Returns of how many runs."""
        before_ns = now_ns - int(STALE_S * 10**9)
        old = {each.key for each in self.client.list(PLACE) if each.last_modified_ns < before_ns}
        old |= {each.key for each in self.client.list_multiparts(PLACE) if each.initiated_ns < before_ns}
        runs = {key[: key.find("/", len(PLACE)) + 1] or key for key in old}
        for run in sorted(runs):
            for name in HIDDEN:
                self._remove(f"{run}{HIDDEN_PLACE}{name}")
            self._remove_below(run)
        return len(runs)


def side_by_side(do: Callable[[_T], None], items: Iterable[_T]) -> None:
    """Call *do*, which raises nothing, with each of them in turn, AT_ONCE at a time; returns when all are done.

    In threads that do not keep the process: a server may take its time for an answer that nobody waits for any more.
    """
    waiting: queue.SimpleQueue[_T] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                do(waiting.get_nowait())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def bytes_in_memory(data: bytes) -> Iterator[int]:
    """A descriptor of a file with these bytes, on no disk."""
    fd = os.memfd_create("recfs-features")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def crc32c_in_base64(data: bytes) -> str:
    """As the header with the checksum wants it."""
    with bytes_in_memory(data) as fd:
        return b64(crc32c_of(fd, 0, len(data)))


__all__ = [
    "AT_ONCE",
    "HIDDEN",
    "HIDDEN_PLACE",
    "PART_BYTES",
    "PLACE",
    "Client",
    "OutOfTime",
    "Room",
    "bytes_in_memory",
    "crc32c_in_base64",
    "side_by_side",
]
