"""The command line. Each command is one or two calls of :mod:`privkernels.workflow`."""

from __future__ import annotations


def program() -> None:
    """Entry point of the installed program."""
    # Imported here, so that `privkernels --help` of a broken installation can still say what is wrong.
    from privkernels.cli.app import app

    app(prog_name="privkernels")
