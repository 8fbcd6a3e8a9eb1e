"""The workflow's choices of records, and that the package's public names resolve."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import privkernels
from privkernels import workflow
from privkernels.attacks import LossThreshold
from privkernels.audit import ModelAudit, Threshold, all_attacks, make_canaries
from privkernels.data import DataSet, Records, load
from privkernels.errors import ConfigurationChangedError, InvalidArgumentError, TooFewRecordsError
from privkernels.publishing import DpPgSettings
from privkernels.randomness import Key
from privkernels.training import Subsets, TrainingConfig, load_training, train_members

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.1)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def members(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("workflow") / "members"
    return workflow.train(digits, "mlp", out, members=3, records=300, subset_fraction=0.5, config=QUICK)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(records):
    return {bytes(row.numpy().tobytes()) for row in records.x.flatten(1)}


def test_nobody_is_in_two_roles(digits, members):
    run = load_training(members)
    roles = workflow.audit_records(digits, run)
    key = workflow._recorded_key(run)
    pool = digits.train.subset(workflow.pool_indices(len(digits.train), 300, key))
    trained_on = rows(pool.subset(run.subsets.indices(0)))
    assert rows(roles.members) <= trained_on
    assert len(roles.members) == 150
    assert not rows(roles.attacker) & rows(pool)
    assert not rows(roles.nonmembers) & rows(pool)
    assert not rows(roles.nonmembers) & rows(roles.attacker)


def test_without_records_to_spare_the_attacker_gets_half_of_the_test_split(digits):
    roles = workflow.audit_records(digits, None)
    assert len(roles.attacker) == len(roles.nonmembers) == 300
    assert not rows(roles.nonmembers) & rows(roles.attacker)
    assert rows(roles.members) <= rows(digits.train)
    assert len(workflow.audit_records(digits, None, max_records=50).members) == 50


def test_an_audit_refuses_other_records(digits, members):
    run = load_training(members)
    other = Records(digits.train.x + 1, digits.train.y, 10, digits.train.name)
    with pytest.raises(ConfigurationChangedError):
        workflow.audit_records(DataSet("digits", other, digits.test), run)


class Asked(Exception):
    """Carries what audit_models was asked for, instead of its work."""


@pytest.fixture
def asked(monkeypatch, digits, members, tmp_path):
    """What an audit of a release asks of audit_models: positional arguments, and those by name."""
    workflow.publish(members, DpPgSettings(1.0, mode="paper"), tmp_path / "release")

    def stop(*arguments, **settings):
        raise Asked(arguments, settings)

    def ask(folder=members, **settings):
        monkeypatch.setattr(workflow, "audit_models", stop)
        with pytest.raises(Asked) as caught:
            workflow.audit_release(tmp_path / "release", folder, digits, **settings)
        return caught.value.args

    return ask


def test_an_audit_of_a_release_knows_what_an_auditor_does(asked, digits, members):
    (targets, attacks, inside, outside), settings = asked(max_records=50, thresholds=[Threshold(0.6)], budget=60.0)
    assert [target.judged for target in targets] == [False, True]
    assert targets[0].name == "unprotected member"
    assert [attack.name for attack in attacks] == [attack.name for attack in all_attacks(inside)]
    run = load_training(members)
    roles = workflow.audit_records(digits, run, max_records=50)
    assert (len(inside), len(outside), len(settings["public"])) == (50, 50, 100)
    assert rows(inside) == rows(roles.members)
    assert rows(settings["public"]) == rows(roles.attacker)
    assert settings["test"] is digits.test
    assert settings["config"] == run.config == QUICK
    assert settings["thresholds"] == [Threshold(0.6)]
    assert settings["budget"] == 60.0
    a, b = (settings["make_model"]().state_dict() for _ in range(2))
    assert not same(a, b), "every shadow model starts from parameters of its own"


def test_an_audit_of_a_release_goes_without_the_member_where_asked(asked):
    (targets, *_), settings = asked(unprotected=False, config=TrainingConfig(epochs=7))
    assert [target.judged for target in targets] == [True]
    assert settings["config"].epochs == 7


def test_an_audit_of_a_release_is_the_audit_of_models(digits, members, tmp_path):
    workflow.publish(members, DpPgSettings(1.0, mode="paper"), tmp_path / "release")
    canaries = make_canaries(digits.test, 50, "natural", Key.from_seed(1))
    canaries.save(tmp_path / "canaries.safetensors")
    found = workflow.audit_release(
        tmp_path / "release", members, digits, attacks=[LossThreshold()], max_records=100, n_shadows=8,
        thresholds=[Threshold(0.95)], canaries=tmp_path / "canaries.safetensors",
        report=tmp_path / "report.html", json_path=tmp_path / "audit.json",
    )  # fmt: skip
    assert ModelAudit.load(tmp_path / "audit.json") == found
    member, release = found.verdicts
    assert member.name == "unprotected member"
    assert (member.outcome, release.outcome, found.outcome) == ("not judged", "below", "below")
    assert found.choice is not None
    assert all(verdict.epsilon for verdict in found.verdicts)
    words = (tmp_path / "report.html").read_text()
    for part in ("Below the thresholds", "For comparison", "released value", "subsets"):
        assert part in words, part


def test_the_pool_is_a_choice_without_repetition():
    pool = workflow.pool_indices(1000, 100, Key.from_seed(0))
    assert len(set(pool.tolist())) == 100
    assert not torch.equal(pool, workflow.pool_indices(1000, 100, Key.from_seed(1)))
    with pytest.raises(TooFewRecordsError, match="asked for 2000"):
        workflow.pool_indices(1000, 2000, Key.from_seed(0))


def test_publishing_uses_the_recorded_overlap_and_initialisation(members):
    release = workflow.publish(members, DpPgSettings(1.0))
    implementation = release.guarantee.implementation
    assert implementation["overlap_s"] == load_training(members).subsets.overlap()
    assert "common initialisation" in implementation["range_source"]
    texts = [item.text for item in release.guarantee.assumptions if item.checked]
    assert any("one initialisation" in text for text in texts)


def test_a_run_continues_with_its_own_key_and_new_runs_have_new_ones(digits, members, tmp_path):
    first = load_file(members / "member-0001.safetensors")
    (members / "member-0001.safetensors").unlink()
    settings = {"members": 3, "records": 300, "subset_fraction": 0.5, "config": QUICK}
    workflow.train(digits, "mlp", members, **settings)
    assert same(load_file(members / "member-0001.safetensors"), first)
    other = workflow.train(digits, "mlp", tmp_path / "other", **settings)
    assert load_training(other).records_fingerprint != load_training(members).records_fingerprint
    assert not load_training(other).reproducible


def test_seeded_training_is_repeatable_and_says_that_it_can_be_guessed(digits, tmp_path):
    a, b = (
        workflow.train(digits, "mlp", tmp_path / name, members=2, records=100, config=QUICK, seed=5) for name in "ab"
    )
    assert same(load_file(a / "member-0001.safetensors"), load_file(b / "member-0001.safetensors"))
    texts = [item.text for item in workflow.publish(a, DpPgSettings(1.0)).guarantee.assumptions]
    assert any("guesses the seed" in text for text in texts)


def test_a_release_cannot_be_matched_to_its_records_by_trying_seeds(members):
    """The grid of a release reveals the initialisation; no small seed may lead from there to the records."""
    run = load_training(members)
    pool = workflow.pool_indices(1197, 300, workflow._recorded_key(run))
    assert not any(torch.equal(pool, workflow.pool_indices(1197, 300, Key.from_seed(seed))) for seed in range(1000))


def test_an_overlap_below_the_recorded_one_is_refused(members):
    assert load_training(members).subsets.overlap() == 3
    with pytest.raises(InvalidArgumentError, match="used in 3 of them"):
        workflow.publish(members, DpPgSettings(1.0), overlap=1)


def test_files_that_were_added_to_a_training_folder_are_no_members(members, tmp_path):
    folder = tmp_path / "members"
    shutil.copytree(members, folder)
    shutil.copy(folder / "member-0000.safetensors", folder / "member-9999.safetensors")
    assert workflow.publish(folder, DpPgSettings(1.0)).guarantee.implementation["members_M"] == 3


def test_what_the_library_did_not_see_is_not_marked_as_checked(digits, tmp_path):
    records = digits.train.subset(torch.arange(60))
    by_label = Subsets(torch.stack([records.y < 5, records.y >= 5]))

    def make():
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    train_members(records, make, tmp_path / "m", members=2, subsets=by_label, config=QUICK, key=Key.generate())
    texts = {
        item.text: item.checked for item in workflow.publish(tmp_path / "m", DpPgSettings(1.0)).guarantee.assumptions
    }
    assert [checked for text, checked in texts.items() if "initialisation" in text or "index sets" in text] == [
        None
    ] * 3


def test_unknown_method(members):
    with pytest.raises(InvalidArgumentError, match="dp-pg"):
        workflow.publish(members, DpPgSettings(1.0), method="magic")


@pytest.mark.parametrize("name", privkernels.__all__)
def test_public_names_resolve(name):
    assert getattr(privkernels, name) is not None


@pytest.mark.parametrize("name", ["nonsense", "demonstrations"])
def test_unknown_names_do_not(name):
    with pytest.raises(AttributeError, match=name):
        getattr(privkernels, name)


def test_a_public_function_is_not_hidden_by_a_module_of_its_name():
    """Importing a submodule sets it as an attribute of the package, over a function of the same name."""
    package = Path(privkernels.__file__).parent
    modules = {path.stem for path in package.iterdir()}
    assert not modules & {name for name in privkernels.__all__ if callable(getattr(privkernels, name))}
