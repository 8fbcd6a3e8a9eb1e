"""Labelled records, and loaders for the public data sets in their publishers' own formats."""

from __future__ import annotations

from privkernels.data.arrays import load_arrays, load_attributes
from privkernels.data.loading import available, load
from privkernels.data.records import DataSet, Records

__all__ = ["DataSet", "Records", "available", "load", "load_arrays", "load_attributes"]
