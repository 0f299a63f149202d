"""What is asked for when an upload is made, by tus or in JSON: one plan comes of both."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Final

from recfs.client.errors import InvalidName
from recfs.client.tree import id_of
from recfs.client.uploads import Upload, extension_of
from recfs.web.problems import Problem
from recfs.web.uploads.plan import CHUNK_BYTES, NOTHING, Plan, UploadId, target_of
from recfs.web.who.principal import Principal

_MOST_NAME: Final = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What whoever uploads says of it; "" for what is not said."""

    length: int | None
    user: str = ""
    recording: str = ""
    path: str = ""
    filename: str = ""
    mime_type: str = ""
    sha256: str | None = None
    chunk_bytes: int = CHUNK_BYTES
    metadata: str = ""
    replaces: str = NOTHING


def plan_of(wanted: Wanted, caller: Principal) -> Plan:
    """Make the plan of an upload, after whoever asks was found to be allowed to. Raises Problem, InvalidName.

    Without a user it is the only one whose files the caller has; without a recording a new one is made; without a path
    it is the recording's source, with the extension of its file name.
    """
    user = user_for(wanted.user, caller)
    caller.must_write(user)
    recording = wanted.recording or str(uuid.uuid4())
    path = wanted.path or _source(wanted.filename)
    names = tuple(path.split("/"))
    target_of(user, recording, names)
    original = wanted.filename[:_MOST_NAME] or names[-1]
    mime_type = wanted.mime_type.partition(";")[0].strip().lower()  # browsers tell the codecs, too
    Upload(original, mime_type).attributes()  # what is wrong with them is said before anything is made
    try:
        return Plan(
            UploadId.new(user), recording, names, wanted.length, wanted.sha256, wanted.replaces,
            chunk_bytes=wanted.chunk_bytes, metadata=wanted.metadata, original_name=original,
            mime_type=mime_type, by=caller.token_id, created_ns=time.time_ns(),
        ).check()  # fmt: skip
    except InvalidName:
        raise
    except ValueError as error:
        raise Problem("InvalidArgument", str(error)) from None


def user_for(user: str, caller: Principal) -> str:
    """Give the user that is meant: the only one of the caller where none is said. Raises Problem."""
    if not user:
        if len(caller.users) != 1:
            raise Problem("BadRequest", "say for which user")
        return next(iter(caller.users))
    try:
        return id_of("user", user)
    except InvalidName:
        raise Problem("NotFound") from None


def _source(filename: str) -> str:
    extension = extension_of(filename)
    if not extension:
        raise Problem("UploadRefused", "say where it goes, or what it is called, with an extension")
    return f"source{extension}"


__all__ = ["Wanted", "plan_of", "user_for"]
