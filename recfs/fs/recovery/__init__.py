"""What a start finds, and how it is made whole: the reading side of the crash rules.

Rows were written before bytes moved, and carry `home_ino`, so each unsettled row has few possible truths, told apart by
looking. In order:
  1. rows with pending moves: where is the inode that `home_ino` names? the metadata follows;
  2. `sealing` rows: their writer had closed. Same boot: the bytes are whole, seal again. After a reboot nobody knows
     what reached the disk, whatever the size says, and they are judged like `writing` ones;
  3. `writing` rows: nobody closed. They stay, as `incomplete`. An overwrite of which nothing was promised goes back to
     the last version of which something was (after a power cut: that was synced), and the new bytes are kept in
     lost+found;
  4. garbage that was held for a file that is committed by now is released. The parts for S3 are loaded then;
  5. what had been removed, and the catalogue was not told yet, is removed again;
  6. staging files no row knows, but with a label: their row was lost with the last batch. Adopted under the name on
     the label; of several overwrites of one file the one counts that was closed last;
  7. garbage goes on its way, with the services (`Parts.serve`).
Nothing with bytes in it is deleted here: what fits nowhere goes to `.recfs/lost+found`.
"""

from recfs.fs.recovery.finds import Report
from recfs.fs.recovery.procedure import Recovery, Restored

__all__ = ["Recovery", "Report", "Restored"]
