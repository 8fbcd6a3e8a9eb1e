"""The whole way in a few calls: train members, publish a model in their place, audit what was published.

The command line calls these and nothing else. Each works on folders, so that a step can be done elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from privkernels import _files, models
from privkernels.attacks import Attack
from privkernels.audit import (
    Canaries,
    InversionPanel,
    KdePanel,
    ModelAudit,
    Target,
    all_attacks,
    audit_models,
    reconstruct,
    write_report,
)
from privkernels.audit.reconstructions import check_layers
from privkernels.data import DataSet, Records
from privkernels.errors import (
    ConfigurationChangedError,
    CorruptFileError,
    InvalidArgumentError,
    MemberMismatchError,
    TooFewRecordsError,
)
from privkernels.privacy.guarantee import Assumption
from privkernels.privacy.ledger import Ledger
from privkernels.progress import Progress, silent
from privkernels.publishing import (
    DpPgSettings,
    ParameterCollection,
    QualityCheck,
    Release,
    dp_pg,
    kde_examples,
)
from privkernels.publishing.release import check_release_folder
from privkernels.randomness import Key
from privkernels.training import TrainingConfig, TrainingRun, load_training, train_members

PathLike = str | os.PathLike[str]
TRAINING_FILE = "training.json"
REPORT_FILE = "report.html"


def train(
    data: DataSet,
    model: str | Callable[[], nn.Module],
    out: PathLike,
    *,
    members: int = 50,
    records: int | None = None,
    subsets: str = "random-fraction",
    subset_fraction: float = 0.5,
    config: TrainingConfig | None = None,
    seed: int | None = None,
    engine: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Train members on ``records`` randomly chosen training records of ``data`` (all of them if None).

    The records left over stay out of every member, so that an audit can use them as the attacker's.
    A new secret key fixes that choice, the common initialisation, the subsets and the batch order; it is kept in the
    (private) folder, so that an interrupted run continues. A ``seed`` instead makes the members repeatable: whoever
    guesses it knows which records were used, and can check the guess on the release. Other arguments and errors as
    :func:`privkernels.training.train_members`.
    """
    key = _training_key(Path(out), seed)
    pool = pool_indices(len(data.train), records, key)
    description = {
        "data": data.name,
        "key": key.secret.hex(),
        "reproducible": key.reproducible,
        "pool_records": len(pool),
        "train_records": len(data.train),
    }
    return train_members(
        data.train.subset(pool), model, Path(out), members=members, subsets=cast(Any, subsets),
        subset_fraction=subset_fraction, config=config, key=key, engine=cast(Any, engine),
        workers=workers, progress=progress, data_description=description,
    )  # fmt: skip


def _training_key(folder: Path, seed: int | None) -> Key:
    """The key of a run: from the seed, or the one that the folder was started with, or a new one."""
    if seed is not None:
        return Key.from_seed(seed)
    if not (folder / TRAINING_FILE).exists():
        return Key.generate()
    return _recorded_key(load_training(folder))


