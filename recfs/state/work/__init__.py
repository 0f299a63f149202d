"""Work on many things.

outcome  side by side, and what came of it
turns    on the trio thread, a stretch at a time
"""
