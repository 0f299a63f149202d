"""A made-up old media tree, as the platform before recfs left it, and the truth about it.

main       the command line of scripts/old-tree
tree       the tree as a whole: users, templates, what nobody cleared away
stories    what one recording of the old platform can look like, one function each
names      titles, and what machines have made of them
media      small real media files, each with bytes of its own
rows       the platform's database
truth      what each file is to become, for tests and for people who compare
"""
