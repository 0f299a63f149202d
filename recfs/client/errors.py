"""What the client library raises besides OSError.

ClientError
├── InvalidName (ValueError)         a name, id or path that has no place in the tree
├── UploadRefused (ValueError)       an upload whose kind or size is not allowed
├── VerifyFailed                     what was written is not what should have been
├── NotCommitted                     a file that is not, or does not become, committed
│   └── CommitTimeout (TimeoutError) not in the time that was given
├── NotAMount                        only a mounted store can answer that
├── DaemonRefused                    the daemon refuses what it is asked for
│   └── CursorLost                   events after a cursor are not kept any more
├── DaemonUnreachable (ConnectionError)
└── ExtraMissing (ImportError)       `pip install 'recfs[client]'` is needed
"""


class ClientError(Exception):
    """What the client library has to say by itself; the system's errors stay OSError."""


class InvalidName(ClientError, ValueError):
    """A name, an id or a path that has no place in the tree."""


class UploadRefused(ClientError, ValueError):
    """An upload whose kind or size is not allowed."""


class VerifyFailed(ClientError):
    """What was written is not what it should have been: nothing is shown of it."""


class NotCommitted(ClientError):
    """A file is not committed and will not be by itself: its writer was cut off, or its bytes went bad."""


class CommitTimeout(NotCommitted, TimeoutError):
    """A file was not committed in the time that was given."""


class NotAMount(ClientError):
    """A plain directory cannot answer this: it takes a mounted store, or its daemon's socket."""


class DaemonRefused(ClientError):
    """The daemon refuses what it is asked for. `kind` is the class of its error (docs/semantics.md, section 2)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class CursorLost(DaemonRefused):
    """Events after a cursor are not kept any more, or are of another history: begin anew with `since="oldest"`."""


class DaemonUnreachable(ClientError, ConnectionError):
    """Nobody listens on the daemon's socket, it does not let us ask, or it broke off."""


class ExtraMissing(ClientError, ImportError):
    """Something needs a package of the extra `client`: pip install 'recfs[client]'."""


__all__ = [
    "ClientError",
    "CommitTimeout",
    "CursorLost",
    "DaemonRefused",
    "DaemonUnreachable",
    "ExtraMissing",
    "InvalidName",
    "NotAMount",
    "NotCommitted",
    "UploadRefused",
    "VerifyFailed",
]
