"""The search sees shipped settings as points of its space."""

import json
import shlex
from argparse import Namespace
from collections import defaultdict
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

optuna = pytest.importorskip("optuna")

from experiments.tune import main  # noqa: E402
from metake import cli  # noqa: E402
from metake.data.records import read_records  # noqa: E402
from metake.errors import MetakeError  # noqa: E402
from metake.evaluation.metrics import score  # noqa: E402
from metake.evaluation.protocol import Session  # noqa: E402
from metake.files import read_json, read_record  # noqa: E402
from metake.methods.base import Method  # noqa: E402
from metake.methods.table import METHODS  # noqa: E402
from metake.models.editable import EditableModel  # noqa: E402
from metake.models.load import load  # noqa: E402
from metake.presets import default_layers, load_preset, settings_for  # noqa: E402
from metake.shipped import ASSETS  # noqa: E402
from metake.texts import default_text  # noqa: E402
from metake.tuning import run  # noqa: E402
from metake.tuning import search as searching  # noqa: E402
from metake.tuning.journal import Journal  # noqa: E402
from metake.tuning.points import as_trial, first_points, settings_of, shipped_choice, stronger, suggest  # noqa: E402
from metake.tuning.searched import searched_names  # noqa: E402
from metake.tuning.space import SPACES, space_of  # noqa: E402
from metake.tuning.winners import next_command, replace_variant  # noqa: E402
from tests.scripts import call_here  # noqa: E402


def winners(model):
    """`(method, settings)` of a model's search."""
    found = read_record(run.SEARCHES / f"{model}.json", "")
    return [(method, found[method]["trials"][0]["choice"]) for method in sorted(set(found) & set(METHODS))]


def held(choices):
    """The methods of a preset that holds a choice for each of some rows."""
    preset = {"methods": {}}
    for name, choice in choices.items():
        replace_variant(preset, name, choice)
    return preset["methods"]


@pytest.mark.parametrize("model", sorted(SPACES))
def test_space_contains_every_searched_preset(model):
    """The point that stands for it gives the same settings again."""
    space = SPACES[model]
    for method, choice in winners(model):
        point = as_trial(choice, method, space)
        assert point is not None
        again = suggest(optuna.trial.FixedTrial(point), method, space)
        held = {name: value for name, value in choice.items() if name not in again}
        assert again == {name: choice[name] for name in again}
        assert set(held) <= {"lookup", "end"}


def test_preset_writes_and_reads_choices_by_component():
    """A preset names a choice by its components and gives it back.

    What was there of the row is replaced; other labels and other rows stay.
    """
    choice = {"layers": [2], "lam": 3.0, "start": "compensated", "memory": "past-keys"}
    numbers = {"layers": [2], "lam": 3.0}
    preset = {
        "methods": {
            "metake": {"lam": 1.0},
            "metake@mine": {},
            "metake-proxy": {},
            "memit": {"lam": 2.0},
        }
    }
    assert replace_variant(preset, "metake", choice) == "metake + compensated + past-keys"
    assert preset["methods"] == {
        "metake@mine": {},
        "metake-proxy": {},
        "memit": {"lam": 2.0},
        "metake + compensated + past-keys": numbers,
    }
    assert shipped_choice(METHODS["metake"], preset["methods"]) == choice
    assert shipped_choice(METHODS["metake-parallel"], preset["methods"]) == choice  # like metake
    assert shipped_choice(METHODS["rect"], preset["methods"]) == {"lam": 2.0, "memory": "none"}
    assert shipped_choice(METHODS["alphaedit"], preset["methods"]) == {}
    replace_variant(preset, "memit", {"memory": "past-keys"}, "@unstopped")
    assert list(preset["methods"])[-1] == "memit + past-keys@unstopped"


def test_method_name_has_a_held_component():
    preset = {"methods": {}}
    replace_variant(preset, "memit", {"layers": [2], "memory": "none", "allocation": "last"})
    assert preset["methods"] == {"memit + last": {"layers": [2]}}


def test_space_refuses_points_outside():
    assert as_trial({"layers": [0, 5]}, "memit", SPACES["demo"]) is None
    assert as_trial({}, "memit", SPACES["demo"]) is None
    plan = {"layers": [2], "steps": 32, "lam": 30.0}
    assert as_trial(plan, "memit", SPACES["demo"]) is not None
    assert as_trial(plan, "metake", SPACES["demo"]) is None  # nothing for its upper level, and too many steps


