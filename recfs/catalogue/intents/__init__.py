"""The intent log beside the catalogue: one short append per change, before its answer; SQLite follows in batches."""
