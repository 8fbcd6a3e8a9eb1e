"""Training many members in parallel from one initialisation, each on its own recorded subset."""

from __future__ import annotations

from privkernels.training.config import TrainingConfig
from privkernels.training.folder import TrainingRun, load_training
from privkernels.training.members import train_members
from privkernels.training.stacked import fit_stacked
from privkernels.training.subsets import Subsets, disjoint_shards, leave_one_out, random_fraction

__all__ = [
    "Subsets",
    "TrainingConfig",
    "TrainingRun",
    "disjoint_shards",
    "fit_stacked",
    "leave_one_out",
    "load_training",
    "random_fraction",
    "train_members",
]
