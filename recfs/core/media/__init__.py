"""Decisions about what is in recordings.

formats  which containers are read, and how ffmpeg is told to read nothing else
"""
