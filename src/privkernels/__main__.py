"""``python -m privkernels``."""

from privkernels.cli import program

program()