def test_space_has_a_cost_only_for_loops_with_cost():
    """Only a row with a cost has a cost to search.

    It may begin with what its unpriced row ships with.
    """
    space = SPACES["demo"]
    choice = dict(winners("demo"))["metake"]
    assert "cost_weight" not in as_trial({**choice, "cost_weight": 0.0}, "metake", space)
    assert as_trial(choice, "metake-priced", space)["cost_weight"] == METHODS[
        "metake-priced"
    ].prototype.value("cost_weight")
    point = as_trial({**choice, "cost_weight": 20.0}, "metake-priced", space)
    assert suggest(optuna.trial.FixedTrial(point), "metake-priced", space)["cost_weight"] == 20.0
    assert all(
        p["cost_weight"] > 0 for p in first_points("metake-priced", held({"metake": choice}), [3.0], space)
    )


@pytest.fixture
def searched(monkeypatch, demo, tmp_path):
    """`go(folder, trials)`: the choices of a search whose trials cost nothing."""

    def run(session, method):
        value = 1 / (1 + abs(method.value("lr") - 0.5))
        return SimpleNamespace(
            after=SimpleNamespace(mean=lambda metric: value, values=defaultdict(lambda: np.full(4, value)))
        )

    monkeypatch.setattr(Session, "run", run)
    data = ASSETS / "world" / "dev.json"
    records = read_records(data, 2)
    fixed = dict(
        data=data,
        edits=2,
        batch=1,
        fixed_settings=[],
        seed=0,
        factors=[],
        all_layer_sets=False,
        winners_of=[],
        published=False,
    )

    def go(folder, *trials, earlier=None, **other):
        for count in trials:
            args = Namespace(**{**fixed, **other}, journal=tmp_path / folder, trials=count)
            found = searching.search(demo, "memit", SPACES["demo"], records, None, args, {}, {}, earlier)
        return sorted(found, key=lambda trial: trial["number"])

    return go


def test_search_resumed_equals_an_uninterrupted_one(searched):
    """A search that goes on is the one that was never stopped."""
    whole = searched("a", 14)
    assert len(whole) == 14
    assert len({trial["choice"]["lr"] for trial in whole}) == 14  # no point comes twice
    assert searched("b", 3, 4, 9, 14) == whole


def test_search_extends_a_published_one(searched):
    """Another machine has the file and not the journal: it ends as the search that had both, but for rounded scores."""
    whole, part = searched("a", 14), searched("b", 6)
    for trials in ((14,), (6, 9, 14)):  # the journal's own are not joined by the same again
        found = searched(f"c{len(trials)}", *trials, earlier=part[::-1])
        assert [t["choice"] for t in found] == [t["choice"] for t in whole]
    outside = [{"number": 0, "score": 1.0, "choice": {**part[0]["choice"], "layers": [0, 5]}}]
    assert outside[0]["choice"] not in [t["choice"] for t in searched("d", 3, earlier=outside)]


