"""What is made from recordings: products that rules name, and chunks of their audio.

reasons   why something is not made
looking   what is in a source: as it is known, or by a look into it
sources   the committed bytes of a source, wherever they are, for a program
placing   from a program's directory into a temp job, and from there to its place
making    one product, from its source to its place
chunking  plans of chunks, and their files
planning  plans that nobody has asked for
waiting   what waits, and whose turn it is
asking    what is to be made: judged, queued, and told of
deriving  it is made when it is due, and what came of it is kept
"""

PART = "derive"
"""In problems and logs."""
