"""privkernels account: a calculator. Leave out one number and it is solved for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from privkernels.cli.console import one_line_errors, out
from privkernels.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privkernels.privacy.calculator import Calculation

app = typer.Typer(
    help="What a mechanism's numbers claim, and what they prove. Leave out one number and it is solved for.",
    no_args_is_help=True,
)
Plot = Annotated[Path | None, typer.Option(help="Write the figure (.png, .svg or .pdf).")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Delta = Annotated[float, typer.Option(help="δ of the proven numbers.")]


def _answer(calculation: Calculation, plot: Path | None, as_json: bool) -> None:
    from privkernels.privacy.calculator import plot as draw

    if plot is not None:
        draw(calculation.curve, plot)
    if as_json:
        typer.echo(json.dumps(calculation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    table = Table(title=calculation.title, title_justify="left")
    for column in ("", "claimed", "proven", "by, or why not"):
        table.add_column(column, overflow="fold")
    for row in calculation.rows:
        table.add_row(*map(Text, (row.about, row.claimed, row.proven, row.by)))
    out.print(table)
    given = [name for name, value in calculation.inputs.items() if value is not None]
    out.print(Text(", ".join(map(calculation.shown, given))))
    if calculation.limit is not None:
        out.print(Text(_no_limit(calculation), style="bold"))
    elif calculation.solved in given:
        out.print(Text(f"Solved: {calculation.shown(calculation.solved)}", style="bold"))
    for note in calculation.notes:
        out.print(Text(f"Note: {note}"))
    if plot is not None:
        out.print(Text(f"Figure in {plot}."))


def _no_limit(calculation: Calculation) -> str:
    limit = calculation.limit or 0
    way = "up" if limit > 1 else "down"
    return (
        f"Solved: any {calculation.solved.replace('_', '-')} satisfies this, {way} to the limit of the search, "
        f"{limit:g}, which the lines above are for."
    )


@app.command()
@one_line_errors
def gaussian(
    noise_std: Annotated[float | None, typer.Option(help="Standard deviation of the noise.")] = None,
    sensitivity: Annotated[float | None, typer.Option(help="L2 sensitivity.")] = None,
    epsilon: Annotated[float | None, typer.Option()] = None,
    delta: Annotated[float | None, typer.Option()] = None,
    releases: Annotated[
        int | None, typer.Option(help="How often, with fresh noise (default: 1; solved for if all others are given).")
    ] = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Gaussian noise: the exact ε beside the offloading paper's formulae."""
    from privkernels.privacy import calculator

    answer = calculator.gaussian(
        noise_std=noise_std, sensitivity=sensitivity, epsilon=epsilon, delta=delta, releases=releases
    )
    _answer(answer, plot, as_json)


@app.command("dp-pg")
@one_line_errors
def dp_pg(
    epsilon: Annotated[float | None, typer.Option(help="ε of one draw, which the paper claims for all.")] = None,
    total: Annotated[float | None, typer.Option(help="ε of the release, for --unit.")] = None,
    parameters: Annotated[int | None, typer.Option(help="N.")] = None,
    members: Annotated[int, typer.Option(help="M.")] = 50,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Most members that one record was used in (default: all; solved for if all others are given)."
        ),
    ] = None,
    unit: Annotated[str, typer.Option(help="For --total: parameter, member or example.")] = "example",
    delta: Delta = 1e-5,
    grid_points: Annotated[int, typer.Option(help="R.")] = 256,
    window_ratio: Annotated[float, typer.Option(help="Window of the score, in bandwidths.")] = 0.99,
    tries: Annotated[int, typer.Option(help="Tries of the quality loop, all charged.")] = 1,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """DP-PG: the paper's maximum beside what all draws cost one parameter, one member, one example."""
    from privkernels.privacy import calculator

    answer = calculator.dp_pg(
        epsilon=epsilon, total=total, parameters=parameters, members=members, overlap=overlap, unit=unit, delta=delta,
        grid_points=grid_points, window_ratio=window_ratio, tries=tries,
    )  # fmt: skip
    _answer(answer, plot, as_json)