def test_method_with_components_is_refused(monkeypatch, capsys):
    """A search of the row alone would be of another algorithm."""
    monkeypatch.setattr("metake.commands.tune.load_model", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr("sys.argv", ["tune.py", "--methods", "memit,metake-alphaedit + preserved-prompt"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "give metake-alphaedit and --set windows=preserved-prompt" in line
    assert "\n" not in line


def test_journal_belongs_to_one_run(searched):
    searched("a", 2)
    for other, named in (({"seed": 1}, "seed"), ({"edits": 1}, "edits"), ({"batch": 2}, "batch")):
        with pytest.raises(MetakeError, match=f"demo-memit.journal: trials of another {named}"):
            searched("a", 3, **other)
    assert len(searched("a", 3)) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 12, 24, 48])
def test_space_exists_for_any_model(count, monkeypatch):
    """Places within the model, each once, the first as the model is edited by default; guesses are points of it."""
    monkeypatch.setattr("metake.presets.preset_name", lambda model: "")
    deep = type(
        "Deep",
        (EditableModel,),
        {
            "__init__": lambda self: None,
            "__len__": lambda self: count,
            "check_layers": lambda self, layers: None,
        },
    )
    space = space_of(deep())
    assert space.layer_sets[0] == default_layers(count)
    assert len(set(space.layer_sets)) == len(space.layer_sets)
    assert all(
        layers and max(layers) < count and list(layers) == sorted(set(layers)) for layers in space.layer_sets
    )
    for method in ("memit", "alphaedit", "metake", "metake-proxy", "metake-parallel", "ultraedit"):
        for point in first_points(method, {}, [3.0], space, all_layer_sets=True, defaults=True):
            assert suggest(optuna.trial.FixedTrial(point), method, space)


@pytest.mark.parametrize("method", ["memit", "alphaedit", "metake-blue"])
def test_published_preset_adds_nothing_to_a_found_one(method, demo, write):
    """GPT-2 XL's sets the null space's threshold, which a trial does not."""
    preset = deepcopy(load_preset("gpt2-xl"))
    choice = {
        "layers": [2],
        "lr": 0.1,
        **({"lam": 7.0} if method == "memit" else {"l2": 7.0, "keep": 0.5}),
    }
    replace_variant(preset, method, choice)
    plain = settings_for(demo, method, name="none")
    tried = plain.updated(**plain.without_choices(preset["common"])).updated(**choice)
    assert settings_for(demo, method, name=write("preset.json", json.dumps(preset))) == tried


def test_tune_of_a_users_model_sets_its_edits(tmp_path, demo, write, monkeypatch, capsys):
    """A model of one's own is searched and then edited with what was found."""
    folder, own = tmp_path / "Mine", load("demo", device="cpu").model
    with torch.no_grad():
        own.get_input_embeddings().weight.mul_(1.001)  # another model than the one with a preset
    own.save_pretrained(folder)
    demo.tokenizer.save_pretrained(folder)
    data = ASSETS / "world" / "dev.json"
    done = call_here(
        "tune.py",
        "--model",
        folder,
        "--data",
        data,
        "--text",
        write("t.txt", default_text("demo")[:20_000]),
        "--methods",
        "ultraedit,memit",
        "--trials",
        2,
        "--edits",
        2,
        "--batch",
        2,
        "--out",
        tmp_path / "found",
        "--journal",
        tmp_path / "journal",
    )
    found = read_json(tmp_path / "found" / "preset.json")
    trials = read_json(tmp_path / "found" / "search.json")["memit"]["trials"]
    assert found["names"] == ["mine"]
    name, part = next(
        (name, part)
        for name, part in found["methods"].items()
        if name.startswith("memit") and "@" not in name
    )
    assert name == ("memit" if trials[0]["choice"]["memory"] == "none" else "memit + past-keys")
    assert {**part, "memory": trials[0]["choice"]["memory"]} == trials[0]["choice"]
    assert trials[0]["score"] >= trials[1]["score"]
    low, high = trials[0]["interval"]
    assert low <= trials[0]["score"] <= high
    lines = done.stdout.splitlines()
    won = f"memit: {trials[0]['score']:.3f} (95% interval over records {low:.3f} to {high:.3f}), trial "
    assert any(line.startswith(won) for line in lines)
    assert any(line.startswith("ultraedit: ") for line in lines)
    assert any(
        str(tmp_path / "found" / "preset.json") in line for line in lines if line.startswith("written: ")
    )
    (following,) = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    given = shlex.split(following)
    assert given[:2] == ["metake", "edit"]
    monkeypatch.setattr("sys.argv", [*given, "--preview", "--text", str(tmp_path / "t.txt")])
    cli.main()  # it is a command as it stands
    assert "predicted realization" in capsys.readouterr().out
    (rect,) = searched_names(demo, ["rect"], tmp_path / "found" / "preset.json")
    call_here(
        "run_zsre.py",
        "--model",
        folder,
        "--data",
        data,
        "--preset",
        tmp_path / "found" / "preset.json",
        "--methods",
        f"ultraedit,{rect}",
        "--edits",
        2,
        "--seeds",
        1,
        "--no-generate",
        "--out",
        tmp_path / "out",
    )
    used = read_json(tmp_path / "out" / "results.json")["methods"]
    for method, like in (("ultraedit", "ultraedit"), (rect, name)):  # rect takes what memit found
        settings = Method.model_validate(used[method][0]["settings"])
        wanted = {**found["methods"][like], "layers": tuple(found["methods"][like]["layers"])}
        assert {setting: settings.value(setting) for setting in wanted} == wanted


def test_search_extends_trials_of_the_same_run_alone(monkeypatch, tmp_path, demo):
    """Other records, another batch or another seed: the search begins anew. The winner becomes the preset."""
    choice = {"layers": [2], "lr": 0.5, "stop": "planning_loss", "memory": "past-keys"}
    seen = []

    def search(*given):
        seen.append(given[-1])
        return [{"number": 0, "score": 1.0, "choice": choice}]

    monkeypatch.setattr(run, "SEARCHES", tmp_path / "search")
    monkeypatch.setattr(run, "PRESETS", tmp_path)
    monkeypatch.setattr("metake.commands.tune.load_model", lambda *_: demo)
    monkeypatch.setattr(run, "find_statistics", lambda *_: None)
    monkeypatch.setattr(run, "search", search)
    command = ("tune.py", "--methods", "memit", "--edits", "2", "--batch", "1")
    for more in ((), ("--extend",), ("--extend", "--batch", "2"), ("--extend", "--seed", "1")):
        monkeypatch.setattr("sys.argv", [*command, *more])
        main()
    assert [len(earlier) for earlier in seen] == [0, 1, 0, 0]
    numbers = {name: value for name, value in choice.items() if name != "memory"}
    written = read_json(tmp_path / "demo.json")["methods"]
    assert [name for name in written if name.partition(" + ")[0] == "memit" and "@" not in name] == [
        "memit + past-keys"
    ]
    assert written["memit + past-keys"] == numbers
    assert read_json(tmp_path / "search" / "demo.json")["memit"]["seed"] == 1


def test_search_without_success_writes_no_preset(monkeypatch, tmp_path, demo, capsys):
    """A search in which nothing worked ships nothing."""
    failed = [{"number": 0, "score": 0.0, "choice": {"layers": [2]}, "failed": "singular"}]
    monkeypatch.setattr(run, "SEARCHES", tmp_path / "search")
    monkeypatch.setattr(run, "PRESETS", tmp_path)
    monkeypatch.setattr("metake.commands.tune.load_model", lambda *_: demo)
    monkeypatch.setattr(run, "find_statistics", lambda *_: None)
    monkeypatch.setattr(run, "search", lambda *_: failed)
    monkeypatch.setattr("sys.argv", ["tune.py", "--methods", "memit"])
    with pytest.raises(SystemExit):
        main()
    assert "memit: no trial succeeded; first error: singular" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", sorted(SPACES))
def test_space_contains_a_stronger_constraint(model):
    """A stronger constraint is still a point of the space."""
    space = SPACES[model]
    for method, choice in winners(model):
        for factor in (3.0, 1e9):
            point = stronger(as_trial(choice, method, space), factor, space)
            again = suggest(optuna.trial.FixedTrial(point), method, space)
            strength = next(name for name in ("lam", "l2", "gradient_lr", "weight_lr") if name in choice)
            low, high = getattr(space, strength)
            assert low <= again[strength] <= high
            assert (again[strength] >= choice[strength]) == (strength in ("lam", "l2"))
            assert again.get("memory", "past-keys") == "past-keys"


@pytest.mark.parametrize("model", sorted(SPACES))
@pytest.mark.parametrize(
    "method", sorted({"memit", "alphaedit", "metake", "metake-priced", "metake-alphaedit", "ultraedit"})
)
def test_space_contains_the_published_point(model, method, demo):
    """All of it but steps, of which a trial has fewer, and a strength that the space does not reach to."""
    space = SPACES[model]
    point = first_points(method, {}, [], space, defaults=True)[1]
    choice = suggest(optuna.trial.FixedTrial(point), method, space)
    plain = settings_of(settings_for(demo, method, name="none"))
    differ = {name for name, value in choice.items() if name != "layers" and value != plain[name]}
    assert differ <= {"steps", "meta_steps"} | ({"gradient_lr"} if method == "ultraedit" else set())
    assert choice["layers"] == list(space.layer_sets[0])
    assert choice.get("steps", 0) + choice.get("meta_steps", 0) <= space.steps


def test_search_begins_with_different_points():
    """A guess that is also what ships is one trial, and so are two constraints that end at the space's border."""
    space = SPACES["demo-gptj"]
    guess, *_ = first_points("metake-proxy", {}, [], space)
    choice = suggest(optuna.trial.FixedTrial(guess), "metake-proxy", space)
    points = first_points("metake-proxy", held({"metake-proxy": choice}), [3.0, 10.0, 1e6, 1e7], space)
    assert [point["lam"] for point in points] == [300.0, 900.0, 3000.0, 30_000.0]
    assert points[0] == guess
    everywhere = first_points("metake-proxy", held({"metake-proxy": choice}), [], space, all_layer_sets=True)
    assert [point["layer_set"] for point in everywhere[1:]] == [
        place for place in range(len(space.layer_sets)) if place != guess["layer_set"]
    ]
    elsewhere = [dict(winners("demo-gptj")), dict(winners("demo"))]
    *_, last = first_points("metake", {}, [], space, others=[held(choices) for choices in elsewhere])
    assert suggest(optuna.trial.FixedTrial(last), "metake", space)["layers"] in [
        [*chosen["metake"]["layers"]] for chosen in elsewhere
    ]
    plain, projected = (first_points(method, {}, [3.0], space) for method in ("memit", "alphaedit"))
    assert [("lam" in p, "l2" in p) for p in plain + projected] == [(True, False)] * 2 + [(False, True)] * 2


def test_journal_resumes_after_a_truncated_line_alone(tmp_path):
    """A journal goes on after a cut line and refuses a changed one.

    Also lines that are missing, doubled or in another order; two writers take turns.
    """
    path = tmp_path / "x.journal"
    logs = [{"number": i, "value": i / 7} for i in range(5)]
    one, two = Journal(path), Journal(path)
    for i, log in enumerate(logs):
        (one, two)[i % 2].append_logs([log])
    assert list(one.read_logs(0)) == list(two.read_logs(0)) == list(Journal(path).read_logs(0)) == logs
    assert list(Journal(path).read_logs(3)) == logs[3:]
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[:-5])  # killed while the last line was written
    again = Journal(path)
    assert list(again.read_logs(0)) == logs[:4]
    again.append_logs(logs[4:])
    assert path.read_bytes() == whole
    for changed in (
        [*lines[:2], *lines[3:]],
        [*lines[:2], lines[3], lines[2], lines[4]],
        [lines[0], *lines],
        [lines[0].replace(b'"value": 0.0', b'"value": 0.5'), *lines[1:]],
        [lines[0], b'{"op_code": 0}\n'],
        [b"[" * 9999 + b"\n"],
    ):
        path.write_bytes(b"".join(changed))
        with pytest.raises(
            MetakeError, match=r"x\.journal: line \d is damaged, .* give another --journal, or remove it"
        ):
            list(Journal(path).read_logs(0))


