"""privkernels account, as a user types it."""

import json

import pytest

from tests.support.commands import fails, run


def answer(*arguments):
    done = run("account", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_examples_of_the_manual():
    done = run("account", "gaussian", "--noise-std", 1, "--sensitivity", 0.7071, "--delta", 1e-4)
    assert done.returncode == 0, done.stderr
    for words in ("claimed", "proven", "DP-A", "zCDP-A", "ε = 2.53", "Solved: epsilon = 2.5325"):
        assert words in done.stdout, words
    done = run("account", "dp-pg", "--epsilon", 0.01, "--parameters", 1199882, "--members", 50, "--overlap", 50)
    assert done.returncode == 0, done.stderr
    for words in ("one parameter", "one member", "one example, in 50 members", "ε = 0.01 (Corollary 1)", "39."):
        assert words in done.stdout, words


def test_gaussian_solves_for_each_number():
    base = {"noise-std": 2.0, "sensitivity": 1.0, "epsilon": 1.9286, "delta": 1e-5}
    base["epsilon"] = answer("gaussian", "--noise-std", 2, "--sensitivity", 1, "--delta", 1e-5)["inputs"]["epsilon"]
    for unknown in base:
        given = [word for name, value in base.items() if name != unknown for word in (f"--{name}", value)]
        found = answer("gaussian", *given)
        assert found["solved"] == unknown.replace("-", "_")
        assert found["inputs"][unknown.replace("-", "_")] == pytest.approx(base[unknown], rel=1e-6)


def test_releases_add_up_as_one_of_the_root_of_the_number():
    four = answer("gaussian", "--noise-std", 2, "--sensitivity", 1, "--delta", 1e-5, "--releases", 4)
    one = answer("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5)
    assert four["inputs"]["epsilon"] == pytest.approx(one["inputs"]["epsilon"])


@pytest.mark.parametrize("unknown", ["epsilon", "total", "parameters"])
def test_dp_pg_solves_for_each_number(unknown):
    given = {"epsilon": 0.01, "parameters": 10000}
    total = answer("dp-pg", "--epsilon", 0.01, "--parameters", 10000, "--overlap", 1)["inputs"]["total"]
    given["total"] = total * (1 + 1e-9)
    words = [word for name, value in given.items() if name != unknown for word in (f"--{name}", value)]
    found = answer("dp-pg", *words, "--overlap", 1)
    assert found["inputs"][unknown] == pytest.approx(given[unknown], rel=1e-3)
    assert [row["about"] for row in found["rows"]] == ["one parameter", "one member", "one example, in 1 members"]


@pytest.mark.parametrize("unknown", ["noise-std", "clip", "epochs", "epsilon"])
def test_activations_solve_for_each_number(unknown):
    given = {"noise-std": 10.0, "clip": 1.0, "epochs": 60, "epsilon": 4.87}
    words = [word for name, value in given.items() if name != unknown for word in (f"--{name}", value)]
    found = answer("activations", *words)
    assert found["inputs"][unknown.replace("-", "_")] == pytest.approx(given[unknown], rel=0.02)
    assert all(row["proven"] != "none" for row in found["rows"])
    assert found["rows"][-1]["about"].startswith("one activation tensor of one example, sent")


def test_activations_without_a_guarantee_say_why():
    done = run(
        "account", "activations", "--noise-std", 10, "--clip", 1, "--epochs", 60, "--client-layer", "unnoised"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No guarantee for the transcript" in " ".join(done.stdout.split()).replace("│ ", "")
    assert "none" in done.stdout


def test_activations_by_shape_or_by_clip():
    found = answer("activations", "--noise-std", 117.6, "--shape", "64x32x32", "--epochs", 1, "--delta", 1e-4)
    assert found["inputs"]["epsilon"] == pytest.approx(5, rel=0.01)
    both = fails("account", "activations", "--noise-std", 1, "--clip", 1, "--shape", "3x4x4", "--epochs", 1)
    assert "not both" in both
    for shape in ("3x4", "3x4x0", "axbxc"):
        assert "CHANNELSxHEIGHTxWIDTH" in fails(
            "account", "activations", "--noise-std", 1, "--shape", shape, "--epochs", 1
        )  # fmt: skip


def test_functional():
    found = answer("functional", "--hidden-units", 80, "--records", 8333, "--epsilon", 1)
    assert found["inputs"]["noise_scale"] == pytest.approx(420.25, rel=1e-4)
    claimed, proven = found["rows"][0]["claimed"], found["rows"][0]["proven"]
    assert proven.startswith("ε = 1")
    assert claimed.startswith("ε = 1.99"), "the paper's noise is twice what is needed"
    trained = answer("functional", "--hidden-units", 80, "--records", 8333, "--epsilon", 1, "--mode", "trained")
    assert trained["rows"][0]["proven"] == "none"
    assert trained["inputs"]["noise_scale"] == pytest.approx(840)
    epochs = answer(
        "functional", "--hidden-units", 8, "--records", 99, "--epsilon", 1, "--noise-scale", 62.5, "--epochs", 0,
        "--mode", "per-epoch",
    )  # fmt: skip
    assert epochs["solved"] == "epochs"
    assert epochs["inputs"]["epochs"] >= 10


@pytest.mark.parametrize("unknown", ["epsilon", "rounds", "total"])
def test_secprobe_solves_for_each_number(unknown):
    given = {"epsilon": 1.0, "rounds": 50, "total": 4.26}
    words = [word for name, value in given.items() if name != unknown for word in (f"--{name}", value)]
    found = answer("secprobe", "--participants", 30, "--selected", 15, "--records", 10000, *words)
    assert found["inputs"][unknown] == pytest.approx(given[unknown], rel=0.02)
    assert [row["about"] for row in found["rows"]] == ["one validation record", "one participant score"]


def test_prune():
    done = run("account", "prune", "--accuracy", 0.5902)
    assert done.returncode == 0, done.stderr
    for words in ("none", "MIA-Pruning", "JS ≥ 0.01636", "ε ≥ 0.36"):
        assert words in done.stdout, words
    assert answer("prune", "--epsilon", 1)["inputs"]["accuracy"] == pytest.approx(0.731, abs=5e-4)


def test_figure_3_as_printed_and_as_it_should_be(tmp_path):
    done = run("account", "figure3", "--plot", tmp_path / "figure3.png")
    assert done.returncode == 0, done.stderr
    for number in ("13.35", "15.51", "17.92", "16.74", "0.1867", "6.8"):
        assert number in done.stdout, number
    assert (tmp_path / "figure3.png").read_bytes().startswith(b"\x89PNG")


COMMANDS = {
    "gaussian": ("--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5),
    "dp-pg": ("--epsilon", 0.01, "--parameters", 1000),
    "activations": ("--noise-std", 10, "--clip", 1, "--epochs", 5),
    "functional": ("--hidden-units", 8, "--records", 100, "--epsilon", 1),
    "secprobe": ("--participants", 30, "--selected", 15, "--records", 100, "--epsilon", 1, "--rounds", 5),
    "prune": ("--epsilon", 1),
    "figure3": (),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_every_command_plots(command, suffix, tmp_path):
    path = tmp_path / f"figure.{suffix}"
    done = run("account", command, *COMMANDS[command], "--plot", path)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 5000


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_claimed_beside_proven(command):
    done = run("account", command, *COMMANDS[command])
    assert "claimed" in done.stdout
    assert "proven" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gaussian", "--noise-std", 1), "are missing: give all of them but one"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5, "--epsilon", 1), "leave out the one"),
        (("gaussian", "--noise-std", -1, "--sensitivity", 1, "--delta", 1e-5), "positive and finite"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 2), "delta"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5, "--releases", 0), "releases"),
        (("gaussian", "--noise-std", "nan", "--sensitivity", 1, "--delta", 1e-5), "positive and finite"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--unit", "person"), "use one of"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--overlap", 51), "overlap"),
        (("dp-pg", "--epsilon", 2, "--total", 1), "not even one parameter"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--delta", 0), "delta"),
        (("activations", "--noise-std", 1, "--clip", 1, "--epochs", 5, "--client-layer", "warm"), "use one of"),
        (("functional", "--hidden-units", 0, "--records", 9, "--epsilon", 1), "hidden_units"),
        (("functional", "--hidden-units", 8, "--records", 9, "--epsilon", 1, "--mode", "x"), "use one of"),
        (("secprobe", "--participants", 3, "--selected", 4, "--records", 9, "--epsilon", 1, "--rounds", 1), "K"),
        (("prune", "--accuracy", 0.4), "between 1/2"),
        (("figure3", "--plot", "x.jpeg"), "not as 'x.jpeg'"),
    ],
    ids=str,
)
def test_bad_questions_get_one_line(arguments, words):
    assert words in fails("account", *arguments)
