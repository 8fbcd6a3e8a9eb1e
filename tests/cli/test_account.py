"""privkernels account, as a user types it."""

import importlib
import json
import math
import subprocess
import sys

import pytest

from privkernels.privacy.accounting import gaussian_epsilon, gaussian_log_delta
from tests.support.commands import fails, run


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def answer(*arguments):
    done = run("account", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_constant=refuse)


def words_of(*arguments):
    done = run("account", *arguments)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.replace("│", " ").split())


def test_the_examples_of_the_manual():
    done = run("account", "gaussian", "--noise-std", 1, "--sensitivity", 0.7071, "--delta", 1e-4)
    assert done.returncode == 0, done.stderr
    for words in ("claimed", "proven", "DP-A", "zCDP-A", "ε = 2.53", "Solved: epsilon = 2.5325"):
        assert words in done.stdout, words
    done = run("account", "dp-pg", "--epsilon", 0.01, "--parameters", 1199882, "--members", 50, "--overlap", 50)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for words in ("one parameter", "one member", "one example, in 50 members", "ε = 0.01: the paper's maximum", "39."):
        assert words in shown, words


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
    unbounded = answer("activations", "--noise-std", 117.6, "--shape", "64x32x32", "--epochs", 1, "--clamp", 1e40)
    assert unbounded["inputs"]["sensitivity"] == pytest.approx(math.sqrt(2 * 22 * 32 * 32))
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
        "functional", "--hidden-units", 8, "--records", 99, "--epsilon", 1, "--noise-scale", 62.5, "--mode",
        "per-epoch",
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


def test_gaussian_solves_for_the_number_of_releases():
    given = ("--noise-std", 20, "--sensitivity", 1, "--epsilon", 1, "--delta", 1e-5)
    most = answer("gaussian", *given)["inputs"]["releases"]
    assert most > 10
    assert gaussian_epsilon(math.sqrt(most) / 20, 1e-5) <= 1 < gaussian_epsilon(math.sqrt(most + 1) / 20, 1e-5)
    assert "not even one release" in fails("account", "gaussian", *given[2:], "--noise-std", 1)


def test_delta_of_gaussian_noise_is_never_0():
    given = ("gaussian", "--noise-std", 1, "--sensitivity", 1, "--epsilon", 40)
    found = answer(*given)
    assert found["inputs"]["delta"] == found["rows"][0]["proven_delta"] == 5e-324
    assert [row["about"] for row in found["rows"]] == ["exact", "DP-A", "zCDP-A", "RDP-A, order 2"]
    shown = words_of(*given)
    assert "ε = 40, δ ≤ 5e-324" in shown
    assert "Solved: delta ≤ 5e-324" in shown
    assert "no bound" not in shown


def test_dp_pg_claims_only_what_the_paper_claims():
    """The paper's maximum of what these draws cost; its own formula would claim less, and nothing for wide windows."""
    given = ("dp-pg", "--epsilon", 0.01, "--parameters", 1000)
    assert all(row["claimed_epsilon"] == 0.01 and row["claimed_delta"] == 0 for row in answer(*given)["rows"])
    shown = words_of(*given)
    assert "ε = 0.01: the paper's maximum, Corollary 1" in shown
    assert "would claim ε = 0.000538 for these draws" in shown
    wide = answer(*given, "--window-ratio", 1.0)
    assert all(row["claimed"] == "none" and row["claimed_epsilon"] is None for row in wide["rows"])
    assert "needs a window below the bandwidth" in words_of(*given, "--window-ratio", 1.0)


def test_dp_pg_solves_for_the_overlap():
    given = ("dp-pg", "--epsilon", 0.01, "--parameters", 1000, "--total", 5)
    found = answer(*given)
    assert found["solved"] == "overlap"
    most = found["inputs"]["overlap"]
    assert 1 < most < 50
    assert found["inputs"]["total"] <= 5
    assert answer(*given[:-2], "--overlap", most + 1)["inputs"]["total"] > 5
    assert "all given" in fails("account", *given, "--unit", "member")


def test_delta_pays_for_a_draw_or_a_round_that_costs_more_than_the_total():
    draw = answer("dp-pg", "--total", 1e-3, "--parameters", 1, "--unit", "member", "--delta", 0.3)
    assert draw["inputs"]["epsilon"] > 0.5
    assert draw["inputs"]["total"] <= 1e-3
    choice = ("secprobe", "--participants", 30, "--selected", 1, "--records", 100)
    of_round = answer(*choice, "--total", 1e-3, "--rounds", 1, "--delta", 0.3)
    assert of_round["inputs"]["epsilon"] > 0.5
    assert of_round["inputs"]["total"] <= 1e-3


