"""Defences that publish a model in place of privately trained ones."""

from privkernels.publishing.collection import ParameterCollection, ParameterSlice
from privkernels.publishing.dp_pg import DpPgSettings, KdeExample, dp_pg, kde_examples
from privkernels.publishing.quality import QualityCheck
from privkernels.publishing.release import Release

__all__ = [
    "DpPgSettings",
    "KdeExample",
    "ParameterCollection",
    "ParameterSlice",
    "QualityCheck",
    "Release",
    "dp_pg",
    "kde_examples",
]
