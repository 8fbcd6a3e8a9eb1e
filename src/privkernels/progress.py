"""Progress of long work, as a callback that any caller can give."""

from __future__ import annotations

from collections.abc import Callable

# Called as progress(done, total, what): `what` names the work, `done` counts up to `total`.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, what: str) -> None:
    """Show nothing."""
