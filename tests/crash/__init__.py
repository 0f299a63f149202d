"""A tester of promises: users work on a mount, the daemon is killed, and after the next start the promises are proved.

`journal` is what a worker notes outside the mount: each call before it is made, and what it returned. `model` makes of
that what the file system has been told, `promises` what may be found after a death, and says where something else is
found. `acts` is what users do, `worker` one user's process. `life` has the daemon live, die and start again, `checks`
looks at the store itself (rows, disk, bucket), and `main` is the command line behind scripts/crash. `daemon` has a bad
disk now and then.
"""