def test_search_refuses_changed_files(tmp_path, monkeypatch):
    """Of its file, and of its journal, by name; what the journal has is not searched again."""
    arguments = (
        "--methods",
        "ultraedit",
        "--trials",
        1,
        "--edits",
        2,
        "--batch",
        2,
        "--out",
        tmp_path / "out",
        "--journal",
        tmp_path,
    )
    call_here("tune.py", *arguments)
    for path in (tmp_path / "out" / "search.json", tmp_path / "demo-ultraedit.journal"):
        whole = path.read_bytes()
        at = whole.index(b"efficacy")
        path.write_bytes(whole[:at] + b"f" + whole[at + 1 :])
        done = call_here("tune.py", *arguments, check=False)
        assert done.returncode == 2
        assert path.name in done.stderr
        assert "damaged" in done.stderr
        assert done.stderr.strip().count("\n") == 0
        path.write_bytes(whole)
    monkeypatch.setattr(Session, "run", None)  # whoever edits fails
    call_here("tune.py", *arguments)


def test_interval_of_a_score_is_over_records():
    values = {
        "efficacy": np.array([1.0, 1.0, 0.0, 1.0]),
        "generalization": np.array([1.0, 0.0, 1.0, np.nan]),
        "specificity": np.full(4, 0.5),
    }
    low, high = searching.score_interval(values, "specificity")
    assert low < score({"efficacy": 0.75, "generalization": 2 / 3, "specificity": 0.5}) < high
    same = {name: np.full(4, 0.5) for name in values}
    assert searching.score_interval(same, "specificity") == pytest.approx((0.5, 0.5))


def test_next_command_compares_on_test_facts(records):
    """The next command of a demo model compares on test facts."""
    model = run.model_words("demo", None, "cpu", "float64")
    command = next_command(model, True, records[0], "memit", ["memit", "rect"], Path("a b/preset.json"))
    assert shlex.split(command) == [
        "python",
        "experiments/run_zsre.py",
        "--model",
        "demo",
        "--device",
        "cpu",
        "--dtype",
        "float64",
        "--preset",
        "a b/preset.json",
        "--methods",
        "memit,rect",
    ]
