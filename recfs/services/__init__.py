"""Background work: each module one service with one `run()`. They meet each other only in `daemon.py`."""
