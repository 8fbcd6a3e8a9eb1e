"""The two ways of training the members of a folder: stacked, and in processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch

from privkernels._files import read_safetensors, write_safetensors
from privkernels.data import Records
from privkernels.progress import Progress
from privkernels.training.alone import fit_alone
from privkernels.training.common import MakeModel, new_model
from privkernels.training.config import TrainingConfig
from privkernels.training.folder import INITIAL, member_path, missing_members
from privkernels.training.stacked import fit_stacked
from privkernels.training.subsets import Subsets

_WHAT = "training members (epochs)"


@dataclass(frozen=True)
class Work:
    """What is to be trained: all members of a prepared folder.

    Attributes:
        folder: holds the initial parameters; members are written there.
        records: what the subsets choose from.
        make_model: builds the network.
        subsets: the records of each member.
        config: how each member is trained.
        seeds: one per member, for batch order and dropout.
        initial_seeds: one per member, for initial parameters of its own; None where all start from the folder's.
    """

    folder: Path
    records: Records
    make_model: MakeModel
    subsets: Subsets
    config: TrainingConfig
    seeds: Sequence[int]
    initial_seeds: Sequence[int] | None = None

    def missing(self) -> tuple[int, ...]:
        """The members without a file."""
        return missing_members(self.folder, len(self.seeds))

    def initial_seed(self, member: int) -> int | None:
        """The seed of a member's own initial parameters; None where all start from the folder's."""
        return None if self.initial_seeds is None else self.initial_seeds[member]


def initial_parameters(folder: Path, make_model: MakeModel, seed: int | None) -> dict[str, torch.Tensor]:
    """What a member starts from: the folder's common initial parameters, or its own, drawn under ``seed``."""
    if seed is None:
        return read_safetensors(folder / INITIAL)[0]
    return {name: tensor.detach() for name, tensor in new_model(make_model, seed).state_dict().items()}


def run_stacked(work: Work, group_size: int, progress: Progress) -> None:
    """Train every group that misses a member, one after the other; one group is in memory at a time."""
    missing = set(work.missing())
    starts = range(0, len(work.seeds), group_size)
    groups = [range(start, min(start + group_size, len(work.seeds))) for start in starts]
    groups = [group for group in groups if missing.intersection(group)]
    total = work.config.epochs * sum(len(group) for group in groups)
    done = 0
    for group in groups:
        _train_group(work, group, missing, done, total, progress)
        done += work.config.epochs * len(group)


def _train_group(work: Work, group: range, missing: set[int], done: int, total: int, progress: Progress) -> None:
    states = fit_stacked(
        work.make_model,
        [initial_parameters(work.folder, work.make_model, work.initial_seed(member)) for member in group],
        work.records,
        [work.subsets.indices(member) for member in group],
        work.config,
        [work.seeds[member] for member in group],
        labels=[f"member {member}" for member in group],
        progress=lambda epoch, _epochs, _what: progress(done + epoch * len(group), total, _WHAT),
    )
    for member, state in zip(group, states, strict=True):
        if member in missing:
            _write_member(work.folder, member, state)


def run_processes(work: Work, workers: int | None, progress: Progress) -> None:
    """Train the missing members by themselves, several at a time, through joblib.

    Each is written by the process that trained it, so no parameters travel between processes.
    """
    missing = work.missing()
    cores = joblib.cpu_count()
    # From the number of all members, so that a continued run gives each as many threads as before.
    workers = min(workers or cores, len(work.seeds))
    # mmap_mode "c": all workers share one copy of the records, which torch may take as writable.
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", mmap_mode="c")
    tasks = (
        joblib.delayed(_train_one)(
            work.folder,
            member,
            (work.records.x.numpy(), work.records.y.numpy(), work.records.n_classes),
            work.make_model,
            work.subsets.indices(member),
            work.config,
            work.seeds[member],
            work.initial_seed(member),
            max(1, cores // workers),
        )
        for member in missing
    )
    total = len(missing) * work.config.epochs
    for done, _ in enumerate(parallel(tasks), 1):
        progress(done * work.config.epochs, total, _WHAT)


def _train_one(
    folder: Path,
    member: int,
    arrays: tuple[np.ndarray, np.ndarray, int],
    make_model: MakeModel,
    indices: torch.Tensor,
    config: TrainingConfig,
    seed: int,
    initial_seed: int | None,
    threads: int,
) -> None:
    """Train and write one member; runs in a worker, or in this process where there is one worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, y, n_classes = arrays
        records = Records(torch.from_numpy(x), torch.from_numpy(y), n_classes, "the training records")
        initial = initial_parameters(folder, make_model, initial_seed)
        state = fit_alone(make_model, initial, records, indices, config, seed, label=f"member {member}")
        _write_member(folder, member, state)
    finally:
        torch.set_num_threads(before)


def _write_member(folder: Path, member: int, state: dict[str, torch.Tensor]) -> None:
    write_safetensors(member_path(folder, member), state, {"format": "pt", "member": str(member)})
