"""The audit log: who did what.

trail    takes acts up, bounded, and has them written in a thread
files    the files they are written to, rotated by size and age
reading  reading them again, across rotated files
"""
