"""The demonstration, small: its files, its table, and what it refuses to overwrite."""

import pytest

from privkernels.demonstration import demo
from privkernels.errors import InvalidBudgetError, OutputExistsError, TooFewMembersError
from privkernels.publishing import Release
from privkernels.training import TrainingConfig


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    config = TrainingConfig(epochs=25, batch_size=32, learning_rate=0.1)
    return demo(tmp_path_factory.mktemp("demo") / "out", members=6, config=config)


def test_leaves_four_files(result):
    names = sorted(path.name for path in result.folder.iterdir())
    assert names == ["README.md", "guarantee.json", "model.safetensors", "report.html"]
    assert Release.load(result.folder).guarantee == result.release.guarantee


def test_shows_the_three_numbers_for_each_model(result):
    unprotected, paper, proven = result.audit.targets
    assert unprotected.guarantee is None
    assert paper.guarantee["claimed"]["epsilon"] == pytest.approx(1)
    assert paper.guarantee["proven"] is None
    assert proven.guarantee["proven"]["epsilon"] <= 1
    assert unprotected.test_accuracy > 0.8
    for target in result.audit.targets:
        assert {attack.attack for attack in target.attacks} == {"loss threshold", "shadow models"}
    card = (result.folder / "README.md").read_text()
    assert "claimed by the paper | 1" in card
    assert "DP-PG, paper mode (loss threshold)" in card
    assert "not covered by any proof" in card
    assert "unprotected" not in card, "figures of the private members do not go into what is published"


@pytest.mark.parametrize("wrong", [{"epsilon": 0}, {"members": 1}])
def test_what_was_asked_for_is_checked_before_the_work(tmp_path, wrong):
    def work(*_: object) -> None:
        raise AssertionError("training began")

    with pytest.raises((InvalidBudgetError, TooFewMembersError)):
        demo(tmp_path / "out", progress=work, **wrong)


def test_can_be_run_again_but_replaces_nothing_else(result, tmp_path):
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(OutputExistsError, match="no earlier demonstration"):
        demo(tmp_path, members=2)
    assert (tmp_path / "thesis.txt").exists()
