"""Decisions about what is in recordings.

formats    which containers are read, and how ffmpeg is told to read nothing else
kinds      what a file's name says that it is
facts      what is in a recording, brought into bounds
structure  whether a recording ends where it says that it does
texts      whether JSON and subtitles parse
verdicts   whether a file is what its name says
words      where a file stands, in the words of applications
derived    what is made from a recording, by which rule, and whether it is to be made now
recipes    how ffmpeg makes it
chunks     where long audio is cut
"""
