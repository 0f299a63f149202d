"""What `recfs stats` is told: figures of a store, a user or a recording, made of what the catalogue says.

places   which directories are whose, and what lies in them
sums     adding up
figures  the answer
"""
