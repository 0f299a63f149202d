"""A new catalogue, made of what lies in the home tree and in the bucket (`recfs rebuild`). Nothing is mounted.

In order: what lies in staging, the trash and the holding area is put where the next start, or people, find it
(`leftovers`); each object of the bucket becomes a file that S3 alone has (`bucket`); the home tree is walked, and what
lies there counts, with its bytes hashed or trusted (`home`); counters are added up, and the new catalogue takes the
place of the old one (`procedure`). Every step can be repeated: whoever is killed goes on where he was.
"""

from recfs.fs.rebuild.findings import Findings
from recfs.fs.rebuild.procedure import BEGUN, Known, Options, Rebuild

__all__ = ["BEGUN", "Findings", "Known", "Options", "Rebuild"]
