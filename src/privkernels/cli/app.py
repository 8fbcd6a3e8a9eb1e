"""The commands: train, publish, audit, compare, demo, doctor.

The libraries behind a command are imported when it runs: help and usage errors come at once.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from privkernels.cli import account as account_commands
from privkernels.cli import audit as audit_commands
from privkernels.cli import ledger as ledger_commands
from privkernels.cli.console import one_line_errors, out, print_guarantee, print_summary, progress_bar
from privkernels.cli.options import (
    DATA_WORDS,
    MODEL_WORDS,
    BatchSize,
    DataName,
    DataRoot,
    Download,
    Epochs,
    LearningRate,
    Optimizer,
    training_config,
)
from privkernels.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privkernels.publishing import QualityCheck

app = typer.Typer(
    help="Publish trained PyTorch models without publishing their training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(account_commands.app, name="account")
app.add_typer(ledger_commands.app, name="ledger")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(importlib.metadata.version("privkernels"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Publish trained PyTorch models without publishing their training data."""


@app.command()
@one_line_errors
def train(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the members; rerun to continue.")],
    data_name: DataName,
    model: Annotated[str, typer.Option(help=f"{MODEL_WORDS}, or package.module:factory.")],
    data_root: DataRoot = None,
    download: Download = False,
    members: Annotated[int, typer.Option(help="How many models to train, M.")] = 50,
    records: Annotated[int | None, typer.Option(help="Use this many training records (default: all).")] = None,
    subsets: Annotated[
        str, typer.Option(help="random-fraction, leave-one-out or disjoint-shards.")
    ] = "random-fraction",
    subset_fraction: Annotated[float, typer.Option(help="Share of the records for each member.")] = 0.5,
    epochs: Epochs = 30,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.05,
    optimizer: Optimizer = "sgd",
    engine: Annotated[str, typer.Option(help="auto, stacked or processes.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Worker processes (default: one per core).")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="For experiments: repeatable members; whoever guesses it knows the records used."),
    ] = None,
) -> None:
    """Train members in parallel from one initialisation, each on its own recorded subset."""
    from privkernels import data, workflow

    config = training_config(epochs, batch_size, learning_rate, optimizer)
    loaded = data.load(data_name, data_root, download=download)
    with progress_bar() as progress:
        folder = workflow.train(
            loaded, model, out_folder, members=members, records=records, subsets=subsets,
            subset_fraction=subset_fraction, config=config, seed=seed, engine=engine, workers=workers,
            progress=progress,
        )  # fmt: skip
    out.print(Text(f"{members} members in {folder}. They are private: publish a model made from them, not them."))


@app.command()
@one_line_errors
def publish(
    members: Annotated[Path, typer.Argument(help="Folder of members (.safetensors files of one architecture).")],
    epsilon: Annotated[float, typer.Option(help="Budget; see --mode.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the release.")],
    method: Annotated[str, typer.Option(help="dp-pg.")] = "dp-pg",
    mode: Annotated[
        str,
        typer.Option(help="proven: epsilon is the whole release's, for --unit. paper: as printed; nothing is proven."),
    ] = "proven",
    delta: Annotated[float, typer.Option(help="Of the proven budget.")] = 1e-5,
    unit: Annotated[str, typer.Option(help="What is protected: example, member or parameter.")] = "example",
    overlap: Annotated[
        int | None, typer.Option(help="Most members that one record was used in (default: as recorded).")
    ] = None,
    grid_points: Annotated[int, typer.Option(help="R.")] = 256,
    window_ratio: Annotated[float, typer.Option(help="Window of the score, in bandwidths.")] = 0.99,
    center: Annotated[str, typer.Option(help="Middle of the public grid: auto, initial or zero.")] = "auto",
    clip: Annotated[float, typer.Option(help="Half the public grid, in 1/sqrt(fan in).")] = 4.0,
    work: Annotated[
        str, typer.Option(help="lazy, or fixed: the time of the draws does not depend on the members (slow).")
    ] = "lazy",
    model: Annotated[str | None, typer.Option(help=f"{MODEL_WORDS}, or package.module:factory.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Draw again until accuracy exceeds this.")] = None,
    max_tries: Annotated[int, typer.Option(help="Tries of that loop; all are charged.")] = 1,
    validation_data: Annotated[
        str | None, typer.Option(help=f"Data set whose test split that loop looks at: {DATA_WORDS}.")
    ] = None,
    validation_is_public: Annotated[
        bool | None,
        typer.Option("--validation-is-public/--validation-is-private", help="Decides what can be proven."),
    ] = None,
    data_root: DataRoot = None,
    integer_tensors_are_public: Annotated[
        bool,
        typer.Option("--integer-tensors-are-public", help="Integer and boolean tensors do not depend on the records."),
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="Charge the release to this file; its guarantee counts everything in it.")
    ] = None,
    data_id: Annotated[str | None, typer.Option(help="Name of the data set in the ledger.")] = None,
    seed: Annotated[int | None, typer.Option(help="For experiments: repeatable, and not private.")] = None,
    replace: Annotated[bool, typer.Option(help="Replace what --out holds.")] = False,
) -> None:
    """Publish a model drawn from the members' parameters, with its guarantee and a model card."""
    from privkernels import workflow
    from privkernels.publishing import DpPgSettings
    from privkernels.randomness import Key

    settings = DpPgSettings(
        epsilon, mode=mode, delta=delta, unit=unit, grid_points=grid_points, window_ratio=window_ratio,
        max_tries=max_tries, center=center, clip=clip, work=work,
        constant_tensors_are_public=integer_tensors_are_public,
    )  # fmt: skip
    quality = None
    if min_accuracy is not None:
        quality = _quality(members, model, min_accuracy, validation_data, validation_is_public, data_root)
    key = None if seed is None else Key.from_seed(seed)
    with progress_bar() as progress:
        release = workflow.publish(
            members, settings, out_folder, method=method, key=key, model=model, overlap=overlap, quality=quality,
            ledger=ledger, data_id=data_id, replace=replace, progress=progress,
        )  # fmt: skip
    print_guarantee(release.guarantee)
    out.print(Text(f"Release in {out_folder}; 'privkernels audit' measures what it leaks."))


