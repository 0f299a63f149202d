"""What figures about a store are about: the category of a file, and what it costs to keep.

categories  source, video, audio … by place and name
costs       prices, and what bytes cost a month
"""
