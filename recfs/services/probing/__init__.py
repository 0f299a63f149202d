"""Looks into committed files."""

from recfs.services.probing.prober import ASKED, PART, Probing

__all__ = ["ASKED", "PART", "Probing"]
