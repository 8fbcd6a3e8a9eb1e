"""Auditing models from files: what ``privkernels audit MODEL`` and ``privkernels compare`` call.

A model is a release (a folder that :func:`privkernels.publish` wrote) or any ``.safetensors`` file; records are
``.npz`` files. No defence is needed for an audit, and none of its training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from privkernels import _files, models
from privkernels.attacks import Attack
from privkernels.audit import (
    Canaries,
    Comparison,
    ModelAudit,
    Target,
    all_attacks,
    audit_models,
    compare,
    write_report,
)
from privkernels.audit.inversions import InversionPanel
from privkernels.audit.reconstructions import check_layers
from privkernels.data import Records, load_arrays, load_attributes
from privkernels.errors import FileMissingError, InvalidArgumentError
from privkernels.progress import silent
from privkernels.publishing import Release
from privkernels.workflow import release_target, with_reconstructions

PathLike = str | os.PathLike[str]


def audit_files(
    paths: Sequence[PathLike],
    model: str,
    members: PathLike,
    nonmembers: PathLike,
    *,
    report: PathLike | None = None,
    json_path: PathLike | None = None,
    **settings: Any,
) -> ModelAudit:
    """Audit models in files with records in files; see :func:`privkernels.audit.audit_models`.

    Args:
        paths: releases or ``.safetensors`` files, at least one, all of one architecture.
        model: spec of that architecture for :func:`privkernels.models.build`: a name, or ``package.module:factory``,
            which is imported and called.
        members: ``.npz`` file (:func:`privkernels.data.load_arrays`) of records that the models were trained on.
        nonmembers: of records from the same source that they were not trained on.
        report, json_path: where to write the audit as HTML and as JSON; both hold private data.
        settings: the files ``public`` (further non-members, for attacks that learn from them), ``test`` (records for
            test accuracy; the non-members where None) and ``canaries`` (written by
            :meth:`privkernels.audit.Canaries.save`); ``subgroups`` (names of arrays in the files of members and of
            non-members, one value per record: the values are subgroups); ``n_classes`` (one more than the largest
            label of all files where None); ``attacks`` (all of the library's where None); ``invert``: names of layers
            that records are reconstructed from (:func:`privkernels.audit.reconstruct`); and thresholds, budget,
            config, cache, ... of :func:`privkernels.audit.audit_models`.

    Raises:
        FileMissingError, CorruptFileError, UnsafeFormatError: a file cannot be read.
        MemberMismatchError: weights that do not fit the architecture.
        InvalidArgumentError: the same model twice, or what :func:`privkernels.audit.audit_models` and
            :func:`privkernels.data.load_attributes` refuse.
        OutputExistsError: ``report`` or ``json_path`` cannot be written.
    """
    _check_outputs(report, json_path)
    audit, _, _, pictures = _audited(paths, model, members, nonmembers, **settings)
    if json_path is not None:
        audit.save(json_path)
    if report is not None:
        write_report(audit.result, report, audit=audit, pictures=pictures)
    return audit


def compare_files(
    paths: Sequence[PathLike],
    model: str,
    members: PathLike,
    nonmembers: PathLike,
    *,
    report: PathLike | None = None,
    json_path: PathLike | None = None,
    **settings: Any,
) -> Comparison:
    """Audit models in files together, and compare the first with each other one; see :func:`privkernels.audit.compare`.

    Args and Raises: as for :func:`audit_files`; at least two models, the first of them the one that the others are
    compared with, such as the dense parent of pruned ones.
    """
    if len(paths) < 2:
        raise InvalidArgumentError(f"a comparison needs two or more models, got {len(paths)}")
    _check_outputs(report, json_path)
    audit, targets, test, pictures = _audited(paths, model, members, nonmembers, **settings)
    comparison = compare(targets, audit, test)
    if json_path is not None:
        comparison.save(json_path)
    if report is not None:
        write_report(audit.result, report, audit=audit, pictures=pictures, title="Models side by side")
    return comparison


def _check_outputs(*paths: PathLike | None) -> None:
    for path in paths:
        if path is not None:
            _files.check_output_file(path)


def _audited(
    paths: Sequence[PathLike],
    model: str,
    members: PathLike,
    nonmembers: PathLike,
    *,
    public: PathLike | None = None,
    test: PathLike | None = None,
    canaries: PathLike | None = None,
    subgroups: Sequence[str] = (),
    n_classes: int | None = None,
    attacks: Sequence[Attack] | None = None,
    invert: Sequence[str] = (),
    **settings: Any,
) -> tuple[ModelAudit, list[Target], Records, list[InversionPanel]]:
    """The audit, its targets, the records that accuracy was measured on, and reconstructed records as pictures."""
    records = _load({"members": members, "non-members": nonmembers, "public": public, "test": test}, n_classes)
    inside, outside = (load_attributes(path, subgroups) for path in (members, nonmembers))
    make_model = _factory(model, records["members"])
    targets = [load_target(path, make_model, name) for path, name in zip(paths, _names(paths), strict=True)]
    check_layers(targets, invert)  # before the long work
    audit = audit_models(
        targets,
        all_attacks(records["members"]) if attacks is None else attacks,
        records["members"],
        records["non-members"],
        public=records.get("public"),
        test=records.get("test"),
        canaries=None if canaries is None else Canaries.load(canaries),
        subgroups={name: (inside[name], outside[name]) for name in subgroups},
        make_model=make_model,
        **settings,
    )
    audit, pictures = with_reconstructions(
        audit, targets, invert, records["members"], records["non-members"], settings.get("progress", silent)
    )
    return audit, targets, records.get("test", records["non-members"]), pictures


def load_target(path: PathLike, make_model: Callable[[], nn.Module], name: str) -> Target:
    """A release folder or a ``.safetensors`` file as the target of an audit.

    Raises:
        FileMissingError, CorruptFileError, UnsafeFormatError, MemberMismatchError: see :func:`audit_files`.
    """
    path = Path(path)
    if path.is_dir():
        return release_target(Release.load(path), make_model, name)
    if not path.is_file():
        raise FileMissingError(f"there is no model {path}: give a release folder or a .safetensors file")
    return Target(name, models.load_weights(make_model(), path), None, {"file": path.name})


def _load(paths: dict[str, PathLike | None], n_classes: int | None) -> dict[str, Records]:
    given = {role: path for role, path in paths.items() if path is not None}
    records = {role: load_arrays(path, n_classes=n_classes) for role, path in given.items()}
    most = max(part.n_classes for part in records.values())
    return {role: Records(part.x, part.y, most, part.name) for role, part in records.items()}


def _factory(model: str, records: Records) -> Callable[[], nn.Module]:
    shape = tuple(records.x.shape[1:])
    return lambda: models.build(model, input_shape=shape, n_classes=records.n_classes)


def _names(paths: Sequence[PathLike]) -> list[str]:
    """File names where they differ, and whole paths where not."""
    if not paths:
        raise InvalidArgumentError("expected at least one model, got none")
    short = [Path(path).name or str(path) for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InvalidArgumentError("the same model is given twice: give every file once")
    return names
