"""Commands as a user types them, and what they print."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass

from typer.testing import CliRunner

from privkernels.cli.app import app


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments, cwd=None, **environment):
    """A command in this process, or in one of its own where the environment must differ from the start."""
    words = list(map(str, arguments))
    if environment:
        done = subprocess.run(
            [sys.executable, "-m", "privkernels", *words],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", **environment}, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)
    with contextlib.chdir(cwd or "."):
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def fails(*arguments, code=2, cwd=None, **environment):
    """Run a command that must fail; return the one line that it says."""
    done = run(*arguments, cwd=cwd, **environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


TRAIN = (
    "train", "--data", "digits", "--model", "mlp", "--members", 4, "--records", 200, "--epochs", 30,
    "--learning-rate", 0.1, "--out",
)  # fmt: skip
