"""Who is told of the kernel's requests.

watched  how
acts     what they are to the audit log
live     counts while somebody looks
"""
