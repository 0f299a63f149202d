"""A race fuzzer: processes that use few names on one mount, a daemon that is slow at its awaits, and what must hold.

`clients.py` is what each process does, with `contents.py` and `witnesses.py` for what is in the files. `daemon.py`
starts a daemon that `disturb.py` slows down and that looks into itself (`tests/helpers/invariants.py`). `fuzz.py` runs
them and judges. `test_fuzz.py` does so for some seconds, `scripts/fuzz` (`main.py`) for as long as asked.
"""
