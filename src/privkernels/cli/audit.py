"""privkernels audit, privkernels compare: attack releases, or any model, and say what was found.

The exit code of an audit with thresholds is 0, 1 or 2 for below, above and undecided; without thresholds it is 0. An
error is 2 as well: what was not shown to be below does not pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from privkernels.cli.console import (
    one_line_errors,
    out,
    print_comparison,
    print_model_audit,
    progress_bar,
)
from privkernels.cli.options import (
    DATA_WORDS,
    MODEL_WORDS,
    BatchSize,
    DataRoot,
    Download,
    Epochs,
    LearningRate,
    Optimizer,
    training_config,
)
from privkernels.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privkernels.audit import ModelAudit, Threshold

Models = Annotated[list[Path] | None, typer.Argument(help="Releases ('privkernels publish'), or .safetensors files.")]
Spec = Annotated[str | None, typer.Option("--model", help=f"{MODEL_WORDS}, or package.module:factory.")]
NonMembers = Annotated[
    Path | None, typer.Option("--non-members", help=".npz (x, y): records that the models were not trained on.")
]
Public = Annotated[Path | None, typer.Option(help=".npz: further non-members, for attacks that learn from them.")]
Test = Annotated[Path | None, typer.Option(help=".npz: records for test accuracy (default: the non-members).")]
Classes = Annotated[int | None, typer.Option(help="Number of classes (default: largest label + 1).")]
Subgroup = Annotated[
    list[str] | None,
    typer.Option(help="An array in members and non-members, such as sex: each of its values is a subgroup."),
]
Budget = Annotated[str | None, typer.Option(help="Time for everything: 90s, 10m, 1.5h (default: no limit).")]
Cache = Annotated[
    Path | None, typer.Option(help="Keep shadow models and scores here (private), for the next audit or to continue.")
]
MaxTpr = Annotated[
    list[str] | None, typer.Option(help="Largest true positive rate allowed at a false positive rate: 0.01@0.001.")
]
MaxAuc = Annotated[float | None, typer.Option(help="Largest AUC allowed.")]
Invert = Annotated[
    list[str] | None,
    typer.Option(metavar="LAYER", help="Reconstruct some members from what this layer ('output': the model) puts out."),
]
Shadows = Annotated[int | None, typer.Option(help="Most shadow models (default: 64, or what the budget allows).")]
Report = Annotated[Path | None, typer.Option(help="Write an HTML report (holds private data).")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON (private).")]


@one_line_errors
def audit(
    context: typer.Context,
    targets: Models = None,
    members: Annotated[
        Path | None, typer.Option(help=".npz (x, y) of training records; of releases also the folder of their members.")
    ] = None,
    nonmembers: NonMembers = None,
    model: Spec = None,
    public: Public = None,
    test: Test = None,
    classes: Classes = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Canaries that were in the training by coin flips: they bound its epsilon.")
    ] = None,
    subgroup: Subgroup = None,
    budget: Budget = None,
    max_tpr: MaxTpr = None,
    max_auc: MaxAuc = None,
    shadows: Shadows = None,
    epochs: Epochs = 30,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.05,
    optimizer: Optimizer = "sgd",
    cache: Cache = None,
    invert: Invert = None,
    report: Report = None,
    json_path: Json = None,
    data_name: Annotated[
        str | None, typer.Option("--data", help=f"With a folder of members: their data set, {DATA_WORDS}.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    member_records: Annotated[
        Path | None,
        typer.Option(help="For members trained elsewhere: file with an index into the training split on each line."),
    ] = None,
    max_records: Annotated[
        int, typer.Option(help="With --data: most members, and most non-members, to attack.")
    ] = 5000,
    unprotected: Annotated[bool, typer.Option(help="With --data: attack member 0 too, for comparison.")] = True,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Audit scores that know nothing, and count the false alarms.")
    ] = False,
) -> None:
    """Attack models; print claimed, proven and measured; decide against thresholds (exit code 0, 1, 2).

    Any model: MODEL.safetensors --model package.module:factory --members a.npz --non-members b.npz. --epochs,
    --batch-size, --learning-rate and --optimizer say how it was trained.

    Releases of members from 'privkernels train': RELEASE --members FOLDER --data NAME. The folder says how they were
    trained; one member is attacked too, for comparison alone.
    """
    if self_test:
        _self_test()
        return
    if not targets or members is None:
        raise InvalidArgumentError("give the models to audit, and --members")
    config = training_config(epochs, batch_size, learning_rate, optimizer)
    settings: dict[str, Any] = {
        "canaries": canaries, "thresholds": _thresholds(max_tpr or [], max_auc), "budget": _seconds(budget),
        "n_shadows": shadows, "cache": cache, "invert": invert or [], "report": report, "json_path": json_path,
    }  # fmt: skip
    if data_name is not None:
        # An option that is not looked at would mislead whoever gave it.
        _require_none(
            {
                "--non-members": nonmembers, "--public": public, "--test": test, "--classes": classes,
                "--subgroup": subgroup,
            }
        )  # fmt: skip
        result = _audit_releases(
            targets, members, (data_name, data_root, download), member_records, model=model, max_records=max_records,
            unprotected=unprotected, config=None if _config_is_known(context, members) else config, **settings,
        )  # fmt: skip
    else:
        if member_records is not None:
            raise InvalidArgumentError("--member-records goes with --data and a folder of members")
        result = _audit_files(
            targets, members, nonmembers, model, public=public, test=test, n_classes=classes,
            subgroups=subgroup or [], config=config, **settings,
        )  # fmt: skip
    _exit(result)


@one_line_errors
def compare(
    targets: Annotated[
        list[Path], typer.Argument(help="Releases or .safetensors files; the others are compared with the first.")
    ],
    members: Annotated[Path, typer.Option(help=".npz (x, y): records that the models were trained on.")],
    nonmembers: NonMembers,
    model: Spec,
    public: Public = None,
    test: Test = None,
    classes: Classes = None,
    subgroup: Subgroup = None,
    budget: Budget = None,
    max_tpr: MaxTpr = None,
    max_auc: MaxAuc = None,
    shadows: Shadows = None,
    epochs: Epochs = 30,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.05,
    optimizer: Optimizer = "sgd",
    cache: Cache = None,
    invert: Invert = None,
    report: Report = None,
    json_path: Json = None,
) -> None:
    """Set models side by side: accuracy, size, claimed, proven, measured; which differences are more than chance."""
    from privkernels import auditing

    if nonmembers is None or model is None:
        raise InvalidArgumentError("give --model and --non-members")
    with progress_bar() as progress:
        result = auditing.compare_files(
            targets, model, members, nonmembers, public=public, test=test, n_classes=classes,
            subgroups=subgroup or [], report=report, json_path=json_path, budget=_seconds(budget), n_shadows=shadows,
            thresholds=_thresholds(max_tpr or [], max_auc), cache=cache, invert=invert or [], progress=progress,
            config=training_config(epochs, batch_size, learning_rate, optimizer),
        )  # fmt: skip
    print_comparison(result)
    _say_report(report)
    _exit(result.audit)


def _audit_files(
    targets: list[Path],
    members: Path,
    nonmembers: Path | None,
    model: str | None,
    *,
    report: Path | None,
    **settings: Any,
) -> ModelAudit:
    from privkernels import auditing

    if nonmembers is None or model is None:
        raise InvalidArgumentError(
            "give --model, and --members and --non-members as .npz files; or, for releases of members that "
            "'privkernels train' made, --members FOLDER and --data NAME"
        )
    with progress_bar() as progress:
        result = auditing.audit_files(targets, model, members, nonmembers, report=report, progress=progress, **settings)
    print_model_audit(result)
    _say_report(report)
    return result


def _self_test() -> None:
    from privkernels.audit import self_test

    with progress_bar() as progress:
        result = self_test(progress=progress)
    out.print(Text(str(result)), soft_wrap=True)
    if not result.passed:
        raise typer.Exit(1)


def _audit_releases(
    releases: list[Path],
    members: Path,
    source: tuple[str, Path | None, bool],
    member_records: Path | None,
    *,
    report: Path | None,
    **settings: Any,
) -> ModelAudit:
    from privkernels import data, workflow

    name, root, download = source
    loaded = data.load(name, root, download=download)
    with progress_bar() as progress:
        result = workflow.audit_release(
            releases, members, loaded, report=report, progress=progress,
            member_records=None if member_records is None else _indices(member_records), **settings,
        )  # fmt: skip
    print_model_audit(result)
    _say_report(report)
    return result


def _config_is_known(context: typer.Context, members: Path) -> bool:
    """Whether the folder says how its members were trained; the options must then not say it too."""
    from privkernels import workflow

    if not (members / workflow.TRAINING_FILE).exists():
        return False
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("epochs", "batch_size", "learning_rate", "optimizer")
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if given:
        raise InvalidArgumentError(f"{members} says how its members were trained: leave out {', '.join(given)}")
    return True


def _say_report(report: Path | None) -> None:
    if report is not None:
        out.print(Text(f"Report in {report}. It holds private data: do not publish it."))


def _exit(audit: ModelAudit) -> None:
    from privkernels.audit import EXIT_CODES

    code = EXIT_CODES.get(audit.outcome, 2 if audit.outcome == "void" else 0)
    if code:
        raise typer.Exit(code)


def _thresholds(tprs: list[str], auc: float | None) -> list[Threshold]:
    from privkernels.audit import Threshold

    return [Threshold.parse_tpr(text) for text in tprs] + ([] if auc is None else [Threshold(auc)])


def _seconds(budget: str | None) -> float | None:
    from privkernels.audit import parse_duration

    return None if budget is None else parse_duration(budget)


def _require_none(options: dict[str, object]) -> None:
    given = sorted(name for name, value in options.items() if value is not None and value != [])
    if given:
        raise InvalidArgumentError(
            f"{', '.join(given)} go with --members as a .npz file, and --data with a folder of members: give one or "
            "the other"
        )


def _indices(path: Path) -> list[int]:
    words = path.read_text(encoding="utf-8").split()
    bad = next((word for word in words if not word.isdigit()), None)
    if bad is not None:
        raise InvalidArgumentError(f"{path} holds {bad!r}: expected an index of the training split on each line")
    return [int(word) for word in words]