def _recorded_key(run: TrainingRun) -> Key:
    facts = run.data_description or {}
    try:
        return Key(bytes.fromhex(facts["key"]), bool(facts["reproducible"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{run.folder / TRAINING_FILE} does not hold the key that the members were trained with: train into "
            "another folder"
        ) from error


def pool_indices(available: int, records: int | None, key: Key) -> torch.Tensor:
    """Which training records the members may use: int64 [records], sorted."""
    count = available if records is None else records
    if not 1 <= count <= available:
        raise TooFewRecordsError(f"asked for {count} training records, but the data set has {available}")
    order = torch.randperm(available, generator=key.generator("workflow/pool"))
    return order[:count].sort().values


def publish(
    members: PathLike,
    settings: DpPgSettings,
    out: PathLike | None = None,
    *,
    method: str = "dp-pg",
    key: Key | None = None,
    model: str | None = None,
    overlap: int | None = None,
    quality: QualityCheck | None = None,
    ledger: PathLike | None = None,
    data_id: str | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> Release:
    """Publish a model from a folder of members, and write it to ``out`` if given.

    A folder that :func:`train` wrote brings its common initialisation, its index sets (for the overlap) and its
    model along. Any other folder of ``.safetensors`` files of one architecture works too; then give ``model``
    for the model card, and ``overlap`` if it is known.

    Args:
        members: the folder.
        settings: mode, budget, grid; see :class:`privkernels.publishing.DpPgSettings`.
        method: "dp-pg".
        key: of the noise; a new one from the operating system if None.
        overlap: the largest number of members that one record was used in.
        ledger: file that the release is charged to before it is drawn (made if it is not there); the guarantee then
            counts everything in it on the same data set.
        data_id: name of the data set in the ledger; the one that :func:`train` recorded if None.

    Raises:
        BudgetExceededError, KeyReusedError: the ledger refused; nothing was drawn.
        InvalidArgumentError: unknown method. Everything that :func:`privkernels.publishing.dp_pg` raises.
        ConfigurationChangedError: a training folder whose training is not finished.
    """
    if method != "dp-pg":
        raise InvalidArgumentError(f"method must be dp-pg, got {method!r}")
    if out is not None:  # before the work and before any budget is spent, not after it
        check_release_folder(Path(out), replace=replace)
    run = training_run(members)
    collection = _collection(members, run)
    if model is not None:
        _check_fits(model, collection, run)
    initial: Mapping[str, torch.Tensor] | None = None
    assumptions: tuple[Assumption, ...] = ()
    description: dict[str, Any] = {"model": model}
    if run is not None:
        initial, _ = _files.read_safetensors(run.initial_path)
        recorded = run.subsets.overlap()
        if overlap is not None and overlap < recorded:
            raise InvalidArgumentError(
                f"overlap {overlap} is not true of these members: a record was used in {recorded} of them, as recorded "
                "in their folder; leave it out"
            )
        overlap = recorded if overlap is None else overlap
        assumptions = _training_assumptions(run)
        description = _describe_run(run) | ({"model": model} if model else {})
    if ledger is not None and data_id is None and run is not None:
        data_id = (run.data_description or {}).get("data")
    release = dp_pg(
        collection, settings, key=key or Key.generate(), overlap=overlap, initial=initial, quality=quality,
        assumptions=assumptions, description=description, ledger=None if ledger is None else Ledger(ledger),
        data_id=data_id, progress=progress,
    )  # fmt: skip
    if out is not None:
        release.save(out, replace=replace)
    return release


def _check_fits(spec: str, collection: ParameterCollection, run: TrainingRun | None) -> None:
    """Raise :class:`MemberMismatchError` unless the members are weights of the model that ``spec`` names."""
    shape, classes = (run.input_shape, run.n_classes) if run else (None, None)
    models.load_weights(models.build(spec, input_shape=shape, n_classes=classes, seed=0), collection.state_dict(0))


def training_run(members: PathLike) -> TrainingRun | None:
    """The training run behind a folder of members, or None for members trained elsewhere.

    Raises :class:`ConfigurationChangedError` when the training is not finished, and :class:`MemberMismatchError`
    when the members have no common initialisation.
    """
    folder = Path(members)
    if not (folder / TRAINING_FILE).exists():
        return None
    run = load_training(folder)
    if not run.complete:
        raise ConfigurationChangedError(
            f"{folder}: {len(run.missing)} of {run.members} members are not trained yet: run the training command "
            "again to finish it"
        )
    if run.initialisation != "common":
        raise MemberMismatchError(
            f"the members in {folder} started from parameters of their own, and their units are not in one order: "
            "train them from one common initialisation"
        )
    return run


def _collection(members: PathLike, run: TrainingRun | None) -> ParameterCollection:
    """The members of a training run and no others, or all members of a folder from elsewhere."""
    return ParameterCollection.open(members) if run is None else ParameterCollection(run.member_paths)


def _training_assumptions(run: TrainingRun) -> tuple[Assumption, ...]:
    # A factory may load weights or data; a scheme of the user's may look at the records.
    built_in = ":" not in run.model and not run.model.startswith("<")
    drawn = run.subsets.scheme in ("random-fraction", "leave-one-out", "disjoint-shards")
    items = [
        Assumption(
            "All members started from one initialisation, drawn at random and not from the data.", built_in or None
        ),
        Assumption(
            f"The members' index sets ({run.subsets.scheme}) were drawn without looking at the records.", drawn or None
        ),
        Assumption("Architecture and training settings were chosen without looking at the private records."),
    ]
    if run.reproducible:
        items.append(
            Assumption(
                "Nobody guesses the seed that the members were trained with: it tells which records were used, and a "
                "guess can be checked on the release. (Train without a seed to rule this out.)"
            )
        )
    return tuple(items)


def _describe_run(run: TrainingRun) -> dict[str, Any]:
    # Nothing here may say which records were used: the release is published with it.
    data = (run.data_description or {}).get("data")
    return {
        "model": run.model,
        "input_shape": list(run.input_shape),
        "n_classes": run.n_classes,
        "data": data,
        "training_records": run.records_count,
        "subsets": run.subsets.scheme,
        "largest_overlap": run.subsets.overlap(),
        "training": asdict(run.config),
    }


_ALL_ARE_MEMBERS = (
    "nothing says which records the members were trained on, so the whole training split counts as members: if they "
    "used a part of it, the attack figures are too low (give the member records)"
)


def _checked_records(indices: Sequence[int], available: int) -> torch.Tensor:
    chosen = sorted(set(indices))
    if not chosen or chosen[0] < 0 or chosen[-1] >= available:
        raise InvalidArgumentError(f"member records are indices from 0 to {available - 1}, at least one of them")
    return torch.tensor(chosen, dtype=torch.int64)


@dataclass(frozen=True)
class AuditRecords:
    """Who is who in an audit: training records, records nobody saw, the attacker's own, and the test set."""

    members: Records
    nonmembers: Records
    attacker: Records
    test: Records


def audit_records(
    data: DataSet,
    run: TrainingRun | None,
    *,
    max_records: int = 5000,
    member_records: Sequence[int] | None = None,
    seed: int = 0,
) -> AuditRecords:
    """Split ``data`` for an audit of members and of what was published in their place.

    Members are records that member 0 was trained on (so that it and the release face the same ones); for members
    trained elsewhere, ``member_records`` of the training split, or all of it. The attacker gets training records that
    no member saw, if there are at least half as many as members; otherwise half of the test split. Non-members are the
    (rest of the) test split. Each is a random choice of at most ``max_records``.

    Raises :class:`ConfigurationChangedError` if the training used other records.
    """
    generator = Key.from_seed(seed).generator("workflow/audit")

    def some(records: Records, limit: int) -> Records:
        order = torch.randperm(len(records), generator=generator)[:limit]
        return records.subset(order.sort().values)

    everything = torch.arange(len(data.train))
    if run is None:
        pool = own = everything if member_records is None else _checked_records(member_records, len(data.train))
    else:
        facts = run.data_description or {}
        if facts.get("data") != data.name or facts.get("train_records") != len(data.train):
            raise ConfigurationChangedError(
                f"{run.folder} was trained on {facts.get('data')!r} with {facts.get('train_records')} training "
                f"records, not on {data.name!r} with {len(data.train)}: give the same data"
            )
        pool = pool_indices(len(data.train), facts["pool_records"], _recorded_key(run))
        run.check_records(data.train.subset(pool))
        own = pool[run.subsets.indices(0)]
    unseen = everything[~torch.isin(everything, pool)]
    members = some(data.train.subset(own), max_records)
    if len(unseen) * 2 >= len(own):
        return AuditRecords(
            members, some(data.test, max_records), some(data.train.subset(unseen), 2 * max_records), data.test
        )
    order = torch.randperm(len(data.test), generator=generator)
    half = len(data.test) // 2
    attacker, nonmembers = data.test.subset(order[:half]), data.test.subset(order[half:])
    return AuditRecords(members, some(nonmembers, max_records), some(attacker, 2 * max_records), data.test)


def audit_release(
    releases: PathLike | Sequence[PathLike],
    members: PathLike,
    data: DataSet,
    *,
    model: str | None = None,
    report: PathLike | None = None,
    json_path: PathLike | None = None,
    config: TrainingConfig | None = None,
    attacks: Sequence[Attack] | None = None,
    canaries: PathLike | None = None,
    invert: Sequence[str] = (),
    max_records: int = 5000,
    member_records: Sequence[int] | None = None,
    unprotected: bool = True,
    **settings: Any,
) -> ModelAudit:
    """Audit released models, and member 0 as it is for comparison; see :func:`privkernels.audit.audit_models`.

    Who is who says :func:`audit_records`; the attacker's records are the public ones. No threshold is decided for
    member 0, and it has no part in the outcome. Shadow models start from initialisations of their own, not
    from the members' common one.

    Args:
        releases: one or more folders that :func:`publish` wrote.
        members: the folder of members they were made from.
        data: what the members were trained on.
        model: spec of the architecture; from the training folder if None.
        report: where to write the HTML report; it holds private data.
        json_path: where to write the audit as JSON; private too.
        config: how to train shadow models; as the members if None.
        attacks: unfitted; all of the library's where None.
        canaries: file that :meth:`privkernels.audit.Canaries.save` wrote.
        invert: names of layers that records are reconstructed from (:func:`privkernels.audit.reconstruct`).
        max_records: most members, and most non-members, to attack.
        member_records: for members trained elsewhere, which records of the training split member 0 was trained on.
            Without it all of them are taken for members, and a warning says so.
        unprotected: also attack member 0.
        settings: thresholds, budget, n_shadows, cache, progress, ... of :func:`privkernels.audit.audit_models`.

    Raises:
        InvalidArgumentError: the same release twice, an architecture that is not known, or what
            :func:`privkernels.audit.audit_models` refuses.
        OutputExistsError: ``report`` or ``json_path`` cannot be written.
        ConfigurationChangedError: other data than the members were trained on, or a training that is not finished.
        FileMissingError, CorruptFileError, UnsafeFormatError, MemberMismatchError: a release, a member or the canaries
            cannot be read, or do not fit the architecture.
    """
    for path in (report, json_path):
        if path is not None:
            _files.check_output_file(path)
    folders = [Path(releases)] if isinstance(releases, str | os.PathLike) else [Path(path) for path in releases]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InvalidArgumentError("the same release is given twice: give every folder once")
    loaded = [Release.load(folder) for folder in folders]
    run = training_run(members)
    collection = _collection(members, run)
    make_model = _model_factory(model or (run.model if run else None), data)
    records = audit_records(data, run, max_records=max_records, member_records=member_records)
    targets = [] if not unprotected else [_unprotected_target(collection, make_model)]
    for folder, release in zip(folders, loaded, strict=True):
        targets.append(release_target(release, make_model, str(folder)))
    check_layers(targets, invert)  # before the long work
    audit = audit_models(
        targets,
        all_attacks(records.members) if attacks is None else attacks,
        records.members,
        records.nonmembers,
        make_model=make_model,
        config=config or (run.config if run else TrainingConfig()),
        public=records.attacker,
        test=records.test,
        canaries=None if canaries is None else Canaries.load(canaries),
        **settings,
    )
    audit, pictures = with_reconstructions(
        audit, targets, invert, records.members, records.nonmembers, settings.get("progress", silent)
    )
    if run is None and member_records is None:
        warnings = (_ALL_ARE_MEMBERS, *audit.result.warnings)
        audit = dataclasses.replace(audit, result=dataclasses.replace(audit.result, warnings=warnings))
    if json_path is not None:
        audit.save(json_path)
    if report is not None:
        initial = _files.read_safetensors(run.initial_path)[0] if run else None
        panels = kde_panels(collection, loaded[0], initial)
        write_report(audit.result, report, audit=audit, panels=panels, pictures=pictures, how=release_facts(loaded[0]))
    return audit


def with_reconstructions(
    audit: ModelAudit,
    targets: Sequence[Target],
    layers: Sequence[str],
    members: Records,
    nonmembers: Records,
    progress: Progress = silent,
) -> tuple[ModelAudit, list[InversionPanel]]:
    """The audit with what :func:`privkernels.audit.reconstruct` brings back from the layers, and the pictures."""
    found, pictures = reconstruct(targets, layers, members, nonmembers, progress=progress)
    seconds = audit.seconds + sum(each.seconds for each in found)
    return dataclasses.replace(audit, reconstructions=tuple(found), seconds=seconds), pictures


def _model_factory(spec: str | None, data: DataSet) -> Callable[[], nn.Module]:
    if spec is None:
        raise InvalidArgumentError(
            "the members were trained elsewhere, so their architecture is not known: give model "
            "(a name or package.module:factory)"
        )
    if spec.startswith("<"):
        raise InvalidArgumentError(f"the members were trained from {spec}, which has no importable name: give model")
    shape, classes = tuple(data.train.x.shape[1:]), data.train.n_classes
    return lambda: models.build(spec, input_shape=shape, n_classes=classes)


def _unprotected_target(collection: ParameterCollection, make_model: Callable[[], nn.Module]) -> Target:
    member = models.load_weights(make_model(), collection.state_dict(0))
    return Target("unprotected member", member, None, {"file": collection.paths[0].name}, judged=False)


def release_target(release: Release, make_model: Callable[[], nn.Module], name: str) -> Target:
    """A release as the target of an audit."""
    module = models.load_weights(make_model(), dict(release.tensors))
    return Target(name, module, release.guarantee, {"made": release.guarantee.mechanism})


def kde_panels(
    collection: ParameterCollection, release: Release, initial: Mapping[str, torch.Tensor] | None
) -> list[KdePanel]:
    """A few parameters' density estimates for the report. Private: they show the members' values."""
    return [KdePanel(**asdict(example)) for example in kde_examples(collection, release, initial=initial)]


def release_facts(release: Release) -> dict[str, Any]:
    """How a release was made, flat, for the report."""
    facts: dict[str, Any] = {}
    for name, value in release.description.items():
        if isinstance(value, Mapping):
            facts.update({f"{name}: {inner}": leaf for inner, leaf in value.items()})
        else:
            facts[name] = value
    return facts | {str(name): value for name, value in release.guarantee.implementation.items()}
