"""Builds the parts of a store taken into use, mounted or not, and takes them down in order."""

from recfs.parts.made import DRAIN_S, NoKernelCache, NoKernelFiles, Parts
from recfs.parts.opening import opened, require_no_change_of_schema

__all__ = ["DRAIN_S", "NoKernelCache", "NoKernelFiles", "Parts", "opened", "require_no_change_of_schema"]
