"""What keeps the figures of a store.

counting  counts files anew where the counters are not to be believed
days      remembers what the counters say, once a day
surveys   looks through all files of a large store, once a day
"""

from typing import Final

PART: Final = "figures"
"""The part whose problems these are, in `recfs status`."""
