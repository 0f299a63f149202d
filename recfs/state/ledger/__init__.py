"""What outlives the daemon in memory, for the one that goes on with its mount."""

from recfs.state.ledger.table import COUNTED, DIRECT, LEFT, RESENT, WRITES, Ledger, Opened, flags_of

__all__ = ["COUNTED", "DIRECT", "LEFT", "RESENT", "WRITES", "Ledger", "Opened", "flags_of"]
