"""Training the members of a parameter collection into a folder."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.models import build
from privkernels.progress import Progress, silent
from privkernels.randomness import Key
from privkernels.training.common import MakeModel, new_model
from privkernels.training.config import TrainingConfig
from privkernels.training.dropout import replace_dropout
from privkernels.training.engines import Work, run_processes, run_stacked
from privkernels.training.examine import Examination, examine
from privkernels.training.folder import settings_of, start_folder
from privkernels.training.subsets import Subsets, disjoint_shards, leave_one_out, random_fraction

Engine = Literal["auto", "stacked", "processes"]
Initialisation = Literal["common", "own"]
Scheme = Literal["leave-one-out", "random-fraction", "disjoint-shards"]

# What the members of one stack may take together. A constant, not the machine's memory: the group
# size is part of the settings, and must come out the same wherever a run is continued.
_STACK_BYTES = 2**30
# Multiplications in a step beyond which, on a CPU, a stack of more than 16 saves nothing and loses more when it is
# interrupted. Measured, 64 members at batches of 32: one stack takes half the time of four where a member has 9,610
# parameters, two thirds at 19,210, and as long at 38,410.
_STACK_WORK, _STACK_WORTHWHILE = 2**26, 16


def train_members(
    records: Records,
    model: str | MakeModel,
    out: str | Path,
    *,
    members: int = 50,
    subsets: Scheme | Subsets = "random-fraction",
    subset_fraction: float = 0.5,
    initialisation: Initialisation = "common",
    config: TrainingConfig | None = None,
    key: Key,
    engine: Engine = "auto",
    workers: int | None = None,
    group_size: int | None = None,
    progress: Progress = silent,
    data_description: dict[str, Any] | None = None,
) -> Path:
    """Train M members in parallel, each on its own subset, into a folder.

    All members start from ONE initialisation unless ``initialisation="own"``. DP-PG depends on it: it treats the
    values that a parameter takes across members as draws around one value, and only members that started at the
    same point keep their units in the same order. Shadow models, which imitate a target whose initialisation is
    not known, have their own.

    Run again on the same folder with the same settings, the function trains what is missing. The
    members are then bit for bit those of an uninterrupted run on the same machine: a member's batch
    order and dropout depend on the key and its number alone, and it is trained in the same group
    (a stacked group with a missing member is trained again whole; files that exist are kept).
    Another number of threads, or another torch, can change the last bits.

    The folder holds ``initial.safetensors``, ``subsets.safetensors`` (:class:`Subsets`),
    ``training.json`` (settings and fingerprints, not the key) and ``member-0000.safetensors``, ...;
    :func:`load_training` reads it. Keep it private: it is trained on the records.

    Args:
        records: what the subsets choose from. On a GPU, the stacked engine trains there.
        model: a spec for :func:`privkernels.models.build`, which gets the records' shape and number
            of classes, or a callable without arguments that returns the network.
        out: the folder; made where it does not exist.
        members: M >= 1; not used where ``subsets`` is a :class:`Subsets`.
        subsets: which records a member gets. ``"disjoint-shards"`` is the one whose guarantee per
            member also holds per record.
        subset_fraction: the share of records per member, in (0, 1], for ``"random-fraction"``.
        initialisation: ``"common"``, or ``"own"``: each member starts from parameters of its own.
        config: how each member is trained; ``TrainingConfig()`` when None.
        key: initialisation, subsets, batch order and dropout follow from it. It is for shuffling,
            not for privacy, so ``Key.from_seed`` will do. It is not stored: to continue a run with
            a generated key, keep the key.
        engine: ``"stacked"`` trains a group of members as one network, in this process;
            ``"processes"`` trains each alone, through joblib (on a cluster: within
            ``joblib.parallel_config``, ``out`` on a shared file system). ``"auto"`` chooses.
        workers: processes of the processes engine, each with cores / workers threads; as many as
            there are cores when None.
        group_size: members per stack; as many as fit into 1 GiB when None.
        progress: called with epochs done and epochs in all, over all members that are to be trained.
        data_description: JSON-like, kept in ``training.json`` for whoever reads it.

    Returns:
        The folder.

    Raises:
        InvalidArgumentError: M < 1, a fraction outside (0, 1], a network that does not fit, ...
        TooFewRecordsError: fewer records than the subsets need.
        ConfigurationChangedError: the folder was started with other settings; names what differs.
        OutputExistsError: the folder holds something else.
        NonFiniteValueError: a member's training diverged; the message names it.
        DiskFullError: no room; what was finished is kept, and nothing is half-written.
    """
    folder, config = Path(out), config or TrainingConfig()
    _require_json(data_description)
    chosen = _choose_subsets(records, members, subsets, subset_fraction, key.derive("training/subsets"))
    make_model, spec = _factory(model, records)
    if initialisation not in get_args(Initialisation):
        raise InvalidArgumentError(
            f"initialisation is one of {', '.join(get_args(Initialisation))}, not {initialisation!r}"
        )
    start = new_model(make_model, key.seed_for("training/initial"))
    engine, group = _choose_engine(start, records, config, chosen.members, engine, group_size, workers)
    initial = {name: tensor.detach().cpu().clone() for name, tensor in start.state_dict().items()}
    settings = settings_of(
        model=spec,
        records=records,
        config=config,
        subsets=chosen,
        initial=initial,
        initialisation=initialisation,
        engine=engine,
        group_size=group,
        key_fingerprint=key.derive("training/fingerprint").secret.hex()[:32],
        reproducible=key.reproducible,
        data_description=data_description,
    )
    start_folder(folder, settings, initial, chosen)
    seeds = [key.seed_for(f"training/member/{member}") for member in range(chosen.members)]
    initial_seeds = None
    if initialisation == "own":
        initial_seeds = [key.seed_for(f"training/initial/{member}") for member in range(chosen.members)]
    work = Work(folder, records, make_model, chosen, config, seeds, initial_seeds)
    if engine == "stacked":
        run_stacked(work, group, progress)
    else:
        run_processes(work, workers, progress)
    return folder


def _choose_subsets(records: Records, members: int, subsets: Scheme | Subsets, fraction: float, key: Key) -> Subsets:
    n = len(records)
    if isinstance(subsets, Subsets):
        if subsets.records != n:
            raise InvalidArgumentError(
                f"the subsets choose from {subsets.records} records and {records.name!r} has {n}: "
                "draw them for these records"
            )
        return subsets
    if subsets == "leave-one-out":
        return leave_one_out(n, members, key)
    if subsets == "random-fraction":
        return random_fraction(n, members, fraction, key)
    if subsets == "disjoint-shards":
        return disjoint_shards(n, members, key)
    raise InvalidArgumentError(f"subsets is one of {', '.join(get_args(Scheme))}, or a Subsets, not {subsets!r}")


def _require_json(description: dict[str, Any] | None) -> None:
    try:
        json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"data_description must be plain JSON values ({error})") from error


def _factory(model: str | MakeModel, records: Records) -> tuple[MakeModel, str]:
    """A factory, and the name that the folder keeps of it: a spec where one exists."""
    if isinstance(model, str):
        shape = tuple(records.x.shape[1:])
        return functools.partial(build, model, input_shape=shape, n_classes=records.n_classes), model
    if not callable(model):
        raise InvalidArgumentError(f"model is a spec or a callable, not a {type(model).__name__}")
    module, name = getattr(model, "__module__", None), getattr(model, "__qualname__", type(model).__name__)
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not model or module == "__main__":
        return model, f"<callable {name}>"
    return model, f"{module}:{name}"


def _choose_engine(
    model: nn.Module,
    records: Records,
    config: TrainingConfig,
    members: int,
    engine: Engine,
    group_size: int | None,
    workers: int | None,
) -> tuple[Literal["stacked", "processes"], int]:
    if engine not in get_args(Engine):
        raise InvalidArgumentError(f"engine is one of {', '.join(get_args(Engine))}, not {engine!r}")
    for name, value in (("group_size", group_size), ("workers", workers)):
        if value is not None and value < 1:
            raise InvalidArgumentError(f"{name} is at least 1, not {value}")
    model = model.to(records.x.device)
    found = examine(model, replace_dropout(model), records)
    on_cpu = records.x.device.type == "cpu"
    if engine == "auto":
        # Measured on two busy cores, seconds per member and epoch of 5,000 MNIST records. mnist-net:
        # processes 2.9, stacks of four 12.5 (vmap makes grouped convolutions, which are slow on the
        # CPU). mlp-1024: processes 3.4, stacks of four 1.5; mlp-128: 1.7 and 0.2.
        engine = "processes" if found.obstacle or (on_cpu and found.convolutional) else "stacked"
    if engine == "processes":
        if not on_cpu:
            raise InvalidArgumentError(
                f'engine="processes" trains on the CPU, and the records are on {records.x.device}: move them there'
            )
        return engine, 1
    if found.obstacle:
        raise InvalidArgumentError(f'{found.obstacle}: train with engine="processes"')
    return engine, min(members, group_size or _default_group_size(found, config, members, on_cpu))


def _default_group_size(found: Examination, config: TrainingConfig, members: int, on_cpu: bool) -> int:
    # Parameters, their gradient (twice, while it is put together) and up to two optimiser states;
    # activations, their gradients and the workspace of either.
    floats = 5 * found.parameters + 4 * config.batch_size * max(found.activations, 1)
    fitting = max(1, _STACK_BYTES // (4 * floats))
    if on_cpu:
        fitting = min(fitting, max(_STACK_WORTHWHILE, _STACK_WORK // (found.parameters * config.batch_size)))
    groups = -(-members // fitting)
    return -(-members // groups)
