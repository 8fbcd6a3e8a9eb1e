"""The demonstration: from scikit-learn's digits to an audited release, in one call."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from privkernels import _files, workflow
from privkernels.attacks import LossThreshold, ShadowModelAttack, train_shadows
from privkernels.audit import AuditResult, Target, audit, summary_rows, write_report
from privkernels.data import DataSet, load
from privkernels.errors import OutputExistsError, TooFewMembersError
from privkernels.privacy.accounting import check_epsilon
from privkernels.progress import Progress, silent
from privkernels.publishing import DpPgSettings, ParameterCollection, Release
from privkernels.publishing.card import model_card
from privkernels.publishing.release import CARD_FILE, GUARANTEE_FILE
from privkernels.training import TrainingConfig

MODEL = "mlp"
MEMBERS = 50
RECORDS = 300
# Two attacks and few shadow models: it shows the way in half a minute. A real audit is `privkernels audit`.
SHADOWS = 8
CONFIG = TrainingConfig(epochs=100, batch_size=32, learning_rate=0.1, momentum=0.9)


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration leaves.

    Attributes:
        folder: holds model.safetensors, guarantee.json, README.md and report.html.
        audit: figures of the unprotected member and of both releases.
        release: the model that was written: DP-PG as in the paper.
        seconds: wall time.
    """

    folder: Path
    audit: AuditResult
    release: Release
    seconds: float


def demo(
    out: workflow.PathLike = "privkernels-demo",
    *,
    epsilon: float = 1.0,
    members: int = MEMBERS,
    config: TrainingConfig = CONFIG,
    progress: Progress = silent,
) -> DemoResult:
    """Train members on digits, publish with DP-PG in both modes, attack, and report.

    The folder's model is the one published as in the paper, with ``proven: none`` and the reason in its
    guarantee. The model with the provable guarantee at the same epsilon is attacked beside it. The members
    are trained in a temporary folder and dropped.

    Args:
        out: replaced if it is an earlier demonstration, refused if it holds anything else.
        epsilon: the paper's epsilon_j, and the whole budget of the provable release for one training record.

    Raises:
        OutputExistsError: ``out`` holds something else.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / GUARANTEE_FILE).exists())):
        raise OutputExistsError(f"{out} exists and is no earlier demonstration: choose another folder with --out")
    # Before the work: everything that can be wrong with what was asked for.
    _files.check_output_folder(out, replace=True)
    check_epsilon(epsilon)
    if members < 2:
        raise TooFewMembersError(f"a density estimate needs at least 2 members, got {members}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "members"
        data = load("digits")
        workflow.train(
            data,
            MODEL,
            folder,
            members=members,
            records=RECORDS,
            subset_fraction=0.9,
            config=config,
            progress=progress,
        )
        releases = {
            mode: workflow.publish(folder, DpPgSettings(epsilon, mode=mode), progress=progress)
            for mode in ("paper", "proven")
        }
        result = _attack(folder, data, releases, config, progress)
        release = _titled(releases["paper"])
        with _files.atomic_folder(out, replace=True) as partial:
            release.write_into(partial)
            card = model_card(release.guarantee, release.description, card_rows(result, _name("paper")))
            _files.write_text(partial / CARD_FILE, card, public=True)
            collection = ParameterCollection.open(folder)
            panels = workflow.kde_panels(collection, release, None)
            write_report(result, partial / workflow.REPORT_FILE, panels=panels, how=workflow.release_facts(release))
    return DemoResult(out, result, release, time.perf_counter() - start)


def _attack(
    folder: Path,
    data: DataSet,
    releases: dict[str, Release],
    config: TrainingConfig,
    progress: Progress,
) -> AuditResult:
    run = workflow.training_run(folder)
    assert run is not None  # train() has just finished it
    records = workflow.audit_records(data, run)
    member = Target("unprotected member", run.load_member(0))
    targets = [member] + [
        workflow.release_target(release, run.build_model, _name(mode)) for mode, release in releases.items()
    ]
    shadows = train_shadows(run.build_model, records.attacker, config, SHADOWS, progress=progress)
    attacks = [LossThreshold(), ShadowModelAttack().fit(shadows)]
    return audit(targets, attacks, records.members, records.nonmembers, test=records.test, progress=progress)


def _name(mode: str) -> str:
    return f"DP-PG, {mode} mode"


def _titled(release: Release) -> Release:
    title = "Digits classifier published with DP-PG (demonstration)"
    return replace(release, description={**release.description, "title": title})


def card_rows(result: AuditResult, target: str) -> list[dict[str, str]]:
    """The figures of one target as rows of a model card. An unprotected member's stay in the report."""
    return [
        {"target": f"{row.target} ({row.attack})", "accuracy": row.accuracy, "auc": row.auc, "tpr": row.tpr}
        for row in summary_rows(result)
        if row.target == target
    ]
