"""privkernels ledger: what was spent on which data set, and budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from privkernels.cli.console import one_line_errors, out

app = typer.Typer(help="What was drawn from which data set, and what all of it cost together.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="Ledger file, as given to 'publish --ledger'.")]


@app.command()
@one_line_errors
def show(
    file: File,
    delta: Annotated[float, typer.Option(help="Of the totals.")] = 1e-5,
    operations: Annotated[bool, typer.Option("--operations", help="List every operation too.")] = False,
) -> None:
    """Print the total of every data set and unit, beside its budget."""
    from privkernels.privacy import Unit
    from privkernels.privacy.guarantee import round_up
    from privkernels.privacy.ledger import Ledger

    ledger = Ledger(file, create=False)
    entries = ledger.entries
    table = Table(title=f"Spent, at delta = {delta:g}, for replace-one neighbours", title_justify="left")
    for column in ("data set", "unit", "operations", "epsilon", "delta", "budget", "by"):
        table.add_column(column, overflow="fold")
    for data in ledger.data_sets:
        own = [entry for entry in entries if entry.data == data]
        bounded = [entry for entry in own if entry.unbounded_because is None]
        units = [unit for unit in Unit if any(unit in entry.events for entry in own) or ledger.budget(data, unit)]
        for unit in units or [Unit.EXAMPLE]:
            total, budget = ledger.total(data, unit, delta), ledger.budget(data, unit)
            shown = f"{round_up(total.epsilon):.4g}" if total.epsilon < float("inf") else "no bound"
            limit = "none" if budget is None else f"{budget.epsilon:g}, {budget.delta:g}"
            spent = f"{round_up(total.delta):.4g}" if total.epsilon < float("inf") else ""
            table.add_row(*map(Text, (data, str(unit), str(len(own)), shown, spent, limit, total.accountant)))
        if len(bounded) < len(own):
            out.print(Text(f"{data}: {len(own) - len(bounded)} operations have no bound at all.", style="yellow"))
    out.print(table)
    if operations:
        for entry in entries:
            out.print(Text(f"{entry.when} {entry.data} {entry.label} {entry.note or entry.unbounded_because or ''}"))


@app.command()
@one_line_errors
def budget(
    file: File,
    data: Annotated[str, typer.Option(help="Name of the data set.")],
    epsilon: Annotated[float, typer.Option(help="The most that everything together may cost.")],
    delta: Annotated[float, typer.Option()] = 1e-5,
    unit: Annotated[str, typer.Option(help="Whose epsilon it is, for example example or member.")] = "example",
    change: Annotated[bool, typer.Option("--change", help="Replace the budget that is there.")] = False,
) -> None:
    """Set what a data set may cost; a release that would exceed it is refused before it is drawn."""
    from privkernels.errors import UnknownNameError
    from privkernels.privacy import Unit
    from privkernels.privacy.ledger import Ledger

    if unit not in tuple(Unit):
        raise UnknownNameError(f"there is no unit {unit!r}: use one of {', '.join(Unit)}")
    Ledger(file).set_budget(data, unit, epsilon, delta, change=change)
    out.print(Text(f"{data}: epsilon {epsilon:g}, delta {delta:g} per {unit}, in {file}."))
