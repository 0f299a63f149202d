"""Counters of files by user, category and place, kept in the transaction of the rows that they count.

counters  what a batch changes of them, gathered in changes
proof     what they should say, and where they do not
days      what they said on earlier days
"""