@pytest.mark.parametrize(
    ("arguments", "way"),
    [
        (("activations", "--noise-std", 10, "--clip", 1, "--epsilon", 5, "--release-once"), "up to the limit"),
        (("functional", "--hidden-units", 8, "--records", 9, "--epsilon", 9, "--noise-scale", 62.5), "up to the limit"),
        (("functional", "--hidden-units", 8, "--records", 99, "--epsilon", 1e14), "down to the limit"),
        (("gaussian", "--noise-std", 1e9, "--sensitivity", 1e-9, "--epsilon", 1, "--delta", 1e-5), "up to the limit"),
        (("dp-pg", "--epsilon", 0.01, "--total", 1, "--unit", "parameter"), "up to the limit"),
        (("secprobe", "--participants", 30, "--selected", 1, "--records", 9, "--total", 1e30, "--rounds", 1),
         "up to the limit"),
    ],
    ids=str,
)  # fmt: skip
def test_the_limit_of_a_search_is_not_an_answer(arguments, way):
    found = answer(*arguments)
    assert found["inputs"][found["solved"]] is None
    assert found["limit"] in (1e12, 1e-12)
    shown = words_of(*arguments)
    assert f"Solved: any {found['solved'].replace('_', '-')} satisfies this, {way}" in shown
    assert answer("gaussian", "--noise-std", 2, "--sensitivity", 1, "--delta", 1e-5)["limit"] is None


def solved(*arguments):
    """The number as it is printed, and as it was computed."""
    found = answer(*arguments)
    name = found["solved"]
    return float(words_of(*arguments).partition(f"Solved: {name.replace('_', '-')} = ")[2].split()[0]), found["inputs"][
        name
    ]


@pytest.mark.parametrize(
    ("arguments", "up"),
    [
        (("gaussian", "--sensitivity", 1, "--epsilon", 0.7, "--delta", 1e-5), True),
        (("gaussian", "--sensitivity", 1, "--noise-std", 0.7, "--delta", 1e-5), True),
        (("gaussian", "--sensitivity", 1, "--noise-std", 0.7, "--epsilon", 1), True),
        (("gaussian", "--noise-std", 3, "--epsilon", 0.7, "--delta", 1e-5), False),
        (("gaussian", "--noise-std", 0.07, "--epsilon", 0.7, "--delta", 1e-5), False),
        (("activations", "--noise-std", 10, "--epochs", 7, "--epsilon", 1), False),
        (("activations", "--clip", 1, "--epochs", 7, "--epsilon", 1), True),
        (("functional", "--hidden-units", 8, "--records", 99, "--epsilon", 1.3), True),
        (("dp-pg", "--epsilon", 0.013, "--parameters", 1000), True),
        (("dp-pg", "--total", 3, "--parameters", 1000), False),
        (("dp-pg", "--total", 7, "--parameters", 1001), False),
        (("secprobe", "--participants", 30, "--selected", 15, "--records", 99, "--total", 3, "--rounds", 7), False),
        (("secprobe", "--participants", 30, "--selected", 15, "--records", 99, "--total", 4, "--rounds", 9), False),
        (("prune", "--accuracy", 0.59), False),
        (("prune", "--accuracy", 0.61), False),
        (("prune", "--epsilon", 0.7), True),
    ],
    ids=str,
)  # fmt: skip
def test_printed_numbers_are_rounded_in_the_safe_direction(arguments, up):
    printed, computed = solved(*arguments)
    assert printed == pytest.approx(computed, rel=1e-5)
    assert printed >= computed if up else printed <= computed


def test_what_is_printed_can_be_used():
    """Noise and a clip as printed keep the epsilon that they were solved for."""
    std, _ = solved("gaussian", "--sensitivity", 1, "--epsilon", 0.7, "--delta", 1e-5)
    assert gaussian_log_delta(1 / std, 0.7) <= math.log(1e-5)
    clip, _ = solved("activations", "--noise-std", 10, "--epochs", 7, "--epsilon", 1)
    again = answer("activations", "--noise-std", 10, "--epochs", 7, "--clip", clip)
    assert again["inputs"]["epsilon"] <= 1
    draw, _ = solved("dp-pg", "--total", 3, "--parameters", 1000)
    assert answer("dp-pg", "--epsilon", draw, "--parameters", 1000)["inputs"]["total"] <= 3


def test_figure_3_proves_no_less_than_holds():
    for row in answer("figure3")["rows"]:
        assert float(row["proven"].removeprefix("exact ")) >= row["proven_epsilon"]
        assert float(row["by"].rpartition(" ")[2]) >= row["proven_epsilon"]


def test_both_rows_of_secprobe_are_of_the_same_draws():
    """Draws that are cheap for one of 10000 records are dear for a participant, whichever of the two was asked for."""
    given = ("secprobe", "--participants", 30, "--selected", 15, "--records", 10000, "--epsilon", 1, "--rounds", 50)
    record, score = answer(*given)["rows"]
    assert score["proven_epsilon"] > 1000 * record["proven_epsilon"]
    assert record["claimed_epsilon"] == score["claimed_epsilon"] == pytest.approx(5000)
    assert "applied to these draws" in score["claimed"]
    other = answer(*given, "--unit", "participant score")["rows"]
    assert other[0]["proven_epsilon"] < 0.01
    assert other[1]["proven_epsilon"] == pytest.approx(4.26, rel=0.02)
    assert other[0]["claimed_epsilon"] == other[1]["claimed_epsilon"] == pytest.approx(1)
    assert "These draws use the tight sensitivity" not in words_of(*given, "--unit", "participant score")
    # As many draws of a range lambda against 2 lambda / d.
    one = answer(*given[:-1], 1, "--paper-sensitivity")["rows"]
    assert one[1]["proven_epsilon"] > 100 * one[0]["proven_epsilon"]


