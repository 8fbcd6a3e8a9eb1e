"""The benchmark of attacks beside other libraries': its formulas, its figures, and each peer where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.tree import DecisionTreeClassifier

from benchmarks import attack_peers
from benchmarks.peers import attacks, formulas, games
from benchmarks.peers.comparisons import Comparison
from benchmarks.peers.games import View
from privkernels.attacks import RMIA, LiRA, LossThreshold

PEERS = {"PrivacyGuard": "privacy_guard", "ART": "art"}


@pytest.fixture(scope="module")
def views() -> list[View]:
    """Two targets and 16 shadow models that overfit 100 records."""
    return games.play(games.diabetes(), 200, 60, 2, 16)


def same_order(one: Any, other: Any) -> bool:
    return bool((rankdata(one) == rankdata(other)).all())


def test_a_target_is_no_shadow_and_neither_saw_the_population(views: list[View]) -> None:
    for view in views:
        assert len(view.shadows) == 16
        assert view.member.sum() == 100
        assert not view.shadows.trained_on(view.population).any()
        assert not any((inside == view.member).all() for inside in view.shadows.inside)
        # The complement of a target would tell of every record whether it is a member.
        assert not any((inside != view.member).all() for inside in view.shadows.inside)
    few = views[0].few(3)
    assert few.member.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("deviation", ["per-record", "global", "mix"])
def test_lira_online_is_ours_but_for_the_deviation(views: list[View], deviation: str) -> None:
    view = views[0]
    variance = "per-record" if deviation == "per-record" else "pooled"
    ours = LiRA(variance=variance).fit(view.shadows).score(view.target, view.records)
    theirs = formulas.lira_online(*view.scored, deviation)
    assert np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1] > 0.9
    assert not same_order(ours, theirs)


def test_one_deviation_for_in_and_out_ranks_alike_whatever_it_is(views: list[View]) -> None:
    phi, margins, trained = views[0].scored
    mean_in, mean_out = (formulas.lira_moments(margins, which)[0] for which in (trained, ~trained))
    distance = (mean_in - mean_out) * (phi - (mean_in + mean_out) / 2)
    assert same_order(
        formulas.lira_online(phi, margins, trained, "global").round(9), (distance / phi.var(ddof=1)).round(9)
    )


def test_the_offline_density_counts_far_below_like_far_above() -> None:
    margins, trained = np.array([[-1.0], [1.0], [-1.0], [1.0]]), np.zeros((4, 1), dtype=np.bool_)
    below, above, near = (formulas.lira_offline(np.array([phi]), margins, trained)[0] for phi in (-9.0, 9.0, 0.5))
    assert below == pytest.approx(above)
    assert below > near


def test_rmia_of_all_models_is_ours_and_the_population_only_ties(views: list[View]) -> None:
    view = views[0]
    phi, margins, trained = view.scored
    ours = RMIA().fit(view.shadows).score(view.target, view.records)
    ratios = formulas.rmia_ratio(phi, margins, np.ones_like(trained), len(margins), None)
    np.testing.assert_allclose(np.log(ratios), ours, atol=1e-9)
    offline = RMIA(mode="offline", a=0.3).fit(view.shadows).score(view.target, view.records)
    theirs = formulas.rmia_ratio(phi, margins, ~trained, len(margins) // 2, 0.3)
    np.testing.assert_allclose(np.log(theirs), offline, atol=1e-9)
    shares = formulas.share_below(ratios, np.quantile(ratios, [0.2, 0.5, 0.8]))
    assert len(np.unique(shares)) == 4
    assert (np.diff(shares[np.argsort(ratios)]) >= 0).all()
    # The largest half: mostly the models that were trained on the record.
    half = formulas.rmia_ratio(phi, margins, np.ones_like(trained), len(margins) // 2, None)
    assert (half <= ratios).all()


def test_the_tuned_a_follows_the_labels_it_is_given() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 400)) < 0.5
    base = 2 * rng.normal(size=400)
    margins = np.stack([base + 2 * first, base + 2 * second])
    population = 2 * rng.normal(size=(2, 100))
    assert formulas.rmia_tuned_a(margins, population, second, first) == pytest.approx(0.8)
    assert formulas.rmia_tuned_a(margins, population, second, second) == 0.0


def test_float32_ties_what_float64_keeps_apart() -> None:
    logits = torch.tensor([[18.0, 0.0], [20.0, 0.0], [1.0, 0.0]])
    view = SimpleNamespace(x=logits, y=torch.zeros(3, dtype=torch.int64))
    ties = formulas.float32_log_probability(torch.nn.Identity(), view)  # type: ignore[arg-type]
    assert ties[0] == ties[1] == 0.0
    assert ties[2] < 0.0


def test_a_classifier_on_logits_finds_what_tells_members_apart() -> None:
    rng = np.random.default_rng(0)
    inside, labels = rng.random((3, 50)) < 0.5, np.repeat([0, 1], 25)
    logits = rng.normal(size=(3, 50, 2)) + 10 * inside[..., None]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    score = formulas.classifier_on_logits(DecisionTreeClassifier, logits, inside, labels, seed=0)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert ((score(logits[1]) > 0.5) == inside[1]).all()


def test_points_are_moved_onto_the_boundary() -> None:
    records = attack_peers.diabetes().subset(range(20))

    def plane(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros(len(x)), x[:, 0] - 5.0], dim=1)

    records = type(records)(records.x, torch.zeros(20, dtype=torch.int64), 2, "one side")
    beyond = records.x.clone()
    beyond[:, 0] = 50.0
    found = formulas.onto_boundary(plane, records, beyond.numpy())  # type: ignore[arg-type]
    np.testing.assert_allclose(found, 5.0 - records.x[:, 0].numpy(), atol=1e-4)
    wrong = type(records)(records.x, torch.ones(20, dtype=torch.int64), 2, "other side")
    assert (formulas.onto_boundary(plane, wrong, beyond.numpy()) == 0).all()  # type: ignore[arg-type]


def comparison(theirs: Callable[[View], Any], explained: Callable[[View], Any] | None = None) -> Comparison:
    loss = LossThreshold()

    def ours(view: View) -> Any:
        return loss.score(view.target, view.records)

    ways = () if explained is None else (("explained", explained),)
    return Comparison("loss", "a peer", ("ours", ours), ("theirs", theirs), ways)


def test_a_row_says_equal_or_by_how_much(views: list[View]) -> None:
    loss = LossThreshold()
    twice = attack_peers.compare(comparison(lambda view: 2 * loss.score(view.target, view.records)), views)
    assert twice["apart"] == twice["difference"]["value"] == 0.0
    assert twice["ours"]["tpr"] is None, "100 non-members are too few"
    assert attack_peers.line({"data": "d", **twice}).endswith("| equal |")
    constant = attack_peers.compare(comparison(lambda view: np.zeros(len(view.records))), views)
    assert constant["theirs"]["auc"] == 0.5
    assert constant["theirs"]["tied"] == 1.0
    difference = constant["difference"]
    assert difference["value"] == pytest.approx(constant["ours"]["auc"] - 0.5)
    assert difference["low"] < difference["value"] < difference["high"]


def test_a_peer_that_is_not_explained_stops_the_benchmark(views: list[View]) -> None:
    def zeros(view: View) -> Any:
        return np.zeros(len(view.records))

    attack_peers.compare(comparison(zeros, zeros), views)
    with pytest.raises(AssertionError, match="not explained"):
        attack_peers.compare(comparison(zeros, lambda view: view.records.x[:, 0].double().numpy()), views)


def test_guesses_of_the_attribute_are_counted(views: list[View]) -> None:
    rows = attack_peers.attribute_rows(views, with_art=False)
    assert [row["what"] for row in rows] == ["imputation, no model", "ours, conditional"]
    for row in rows:
        assert row["n_members"] == row["n_nonmembers"] == 200
        assert 0 < row["members"] <= 200
    assert rows[0]["p_of_imputation"] == [1.0, 1.0]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(attack_peers.importlib.util, "find_spec", lambda name: None)
    assert attack_peers.installed() == {}
    said = capsys.readouterr().out
    assert all(f"{name} is not installed" in said for name in PEERS)


@pytest.mark.filterwarnings("ignore")
def test_privacyguard_computes_these_formulas(views: list[View]) -> None:
    pytest.importorskip("privacy_guard.attacks.lira_attack")
    view = views[1]
    for deviation in ("per-record", "global", "mix"):
        found = attacks.privacyguard_lira(*view.scored, view.member, deviation)
        np.testing.assert_allclose(found, formulas.lira_online(*view.scored, deviation))
    found = attacks.privacyguard_lira(*view.scored, view.member, None)
    np.testing.assert_allclose(found, formulas.lira_offline(*view.scored))
    loss = attacks.privacyguard_loss(view.target, view.records, view.member)
    np.testing.assert_allclose(loss, formulas.float32_log_probability(view.target, view.records), atol=1e-6)
    phi, margins, trained = view.scored
    others, everything = view.margins(view.population), np.ones((16, len(view.population)), dtype=np.bool_)
    for a in (None, 0.3):
        settings = {"online": True} if a is None else {"alpha_coefficient": a}
        found = attacks.privacyguard_rmia(view.scored, others, view.member, **settings)
        kept = np.ones_like(trained) if a is None else ~trained
        ratios = formulas.rmia_ratio(phi, margins, kept, 8, a)
        np.testing.assert_allclose(
            found, formulas.share_below(ratios, formulas.rmia_ratio(*others, everything, 8, a)), atol=1e-12
        )


@pytest.mark.filterwarnings("ignore")
def test_art_computes_these_formulas(views: list[View]) -> None:
    pytest.importorskip("art.attacks.inference.membership_inference")
    view = views[0]
    right = view.target(view.records.x).argmax(dim=1) == view.records.y
    assert (attacks.art_rule(view.target, view.records) == right.numpy()).all()
    assert len(set(attacks.art_rule(view.target, view.records, probabilities=True))) == 1
    few = view.few(4)
    distances, points, asked = attacks.art_boundary(few.target, few.records, (-5.0, 5.0), max_iter=2)
    assert points.shape == few.records.x.shape
    assert asked > 100
    nearer = formulas.onto_boundary(few.target, few.records, points)
    assert (nearer <= distances + 1e-4).all()
