"""What becomes of files, told to its subscribers as it happens.

subscribers   what is told, and to whom
acting        who has it done, where it is not the kernel that asks
paths         what was made, renamed or removed is called
"""

from recfs.state.events.acting import Acting, acting, acting_for, own
from recfs.state.events.subscribers import Events, Subscriber

__all__ = ["Acting", "Events", "Subscriber", "acting", "acting_for", "own"]
