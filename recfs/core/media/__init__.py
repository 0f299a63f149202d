"""Decisions about what is in recordings.

formats  which containers are read, and how ffmpeg is told to read nothing else
derived  what is made from a recording, by which rule, and whether it is to be made now
recipes  how ffmpeg makes it
chunks   where long audio is cut
"""
