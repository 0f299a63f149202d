"""The metadata on disk: the only room with SQL. `sqlite` is the writer, `reports` and `check` read beside it."""
