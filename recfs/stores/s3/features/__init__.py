"""What an S3 server offers of what recfs asks of one, found by trying it on the bucket itself.

S3 is what each server makes of it, and what a server lacks it seldom says. So every feature is tried as recfs uses it,
with small objects below a prefix of its own, and told as one of four outcomes. `recfs doctor` prints what is found, and
the table of the S3 guide (docs/s3.md) is made of the same findings.

model.py      what a feature is, and a finding
room.py       the place in the bucket where it is tried; remembers whatever is made, and removes it
run.py        all of them within a time, and what is told of what
endpoint.py   what answers there, if it is no S3 server
"""