def test_many_hidden_units_take_no_time_and_no_curve_is_made_unless_asked_for(monkeypatch):
    given = ("functional", "--hidden-units", 10**6, "--records", 100, "--noise", "gaussian", "--epsilon", 1)
    assert answer(*given)["inputs"]["noise_scale"] == pytest.approx(1.6487e5, rel=1e-2)
    monkeypatch.setattr(importlib.import_module("privkernels.privacy.calculator.functional"), "Curve", None)
    answer(*given)


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
def test_the_numbers_behind_the_words(command):
    for row in answer(command, *COMMANDS[command])["rows"]:
        for side in ("claimed", "proven"):
            epsilon, delta = row[f"{side}_epsilon"], row[f"{side}_delta"]
            words = row[side]
            if words.startswith("ε"):
                assert float(words.split()[2].rstrip(",:")) >= epsilon
                assert delta is not None
            elif words == "none":
                assert epsilon is delta is None


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "dp-pg"])
def test_numbers_do_not_wait_for_torch(command):
    words = [str(word) for word in ("account", command, *COMMANDS[command])]
    code = (
        "import sys; from typer.testing import CliRunner; from privkernels.cli.app import app; "
        f"print(CliRunner().invoke(app, {words!r}).exit_code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_claimed_beside_proven(command):
    done = run("account", command, *COMMANDS[command])
    assert "claimed" in done.stdout
    assert "proven" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gaussian", "--noise-std", 1), "are missing: give all of them but one"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5, "--epsilon", 1, "--releases", 1),
         "leave out the one"),
        (("gaussian", "--noise-std", -1, "--sensitivity", 1, "--delta", 1e-5), "positive and finite"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 2), "delta"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5, "--releases", 0), "releases"),
        (("gaussian", "--noise-std", "nan", "--sensitivity", 1, "--delta", 1e-5), "positive and finite"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--unit", "person"), "use one of"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--overlap", 51), "overlap"),
        (("dp-pg", "--epsilon", 2, "--total", 1), "not even one parameter"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--delta", 0), "delta"),
        (("activations", "--noise-std", 1, "--clip", 1, "--epochs", 5, "--client-layer", "warm"), "use one of"),
        (("functional", "--hidden-units", 0, "--records", 9, "--epsilon", 1), "hidden-units"),
        (("functional", "--hidden-units", 8, "--records", 9, "--epsilon", 1, "--mode", "x"), "use one of"),
        (("secprobe", "--participants", 3, "--selected", 4, "--records", 9, "--epsilon", 1, "--rounds", 1), "K"),
        (("prune", "--accuracy", 0.4), "between 1/2"),
        (("figure3", "--plot", "x.jpeg"), "not as 'x.jpeg'"),
        (("gaussian", "--noise-std", 1, "--sensitivity", 1, "--delta", 1e-5, "--releases", 10**700), "releases must"),
        (("gaussian", "--noise-std", 1e31, "--sensitivity", 1, "--delta", 1e-5), "noise-std must be positive"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--unit", "validation record"), "not validation record"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--unit", "participant score"), "not participant score"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--grid-points", 0), "grid_points must be 2 to 65536"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--grid-points", 1), "grid_points must be 2 to 65536"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--grid-points", 99999999), "grid_points must be 2 to 65536"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--window-ratio", 0), "window_ratio must be"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--window-ratio", -1), "window_ratio must be"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--members", 0), "members"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10, "--members", 1), "at least 2 members"),
        (("dp-pg", "--epsilon", 0.01, "--parameters", 10**700), "parameters must be"),
        (("activations", "--noise-std", 1, "--shape", "²x32x32", "--epochs", 5), "CHANNELSxHEIGHTxWIDTH"),
        (("activations", "--noise-std", 1, "--shape", "3x4x4", "--epochs", 5, "--signed"), "--signed belongs to"),
        (("activations", "--noise-std", 1, "--clip", 1, "--epochs", 5, "--clamp", 2), "--clamp belongs to --shape"),
        (("activations", "--clip", 1, "--epochs", 5, "--epsilon", 1, "--label-epsilon", 2), "no noise-std up to"),
        (("secprobe", "--participants", 30, "--selected", 15, "--records", 9, "--epsilon", 1e300, "--rounds", 5),
         "epsilon must be positive and finite"),
        (("functional", "--hidden-units", 8, "--records", 9, "--epsilon", 1, "--epochs", 0), "epochs"),
    ],
    ids=lambda value: " ".join(map(str, value))[:80] if isinstance(value, tuple) else value,
)  # fmt: skip
def test_bad_questions_get_one_line(arguments, words):
    assert words in fails("account", *arguments)
