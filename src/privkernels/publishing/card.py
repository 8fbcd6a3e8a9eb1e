"""The model card (README.md) of a release, in the form that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from privkernels.privacy.guarantee import Guarantee, round_up

_TEMPLATE = """---
library_name: pytorch
tags:
- privkernels
- privacy
---

# {title}

{summary}

## Privacy: the numbers side by side

| | epsilon | delta | for |
| --- | --- | --- | --- |
| claimed by the paper | {claimed} | {paper} |
| proven | {proven} | {unit} |
{measured}
{warnings}

{proof}
## Use

```python
from safetensors.torch import load_file

model.load_state_dict(load_file("model.safetensors"))
```

The architecture is `{model}`.

## How it was made

```json
{description}
```

`guarantee.json` has the same in full; it is also in the metadata of `model.safetensors`. Made with privkernels.
"""


def model_card(
    guarantee: Guarantee, description: Mapping[str, Any], measured: Sequence[Mapping[str, str]] | None = None
) -> str:
    """The card as Markdown.

    Args:
        measured: rows of an audit of this release with keys "target", "accuracy", "auc", "tpr"; adds the third
            number. They are computed on private records without noise: publish them only if that is acceptable.
    """
    proven = guarantee.proven
    claimed = guarantee.claimed
    return _TEMPLATE.format(
        title=_plain(description.get("title", "Model published with privkernels")),
        summary=_plain(guarantee.summary),
        claimed=f"{round_up(claimed.epsilon):.4g} | {round_up(claimed.delta):.4g}" if claimed else "none | none",
        paper=_plain(f"{claimed.paper}, {claimed.equation}") if claimed else "",
        proven=f"{round_up(proven.epsilon):.4g} | {round_up(proven.delta):.4g}" if proven else "none | none",
        unit=_plain(f"one {guarantee.unit}" if proven else str(guarantee.not_proven_because)),
        measured=_measured(measured),
        warnings="\n".join(f"> **Warning.** {_plain(text)}\n" for text in guarantee.warnings),
        proof=_proof(guarantee),
        model=_plain(str(description.get("model") or "the members' own")).replace("`", ""),
        # Indented JSON inside a fence; a fence cannot be closed from inside because JSON escapes newlines.
        description=json.dumps(dict(description), indent=2, sort_keys=True).replace("<", "\\u003c"),
    )


def _proof(guarantee: Guarantee) -> str:
    """What is compared and assumed; nothing where nothing is proven."""
    if guarantee.proven is None:
        return ""
    items = [
        f"- [{'x' if item.checked else ' '}] {_plain(item.text)}"
        + ("" if item.checked else " (not checked by the library)")
        for item in guarantee.assumptions
    ]
    lines = [f"The proof compares {_plain(guarantee.neighbouring)}. It needs:", "", *items]
    return "\n".join(lines) + "\n"


def _measured(rows: Sequence[Mapping[str, str]] | None) -> str:
    if not rows:
        return "\nNo attack was run on this release when the card was written.\n"
    lines = [
        "",
        "Measured by membership inference (95 % confidence; a low figure shows only that these attacks failed). These "
        "figures were computed on the private records and are not covered by any proof above:",
        "",
        "| model | test accuracy | attack AUC | TPR at 1 % FPR |",
        "| --- | --- | --- | --- |",
    ]
    keys = ("target", "accuracy", "auc", "tpr")
    lines += ["| " + " | ".join(_plain(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text from a file as one line that neither Markdown tables nor HTML take for markup."""
    line = " ".join(str(text).split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
