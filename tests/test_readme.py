"""The README: its links lead somewhere, and its Python calls exist."""

import inspect
import re
from pathlib import Path

import pytest

import privkernels

ROOT = Path(__file__).parent.parent
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
CALLS = sorted(set(re.findall(r"\bpk\.(\w+)\(", (ROOT / "README.md").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    if not (ROOT / "benchmarks" / "results").is_dir():
        pytest.skip("a source distribution has no results and no pictures")
    assert (ROOT / link).exists()


@pytest.mark.parametrize("name", CALLS)
def test_calls_exist(name: str) -> None:
    assert callable(getattr(privkernels, name))
    assert inspect.getdoc(getattr(privkernels, name))


def test_the_readme_shows_calls_and_links() -> None:
    assert {"train", "publish", "audit_release", "demo"} <= set(CALLS)
    assert "docs/images/report.png" in LINKS