app.command()(audit_commands.audit)
app.command()(audit_commands.compare)


@app.command()
@one_line_errors
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the result.")] = Path("privkernels-demo"),
    epsilon: Annotated[float, typer.Option(help="For both modes.")] = 1.0,
    members: Annotated[int, typer.Option(help="How many models to train.")] = 50,
) -> None:
    """Train 50 members on scikit-learn's digits, publish, attack, report. Under three minutes on two cores."""
    from privkernels.demonstration import demo as run_demo

    with progress_bar() as progress:
        result = run_demo(out_folder, epsilon=epsilon, members=members, progress=progress)
    print_summary(result.audit)
    out.print(
        Text(
            f"{result.folder} holds model.safetensors, guarantee.json, README.md (to publish) and report.html "
            f"(private: do not publish it). {result.seconds:.0f} s."
        )
    )


@app.command()
@one_line_errors
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what was built, what was loaded, which instruction set, and why CUDA is or is not there."""
    from privkernels import _native

    facts = _native.describe()
    healthy = bool(facts["cpu"]["loaded"]) and facts["cpu"].get("chosen") is not None
    if as_json:
        typer.echo(json.dumps(facts, indent=2, sort_keys=True))
    else:
        out.print(Text(_doctor_words(facts)))
    if not healthy:
        raise typer.Exit(1)


def _doctor_words(facts: dict[str, Any]) -> str:
    cpu, cuda = facts["cpu"], facts["cuda"]
    lines = [
        f"Python {facts['python']} on {facts['machine']}, PyTorch {facts['torch']}, {facts['threads']} threads",
        f"package: {facts['package']}",
    ]
    if not cpu["loaded"]:
        lines.append(f"CPU kernels: NOT LOADED: {cpu['reason']}")
    else:
        sets = ", ".join(
            f"{entry['name']} ({'usable' if entry['supported'] else 'not on this machine'})"
            for entry in cpu["instruction_sets"]
            if entry["compiled"]
        )
        lines += [
            f"CPU kernels: loaded, version {cpu['version']}, {cpu['compiler']}, {cpu['build_type']}",
            f"instruction sets: {sets}",
            f"in use: {cpu['chosen'] or 'NONE: ' + cpu['reason']}"
            + (" (forced by PRIVKERNELS_ISA)" if facts["PRIVKERNELS_ISA"] else ""),
        ]
    state = "usable" if cuda.get("usable") else "not usable"
    lines.append(f"CUDA kernels: {state}: {cuda['reason']}")
    return "\n".join(lines)


def _quality(
    members: Path,
    model: str | None,
    min_accuracy: float,
    validation_data: str | None,
    validation_is_public: bool | None,
    data_root: Path | None,
) -> QualityCheck:
    from privkernels import data, models, workflow
    from privkernels.publishing import QualityCheck

    if validation_data is None or validation_is_public is None:
        raise InvalidArgumentError(
            "--min-accuracy needs --validation-data, and --validation-is-public or --validation-is-private: "
            "accepting on private records can reveal them, so it is never done silently"
        )
    records = data.load(validation_data, data_root).test
    run = workflow.training_run(members)
    if model is None and run is None:
        raise InvalidArgumentError("the members were trained elsewhere: give --model to measure accuracy")
    network = (
        run.build_model()
        if model is None and run is not None
        else models.build(str(model), input_shape=tuple(records.x.shape[1:]), n_classes=records.n_classes, seed=0)
    )
    return QualityCheck(network, records, min_accuracy, validation_is_public)
