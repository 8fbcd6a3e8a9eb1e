"""Which attack of ours is put beside which of a peer, and the ways that lead from the one to the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from benchmarks.peers import attacks, formulas
from benchmarks.peers.games import View
from privkernels.attacks import (
    RMIA,
    Attack,
    LabelOnlyBoundary,
    LiRA,
    LossThreshold,
    ShadowAttack,
    ShadowModelAttack,
    Shadows,
    target_logits,
)
from privkernels.attacks.base import Array, log_softmax
from privkernels.attacks.shadow_model import _features

# RMIA's a where both are given one.
A = 0.3
# Shadow models that the attack models learn from; records of each kind, targets and iterations for the boundary.
LEARNT_FROM, FEW, FEW_TARGETS, HOPS = 8, 100, 3, 6

Way = Callable[[View], Array]


@dataclass(frozen=True)
class Comparison:
    """One attack, twice.

    Attributes:
        library: whose the second is.
        ours, theirs: what is run, in words, and its scores.
        explained: ways to compute it here that lead from ours to theirs.
        exact: whether the last of ``explained`` must rank as theirs does.
        views: the targets and records that it is run on, of all.
    """

    attack: str
    library: str
    ours: tuple[str, Way]
    theirs: tuple[str, Way]
    explained: tuple[tuple[str, Way], ...] = ()
    exact: bool = True
    views: Callable[[Sequence[View]], Sequence[View]] = field(default=lambda views: views)


def fitted(attack: Attack, shadows: Shadows) -> Way:
    """The scores of one of our attacks."""
    if isinstance(attack, ShadowAttack):
        attack.fit(shadows)
    return lambda view: attack.score(view.target, view.records)


def on_margins(formula: Callable[..., Array], *arguments: Any) -> Way:
    """A formula of phi, margins and trained."""
    return lambda view: formula(*view.scored, *arguments)


def privacyguard_comparisons(views: Sequence[View]) -> list[Comparison]:
    shadows = views[0].shadows

    def lira(deviation: str | None) -> Way:
        return lambda view: attacks.privacyguard_lira(*view.scored, view.member, deviation)

    def rmia(**settings: Any) -> Way:
        return lambda view: attacks.privacyguard_rmia(
            view.scored, view.margins(view.population), view.member, **settings
        )

    def ranked(count: int, a: float | None, among_population: bool) -> Way:
        """RMIA's ratio with the mean of the ``count`` largest, or the share of the population below it."""

        def scores(view: View) -> Array:
            phi, margins, trained = view.scored
            kept = np.ones_like(trained) if a is None else ~trained
            ratios = formulas.rmia_ratio(phi, margins, kept, count, a)
            if not among_population:
                return np.log(ratios)
            others = view.margins(view.population)
            everything = np.ones(others[1].shape, dtype=np.bool_)
            return formulas.share_below(ratios, formulas.rmia_ratio(*others, everything, count, a))

        return scores

    def tuned(right_labels: bool) -> float:
        """PrivacyGuard's choice of alpha, which looks at two shadow models and at no target."""
        two, pool = [0, 2], shadows.pool
        margins, population = shadows.margins(pool)[two], shadows.margins(views[0].population)[two]
        first, second = shadows.trained_on(pool)[two]
        return formulas.rmia_tuned_a(margins, population, second, first if right_labels else second)

    n = len(shadows)
    library = "PrivacyGuard"
    one_lira = ("one variance", fitted(LiRA(variance="pooled"), shadows))
    default = ("default (shrunken)", fitted(LiRA(), shadows))
    offline = ("tail", fitted(LiRA(mode="offline"), shadows))
    right_a, their_a = tuned(True), tuned(False)
    own_a = RMIA(mode="offline")
    chosen = (f"a chosen ({own_a.fit(shadows).a_})", fitted(own_a, shadows))
    rmia_online = fitted(RMIA(), shadows)
    rmia_offline = (f"a = {A}", fitted(RMIA(mode="offline", a=A), shadows))
    loss = ("float64", fitted(LossThreshold(), shadows))
    return [
        Comparison(
            "loss threshold",
            library,
            loss,
            ("LossAttack", lambda view: attacks.privacyguard_loss(view.target, view.records, view.member)),
            (("float32 loss", lambda view: formulas.float32_log_probability(view.target, view.records)),),
        ),
        Comparison(
            "LiRA online",
            library,
            ("variance per record", fitted(LiRA(variance="per-record"), shadows)),
            ("variance per record", lira("per-record")),
            (("deviations divided by n", on_margins(formulas.lira_online, "per-record")),),
        ),
        Comparison(
            "LiRA online",
            library,
            one_lira,
            ("global", lira("global")),
            (("deviation of the target's margins for both", on_margins(formulas.lira_online, "global")),),
        ),
        Comparison(
            "LiRA online",
            library,
            one_lira,
            ("mix", lira("mix")),
            (("mean of deviations, not of variances", on_margins(formulas.lira_online, "mix")),),
        ),
        Comparison("LiRA online", library, default, ("mix", lira("mix"))),
        Comparison(
            "LiRA offline",
            library,
            offline,
            ("shadows_out", lira(None)),
            (("density in place of the tail", on_margins(formulas.lira_offline)),),
        ),
        Comparison(
            "LiRA offline",
            library,
            ("IN imputed", fitted(LiRA(mode="imputed"), shadows)),
            ("shadows_out", lira(None)),
        ),
        Comparison(
            "RMIA online",
            library,
            ("all shadow models", rmia_online),
            ("default: half of them", rmia(online=True)),
            (
                (f"ratio to the {n // 2} largest", ranked(n // 2, None, False)),
                ("and the population's share below", ranked(n // 2, None, True)),
            ),
        ),
        Comparison(
            "RMIA online",
            library,
            ("all shadow models", rmia_online),
            ("num_reference_models: all", rmia(online=True, num_reference_models=n)),
            (
                ("ratio to all", ranked(n, None, False)),
                ("and the population's share below", ranked(n, None, True)),
            ),
        ),
        Comparison(
            "RMIA offline",
            library,
            rmia_offline,
            (f"alpha = {A}", rmia(alpha_coefficient=A)),
            (
                ("ratio to the OUT models", ranked(n // 2, A, False)),
                ("and the population's share below", ranked(n // 2, A, True)),
            ),
        ),
        Comparison(
            "RMIA offline",
            library,
            chosen,
            ("alpha tuned", rmia(enable_auto_tuning=True)),
            (
                (f"ratio with alpha tuned to the right labels ({right_a:.1f})", ranked(n // 2, right_a, False)),
                (f"with the alpha that it takes ({their_a:.1f})", ranked(n // 2, their_a, False)),
                ("and the population's share below", ranked(n // 2, their_a, True)),
            ),
        ),
    ]


def art_comparisons(views: Sequence[View], clip: tuple[float, float]) -> list[Comparison]:
    pool, seed = views[0].records, 0
    teachers = views[0].shadows.select(range(LEARNT_FROM))
    logits = np.stack(list(teachers.logits(pool))).astype(np.float32)

    def learnt(kind: str) -> Way:
        @functools.cache
        def attack() -> attacks.ArtShadowModels:
            return attacks.ArtShadowModels(kind, views[0].target, pool, logits, teachers.inside, seed)

        return lambda view: attack().score(target_logits(view.target, view.records).astype(np.float32))

    def network_on_our_features(view: View) -> Array:
        return sorted_network().score(sorted_features(target_logits(view.target, view.records)[None])[0])

    def sorted_features(logits: Array) -> Array:
        log_p = [log_softmax(one) for one in logits]
        return np.stack([_features(one, pool.y.numpy()) for one in log_p]).astype(np.float32)

    @functools.cache
    def sorted_network() -> attacks.ArtShadowModels:
        features = sorted_features(logits.astype(np.float64))
        return attacks.ArtShadowModels("nn", views[0].target, pool, features, teachers.inside, seed)

    def classifier(make: Callable[[], Any]) -> Way:
        score = functools.cache(
            lambda: formulas.classifier_on_logits(make, logits, teachers.inside, pool.y.numpy(), seed)
        )
        return lambda view: score()(target_logits(view.target, view.records))

    def ours(make: Callable[[int], Any] | None = None, pooled: bool = False) -> Way:
        settings = {} if make is None else {"attack_model": make}
        return fitted(ShadowModelAttack(**settings, min_class_records=10**9 if pooled else 20), teachers)  # type: ignore[arg-type]

    def right(view: View) -> Array:
        return (target_logits(view.target, view.records).argmax(axis=1) == view.records.y.numpy()).astype(np.float64)

    @functools.cache
    def boundary(view: View) -> tuple[Array, Array, float]:
        return attacks.art_boundary(view.target, view.records, clip, HOPS)

    def our_boundary(view: View) -> Array:
        return LabelOnlyBoundary(max_queries=int(boundary(view)[2]), clip=clip).score(view.target, view.records)

    few = functools.cache(lambda: [view.few(FEW) for view in views[:FEW_TARGETS]])
    library = "ART"
    default = ("default", ours())
    boosted = (
        ("ours, one attack model for all classes", ours(pooled=True)),
        ("and ART's boosted trees", ours(lambda _: GradientBoostingClassifier(random_state=seed), pooled=True)),
        ("and logits in class order beside the label", classifier(GradientBoostingClassifier)),
    )
    forest = (("logits in class order beside the label", classifier(RandomForestClassifier)),)
    rule_probabilities = Comparison(
        "label right",
        library,
        ("label right", right),
        (
            "RuleBased, probabilities",
            lambda view: attacks.art_rule(view.target, view.records, probabilities=True),
        ),
        (("one value for all records", lambda view: np.zeros(len(view.records))),),
    )
    return [
        Comparison("shadow models", library, default, ("gb", learnt("gb")), boosted),
        Comparison("shadow models", library, default, ("rf", learnt("rf")), forest),
        Comparison(
            "shadow models",
            library,
            default,
            ("nn", learnt("nn")),
            (("its network on our features", network_on_our_features),),
            exact=False,
        ),
        Comparison(
            "label right",
            library,
            ("label right", right),
            ("RuleBased", lambda view: attacks.art_rule(view.target, view.records)),
        ),
        Comparison(
            "label-only (boundary)",
            library,
            (f"{FEW} + {FEW} records", our_boundary),
            (f"{HOPS} iterations", lambda view: boundary(view)[0]),
            (
                (
                    "its points, bisected once more",
                    lambda view: formulas.onto_boundary(view.target, view.records, boundary(view)[1]),
                ),
            ),
            exact=False,
            views=lambda _: few(),
        ),
        *([rule_probabilities] if pool.n_classes == 2 else []),
    ]
