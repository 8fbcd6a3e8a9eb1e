"""Shadow models."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from privkernels.attacks import RMIA, LiRA, Shadows, train_shadows
from privkernels.attacks.base import target_logits
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.models import build
from privkernels.training import TrainingConfig
from tests.support.membership import Game

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.1)


@pytest.fixture(scope="module")
def six(game: Game) -> Shadows:
    return train_shadows(game.make_model, game.attacker, QUICK, 6, seed=3)


def weights(shadows: Shadows, shadow: int) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in shadows.model(shadow).state_dict().values()])


def test_pairs_split_the_records_in_complementary_halves(game: Game, six: Shadows) -> None:
    n = len(game.attacker)
    assert six.inside.shape == (6, n)
    assert (six.inside[0::2] ^ six.inside[1::2]).all()
    assert set(six.inside.sum(axis=1).tolist()) == {n // 2, n - n // 2}
    assert (six.inside.sum(axis=0) == 3).all()
    assert not (six.inside[0] == six.inside[2]).all()


def test_an_odd_number_of_shadows_is_allowed(game: Game) -> None:
    shadows = train_shadows(game.make_model, game.attacker, QUICK, 3)
    assert len(shadows) == 3
    assert shadows.fidelity.n_models == 3


def test_every_shadow_has_an_initialisation_of_its_own(game: Game) -> None:
    still = TrainingConfig(epochs=1, batch_size=1000, learning_rate=1e-30)
    shadows = train_shadows(game.make_model, game.attacker, still, 2)
    assert not torch.equal(weights(shadows, 0), weights(shadows, 1))


def test_fidelity_is_that_of_the_models_on_their_own_halves(game: Game, shadows: Shadows) -> None:
    log_probabilities = shadows.log_probabilities(game.attacker)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=2), 1.0, rtol=1e-12)
    right = log_probabilities.argmax(axis=2) == game.attacker.y.numpy()
    assert right[shadows.inside].mean() > right[~shadows.inside].mean() + 0.1
    assert shadows.fidelity.train_accuracy == right[shadows.inside].mean()
    assert shadows.fidelity.test_accuracy == right[~shadows.inside].mean()
    losses = -log_probabilities[:, np.arange(len(game.attacker)), game.attacker.y.numpy()]
    assert math.isclose(shadows.fidelity.train_loss, losses[shadows.inside].mean(), rel_tol=1e-9)
    assert math.isclose(shadows.fidelity.test_loss, losses[~shadows.inside].mean(), rel_tol=1e-9)


def test_the_seed_decides_everything_and_global_generators_stay_as_they_are(game: Game, six: Shadows) -> None:
    before = torch.get_rng_state()
    again, other = (train_shadows(game.make_model, game.attacker, QUICK, 6, seed=seed) for seed in (3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(six, 5), weights(again, 5))
    assert not (six.inside == other.inside).all()


def test_a_record_is_found_by_its_content(game: Game, six: Shadows) -> None:
    rows = torch.tensor([7, 3, 250])
    some = game.attacker.subset(rows)
    np.testing.assert_array_equal(six.trained_on(some), six.inside[:, rows.numpy()])
    # The same picture with another label is another record, and so is one from elsewhere.
    relabelled = Records(some.x, (some.y + 1) % 10, 10, "relabelled")
    assert not six.trained_on(relabelled).any()
    assert not six.trained_on(game.members.subset(range(20))).any()


def test_equal_records_are_in_one_half_together(game: Game) -> None:
    # Apart, a record of which both shadows of each pair know a copy left LiRA and RMIA without a model that does not.
    once = game.attacker.subset(range(40))
    repeated = game.attacker.subset([*range(40), *range(40), *[0] * 9])
    shadows = train_shadows(game.make_model, repeated, QUICK, 4)
    np.testing.assert_array_equal(shadows.inside[:, :40], shadows.inside[:, 40:80])
    assert (shadows.inside[:, 80:] == shadows.inside[:, :1]).all()
    np.testing.assert_array_equal(shadows.trained_on(repeated), shadows.inside)
    np.testing.assert_array_equal(shadows.trained_on(once), shadows.inside[:, :40])
    assert (shadows.inside.sum(axis=0) == 2).all()
    # As near to the half of 89 as the eleven copies of one record allow.
    assert np.abs(shadows.inside.sum(axis=1) - 44.5).max() <= 6
    for mode in ("online", "offline"):
        assert np.isfinite(LiRA(mode=mode).fit(shadows).score(game.target, repeated)).all()
        assert np.isfinite(RMIA(mode=mode).fit(shadows).score(game.target, repeated)).all()


def test_a_pool_of_one_record_is_refused(game: Game) -> None:
    with pytest.raises(InvalidArgumentError, match="all equal"):
        train_shadows(game.make_model, game.attacker.subset([0] * 30), QUICK, 4)


def test_margins_are_the_log_odds_of_the_true_class(game: Game, six: Shadows) -> None:
    some = game.members.subset(range(30))
    margins = six.margins(some)
    for shadow in (0, 5):
        p = torch.softmax(torch.from_numpy(target_logits(six.model(shadow), some)), 1)
        p = p[torch.arange(30), some.y]
        np.testing.assert_allclose(margins[shadow], torch.log(p / (1 - p)), rtol=1e-9)
    assert six.margins(some) is margins, "kept"


def test_a_query_changes_the_records_and_is_kept_apart(game: Game, six: Shadows) -> None:
    def mirrored(x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1)

    some = game.members.subset(range(30))
    seen = Records(some.x.flip(-1), some.y, 10, "mirrored")
    np.testing.assert_array_equal(six.margins(some, mirrored), six.margins(seen))
    assert not np.array_equal(six.margins(some, mirrored), six.margins(some))


def test_leaving_out_a_shadow_leaves_out_its_complement(game: Game, six: Shadows) -> None:
    others = six.without_pair_of(3)
    assert others.pairs == (0, 0, 2, 2)
    np.testing.assert_array_equal(others.inside, six.inside[[0, 1, 4, 5]])
    assert torch.equal(weights(others, 2), weights(six, 4))
    some = game.members.subset(range(30))
    np.testing.assert_array_equal(others.margins(some), six.margins(some)[[0, 1, 4, 5]])
    with pytest.raises(InvalidArgumentError, match="at least one"):
        six.select([])


def test_files_go_with_the_last_shadows_that_read_them(game: Game) -> None:
    shadows = train_shadows(game.make_model, game.attacker, QUICK, 2)
    path, some = shadows.paths[1], shadows.select([1])
    del shadows
    gc.collect()
    assert some.model(0) is not None
    del some
    gc.collect()
    assert not path.exists()


def test_the_cache_is_found_again_and_more_shadows_continue_it(
    game: Game, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privkernels.attacks.shadows.GROUP", 2)
    first = train_shadows(game.make_model, game.attacker, QUICK, 2, cache=tmp_path)
    written = first.paths[0].stat().st_mtime_ns
    more = train_shadows(game.make_model, game.attacker, QUICK, 4, cache=tmp_path)
    assert more.paths[:2] == first.paths
    assert more.paths[0].stat().st_mtime_ns == written
    np.testing.assert_array_equal(more.inside[:2], first.inside)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_training_continues(game: Game, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privkernels.attacks.shadows.GROUP", 2)

    def interrupt(done: int, total: int, what: str) -> None:
        if done > 2 * QUICK.epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_shadows(game.make_model, game.attacker, QUICK, 4, cache=tmp_path, progress=interrupt)
    kept = sorted(tmp_path.rglob("member-*.safetensors"))
    assert len(kept) == 2
    written = [path.stat().st_mtime_ns for path in kept]
    shadows = train_shadows(game.make_model, game.attacker, QUICK, 4, cache=tmp_path)
    assert [path.stat().st_mtime_ns for path in kept] == written
    whole = train_shadows(game.make_model, game.attacker, QUICK, 4)
    assert torch.equal(weights(shadows, 3), weights(whole, 3))


@pytest.mark.parametrize("change", ["records", "config", "seed", "architecture"])
def test_the_cache_keeps_other_shadows_apart(game: Game, tmp_path: Path, change: str) -> None:
    train_shadows(game.make_model, game.attacker, QUICK, 2, cache=tmp_path)
    records = game.attacker.subset(range(100)) if change == "records" else game.attacker
    config = TrainingConfig(epochs=1, batch_size=32, learning_rate=0.1) if change == "config" else QUICK

    def smooth() -> nn.Module:
        model = build("mlp-32", input_shape=(1, 8, 8), n_classes=10)
        return nn.Sequential(model, nn.Identity())

    make = smooth if change == "architecture" else game.make_model
    train_shadows(make, records, config, 2, cache=tmp_path, seed=int(change == "seed"))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_network_that_cannot_be_stacked_is_trained_in_processes(game: Game) -> None:
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))

    shadows = train_shadows(normalised, game.attacker, QUICK, 2, workers=1)
    assert shadows.fidelity.train_accuracy > 0.2


def test_progress_is_reported(game: Game) -> None:
    seen: list[tuple[int, int, str]] = []
    train_shadows(game.make_model, game.attacker, QUICK, 2, progress=lambda *step: seen.append(step))
    assert seen
    assert seen[-1][0] == seen[-1][1]


def test_too_few_records_and_no_shadow_are_refused(game: Game) -> None:
    with pytest.raises(TooFewRecordsError, match="at least 20"):
        train_shadows(game.make_model, game.attacker.subset(range(19)), QUICK, 2)
    with pytest.raises(InvalidArgumentError, match="n_shadows=0"):
        train_shadows(game.make_model, game.attacker, QUICK, 0)
