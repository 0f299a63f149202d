"""`Context`: what every handler works with. One for each application; nothing of it is global."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from recfs.web.accesses import Access, Listener
from recfs.web.daemon import Daemon
from recfs.web.errands import Errands
from recfs.web.events import Feed
from recfs.web.files import Tree
from recfs.web.limiters import Limiters
from recfs.web.settings import Settings
from recfs.web.who.gate import Gate
from recfs.web.who.limits import Places
from recfs.web.who.trail import Trail


@dataclass(frozen=True, slots=True)
class Context:
    """All that is needed to answer; made by `context_for`, found by `context_of`."""

    settings: Settings
    limiters: Limiters
    tree: Tree
    daemon: Daemon
    gate: Gate
    """Knows who may: `authenticate` asks it."""
    feed: Feed
    """Events for all who listen."""
    streams: Places
    """Listeners to events, by token."""
    uploads: Places
    """Uploads that are under way, by user."""
    errands: Errands
    """What the daemon takes long for."""
    trail: Trail
    """The audit log; told of each access."""
    listeners: list[Listener] = field(default_factory=list)
    """Are told of each access when it has ended."""
    endings: list[Callable[[], None]] = field(default_factory=list)
    """Are called when the gateway is about to end."""

    def close(self) -> None:
        """End what goes on by itself: the gateway ends."""
        self.feed.close()
        self.errands.stop()
        for end in self.endings:
            end()


def context_for(settings: Settings) -> Context:
    """Make the context of a gateway with these settings."""
    limiters = Limiters(settings)
    daemon, trail = Daemon(settings.socket, limiters), Trail(settings.directory)
    feed = Feed(daemon)
    return Context(
        settings,
        limiters,
        Tree(settings.root, mounted=settings.mounted),
        daemon,
        Gate(settings),
        feed,
        Places(settings.streams_per_token, "listeners"),
        Places(settings.uploads_per_user, "uploads"),
        Errands(daemon, feed),
        trail,
        [trail.told],
    )


def context_of(request: Request) -> Context:
    """Give the context of the application that a request came to."""
    context: Context = request.app.state.context
    return context


def access_of(request: Request) -> Access:
    """Give what is told of a request when it has ended, for handlers to add to."""
    access: Access = request.state.access
    return access


__all__ = ["Context", "access_of", "context_for", "context_of"]
