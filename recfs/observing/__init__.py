"""Telling people and programs what happens in a store.

journal    events in the catalogue: written with the rows that they are about, kept for a time
feed       reading them by a cursor, and waiting for the next
notify     running a command for some of them
audit/     who did what: acts of programs and commands, in files
"""
