"""What was deleted or overwritten and is kept for a while: shown, brought back, or given up before its time.

trash       what there is, and what is to become of it
returning   one version on its way back
"""

from recfs.fs.trash.trash import Trash, Trashed

__all__ = ["Trash", "Trashed"]
