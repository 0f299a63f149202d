"""What is done with backups of a store's catalogue without its daemon: listing and proving them, putting one back.

backups   those that there are, opened in a scratch place
drill     the proof that one can be relied on
restore   one becomes the store's catalogue again
rebuild   without one: the catalogue is made anew
"""

from recfs.rescue.backups import Backups, Opened
from recfs.rescue.restore import Restore

__all__ = ["Backups", "Opened", "Restore"]