@app.command()
@one_line_errors
def activations(
    noise_std: Annotated[float | None, typer.Option(help="Standard deviation of the noise on each number.")] = None,
    clip: Annotated[float | None, typer.Option(help="L2 norm that each example's tensor is clipped to.")] = None,
    epochs: Annotated[int | None, typer.Option(help="T.")] = None,
    epsilon: Annotated[float | None, typer.Option()] = None,
    delta: Delta = 1e-5,
    shape: Annotated[
        str | None, typer.Option(help="CHANNELSxHEIGHTxWIDTH: bound the normalised tensor instead of clipping it.")
    ] = None,
    clamp: Annotated[
        float | None, typer.Option(help="With --shape: activations are clamped to [0, this] (default: 1).")
    ] = None,
    client_layer: Annotated[str, typer.Option(help="frozen, dp-sgd or unnoised (the paper's).")] = "frozen",
    release_once: Annotated[bool, typer.Option("--release-once", help="Each noisy tensor is sent once.")] = False,
    signed: Annotated[bool, typer.Option("--signed", help="Clipped tensors may hold negative numbers.")] = False,
    sgd_noise_multiplier: Annotated[float | None, typer.Option(help="For a client layer trained by DP-SGD.")] = None,
    label_epsilon: Annotated[float | None, typer.Option(help="Labels through randomised response.")] = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Noisy activations: the paper's ε for one number beside what the transcript costs one example."""
    from privkernels.privacy import calculator
    from privkernels.privacy.activation_formulae import lrn_tensor_sensitivity

    if shape is not None and clip is not None:
        raise InvalidArgumentError("give --clip or --shape, not both: they are two ways to bound the tensor")
    if shape is None and clamp is not None:
        raise InvalidArgumentError("--clamp belongs to --shape: give --shape too, or leave --clamp out")
    if shape is not None and signed:
        raise InvalidArgumentError("--signed belongs to --clip: the bound of --shape is for activations of 0 or more")
    sensitivity = None
    if shape is not None:
        sensitivity = lrn_tensor_sensitivity(*_shape(shape), clamp=1.0 if clamp is None else clamp)
    answer = calculator.activations(
        noise_std=noise_std, clip=clip, epochs=epochs, epsilon=epsilon, delta=delta, sensitivity=sensitivity,
        client_layer=client_layer, release_once=release_once, signed=signed,
        sgd_noise_multiplier=sgd_noise_multiplier, label_epsilon=label_epsilon,
    )  # fmt: skip
    _answer(answer, plot, as_json)


@app.command()
@one_line_errors
def functional(
    hidden_units: Annotated[int, typer.Option(help="b.")],
    records: Annotated[int, typer.Option(help="n.")],
    noise_scale: Annotated[float | None, typer.Option(help="Laplace scale or Gaussian standard deviation.")] = None,
    epsilon: Annotated[float | None, typer.Option()] = None,
    epochs: Annotated[
        int | None, typer.Option(help="E (default: 1; solved for if --noise-scale and --epsilon are both given).")
    ] = None,
    delta: Delta = 1e-5,
    noise: Annotated[str, typer.Option(help="laplace or gaussian.")] = "laplace",
    mode: Annotated[str, typer.Option(help="release-once, per-epoch or trained (the paper's).")] = "release-once",
    batches: Annotated[int, typer.Option(help="Disjoint batches per epoch.")] = 1,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """The functional mechanism: Lemma 3's ε beside what frozen or trained features leave of it."""
    from privkernels.privacy import calculator

    answer = calculator.functional(
        hidden_units=hidden_units, records=records, noise_scale=noise_scale, epsilon=epsilon, epochs=epochs,
        delta=delta, noise=noise, mode=mode, batches=batches,
    )  # fmt: skip
    _answer(answer, plot, as_json)


@app.command()
@one_line_errors
def secprobe(
    participants: Annotated[int, typer.Option(help="n.")],
    selected: Annotated[int, typer.Option(help="K.")],
    records: Annotated[int, typer.Option(help="Validation records, d.")],
    epsilon: Annotated[float | None, typer.Option(help="ε_1 of one round.")] = None,
    rounds: Annotated[int | None, typer.Option(help="R.")] = None,
    total: Annotated[float | None, typer.Option(help="ε of all rounds, for --unit.")] = None,
    delta: Delta = 1e-5,
    task: Annotated[str, typer.Option(help="classification or regression.")] = "classification",
    unit: Annotated[str, typer.Option(help="'validation record' or 'participant score'.")] = "validation record",
    paper_sensitivity: Annotated[bool, typer.Option("--paper-sensitivity", help="Draw as the paper does.")] = False,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """SecProbe's choice of participants: Theorem 5's ε beside what all rounds cost either unit."""
    from privkernels.privacy import calculator

    answer = calculator.secprobe(
        participants=participants, selected=selected, records=records, epsilon=epsilon, rounds=rounds, total=total,
        delta=delta, task=task, unit=unit, paper_sensitivity=paper_sensitivity,
    )  # fmt: skip
    _answer(answer, plot, as_json)


@app.command()
@one_line_errors
def prune(
    accuracy: Annotated[float | None, typer.Option(help="Balanced accuracy of an attack, 1/2 to 1.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="ε of a private training to compare with.")] = None,
    delta: Annotated[float, typer.Option()] = 0.0,
    kept: Annotated[float, typer.Option(help="Share of the weights that remain.")] = 0.1,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Pruning: no guarantee, and what an attack's accuracy says about ε."""
    from privkernels.privacy import calculator

    _answer(calculator.prune(accuracy=accuracy, epsilon=epsilon, delta=delta, kept=kept), plot, as_json)


@app.command()
@one_line_errors
def figure3(plot: Plot = None, as_json: AsJson = False) -> None:
    """Figure 3 of the offloading paper, as printed and as it should be."""
    from privkernels.privacy import calculator

    _answer(calculator.figure3(), plot, as_json)


def _shape(text: str) -> tuple[int, int, int]:
    parts = re.fullmatch(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", text.lower())
    if parts is None:
        raise InvalidArgumentError(f"a shape is CHANNELSxHEIGHTxWIDTH, for example 64x32x32, not {text!r}")
    channels, height, width = map(int, parts.groups())
    return channels, height, width
