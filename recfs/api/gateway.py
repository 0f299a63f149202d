"""The second control socket: what [gateway] offers to programs that are neither root's nor the daemon's.

They speak the same protocol and get the same answers, to the methods of a list alone. Nothing they do holds up the
store's own socket or the mount: connections, requests at once, and the time for each answer are bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.api.control import ControlServer, Offer
from recfs.api.observing import WAITING, acts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.api.control import Handler
    from recfs.config.gateway import GatewaySection
    from recfs.observing.assembly import Observing

PART = "gateway"
VIA = "gateway"
"""How an act came that was asked for there, in the audit log."""


def gateway(section: GatewaySection, handlers: Mapping[str, Handler], observing: Observing) -> ControlServer | None:
    """The server of the socket that is configured; None where none is."""
    if section.socket is None:
        return None
    gid = section.group if section.group is not None else -1
    return ControlServer(
        section.socket, handlers, waiting=WAITING, observer=acts_of(observing, VIA),
        offer=Offer(frozenset(section.methods), int(section.mode, 8), gid), max_connections=section.max_connections,
    )  # fmt: skip


__all__ = ["PART", "gateway"]
