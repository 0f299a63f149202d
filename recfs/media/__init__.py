"""Programs that look into media, confined: whoever recorded it may be hostile.

sandbox   the cage, a program of its own that builds it around itself and becomes ffprobe or ffmpeg
programs  which of them there are, and what they can do
runner    runs one on an open file, with bounds on all that it takes and says
checks    looks into a file: what is in it, and whether it is what it should be
"""
