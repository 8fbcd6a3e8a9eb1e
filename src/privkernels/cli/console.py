"""What the commands share: one-line errors, exit codes, progress, the summary table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from privkernels.errors import PrivkernelsError
from privkernels.progress import Progress

if TYPE_CHECKING:
    from privkernels.audit import AuditResult, Comparison, ModelAudit, TargetVerdict
    from privkernels.privacy.guarantee import Guarantee

INTERRUPTED = 130
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# What an interrupted command leaves, where it leaves something.
_KEPT = {
    "train": "finished members are kept: run the same command again to continue",
    "audit": "shadow models in --cache are kept: run the same command again to continue",
    "compare": "shadow models in --cache are kept: run the same command again to continue",
}

_WIDE = 120
_COLUMNS = {
    "model": 11, "test accuracy": 8, "claimed": 7, "proven": 7, "attack": 9, "AUC": 9, "TPR at 1 % FPR": 7,
}  # fmt: skip

out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def one_line_errors(command: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Print an expected error as one line and exit with its code; let a bug show its traceback."""

    @functools.wraps(command)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return command(*args, **kwargs)
        except PrivkernelsError as error:
            _say(f"privkernels: error: {error}")
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            _say(f"privkernels: error: {error.filename or 'a file'}: {error.strerror or error}")
            raise typer.Exit(PrivkernelsError.exit_code) from None
        except KeyboardInterrupt:
            _say(f"privkernels: interrupted; {_KEPT.get(command.__name__, 'nothing was written')}")
            raise typer.Exit(INTERRUPTED) from None

    return wrapped


def _say(message: str) -> None:
    err.print(Text(" ".join(message.split()), style="red"))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error; where that is no terminal, a line whenever the work changes."""
    if not err.is_terminal:
        yield _plain_progress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=err, transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(bar.task_ids[list(tasks).index(what)], completed=done, total=total)

        yield show


def _plain_progress() -> Progress:
    said: dict[str, int] = {}

    def show(done: int, total: int, what: str) -> None:
        # Tenths, so that a log stays short.
        tenth = 10 if total == 0 else done * 10 // total
        if said.get(what) != tenth:
            said[what] = tenth
            err.print(Text(f"{what}: {done} of {total}"))

    return show


def print_summary(result: AuditResult) -> None:
    """The one table of an audit, the reasons where nothing is proven, and what to know of the figures."""
    from privkernels.audit import summary_rows

    reasons = {
        target.name: str(target.guarantee["not_proven_because"])
        for target in result.targets
        if target.guarantee is not None and target.guarantee["proven"] is None
    }
    table = Table(title="Claimed, proven, measured (with 95 % intervals)", title_justify="left")
    # On a narrow terminal these widths keep words whole; on a wide one the cells decide.
    for column, width in _COLUMNS.items():
        table.add_column(column, overflow="fold", width=width if out.width < _WIDE else None)
    previous = None
    for row in summary_rows(result):
        first = row.target != previous
        previous = row.target
        if first and table.row_count:
            table.add_section()
        proven = "none (see below)" if row.target in reasons else row.proven
        about = (row.target, row.accuracy, row.claimed, proven) if first else ("", "", "", "")
        table.add_row(*(Text(cell) for cell in (*about, row.attack, row.auc, row.tpr)))
    out.print(table)
    for name, reason in reasons.items():
        out.print(Text(f"Nothing is proven of {name}: {reason}"))
    for target in result.targets:
        for warning in (target.guarantee or {}).get("warnings", ()):
            out.print(Text(f"Warning ({target.name}): {warning}", style="yellow"))
    for warning in result.warnings:
        out.print(Text(f"Note: {warning}"))


def print_model_audit(audit: ModelAudit) -> None:
    """The table, what was checked, how the attack was chosen, and the outcome of every threshold."""
    print_summary(audit.result)
    _print_limits(audit)
    for verdict in audit.verdicts:
        for smallest in verdict.detectable:
            out.print(Text(str(smallest)))
        if verdict.exposed is not None:
            out.print(Text(f"{verdict.name}: {verdict.exposed}"))
        _print_subgroups(verdict)
        if verdict.white_box is not None:
            out.print(Text(f"{verdict.name}: {verdict.white_box.verdict}"))
        for bound in verdict.epsilon:
            out.print(Text(f"{verdict.name}: {bound}"))
        for decision in verdict.decisions:
            out.print(Text(f"{verdict.name}: {decision.threshold}: {decision.outcome}. {decision.reason}"))
        for found in audit.reconstructions:
            if found.target == verdict.name:
                out.print(Text(f"{verdict.name}: {found}"))
        if verdict.outcome == "not judged":
            out.print(Text(f"{verdict.name}: for comparison; no threshold is decided for it"))
        if verdict.contradicted:
            out.print(Text(f"{verdict.name}: undecided: another attack is above, see the note", style="yellow"))
        if verdict.outcome == "void":
            out.print(Text(f"{verdict.name}: void: a check failed that the figures rest on", style="yellow"))


def _print_subgroups(verdict: TargetVerdict) -> None:
    if verdict.subgroups is not None and verdict.outcome != "void":
        out.print(Text(f"{verdict.name}: {verdict.subgroups}"))


def _print_limits(audit: ModelAudit) -> None:
    """Failed checks, attacks that were not made, and how the attack was chosen."""
    for guard in audit.guards:
        if guard.passed is not True:
            out.print(Text(f"Check failed ({guard.name}): {guard.statement}", style="yellow"))
    for row in audit.plan:
        if not row.ran:
            out.print(Text(f"Not made: {row.attack}: {row.reason}"))
    if audit.choice is not None:
        out.print(Text(str(audit.choice)))


def print_comparison(comparison: Comparison) -> None:
    """One column per model, and a sentence for every pair."""
    from privkernels.audit.summary import number_with_interval, percent_with_interval

    table = Table(title="Side by side (with 95 % intervals)", title_justify="left")
    table.add_column("")
    for row in comparison.rows:
        table.add_column(row.name, overflow="fold")
    attack = comparison.rows[0].attack
    lines: dict[str, list[str]] = {
        "test accuracy": [percent_with_interval(row.accuracy) for row in comparison.rows],
        "parameters": ["" if row.size is None else f"{row.size.parameters:,}" for row in comparison.rows],
        "not zero": ["" if row.size is None else f"{row.size.nonzero:,}" for row in comparison.rows],
        "bytes": ["" if row.size is None else f"{row.size.bytes:,}" for row in comparison.rows],
        "claimed": [row.claimed for row in comparison.rows],
        "proven": [row.proven for row in comparison.rows],
        f"AUC of {attack}": [number_with_interval(row.auc) for row in comparison.rows],
        "TPR at 1 % FPR": [percent_with_interval(row.tpr) for row in comparison.rows],
        "outcome": [row.outcome for row in comparison.rows],
    }
    for name, cells in lines.items():
        table.add_row(name, *(Text(cell) for cell in cells))
    out.print(table)
    for pair in comparison.pairs:
        out.print(Text(pair.sentence))
    out.print(Text(f"All of these sentences together hold with {comparison.confidence:.0%} confidence."))
    for verdict in comparison.audit.verdicts:
        _print_subgroups(verdict)
    _print_limits(comparison.audit)


def print_guarantee(guarantee: Guarantee) -> None:
    """Both numbers and the warnings, in words."""
    out.print(Text(guarantee.summary))
    for warning in guarantee.warnings:
        out.print(Text(f"Warning: {warning}", style="yellow"))
