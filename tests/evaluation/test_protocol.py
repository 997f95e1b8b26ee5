"""A protocol's runs: what they edit, measure, report and checkpoint."""

import io
import json
import re
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tqdm import tqdm

from metake.data.records import Record
from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.checks import check_batches, fitting_records
from metake.evaluation.glossary import EVALUATION_TIMES, GLOSSARY
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.evaluation.protocol import Protocol, Session, run_key
from metake.evaluation.results import MethodRun, result_file
from metake.models.load import load
from metake.models.tokens import encode
from metake.prompts import Batch
from tests.cases import method_of

SAMPLED = "sampled with"


def test_run_reports_steps_edits_and_measurements(demo, statistics_of, records, monkeypatch):
    bars, edits, measured, phases = [], [], [], []

    def bar(**options):
        bars.append(tqdm(**{**options, "file": io.StringIO(), "disable": False}))
        return bars[-1]

    monkeypatch.setattr("metake.editor.tqdm", bar)
    monkeypatch.setattr("metake.evaluation.protocol.phase", lambda name: phases.append(name) or nullcontext())
    method = method_of(
        demo, "metake", layers=(1, 2), contexts=(), steps=2, meta_steps=3, stop="none", meta_stop="none"
    )
    protocol = Protocol(records[:4], 3, generate=False, measure_every=1)
    (run,) = protocol.run(
        demo,
        [method],
        statistics_of(demo),
        on_edit=edits.append,
        on_measurement=lambda count, measurement: measured.append((count, measurement)),
    ).runs
    assert edits == [3, 1]
    measure, edit = "evaluate", "metake, edits"
    assert phases == ["evaluate the unedited model", f"{edit} 1-3 of 4", measure, f"{edit} 4-4 of 4", measure]
    assert [(b.desc, b.n, b.total) for b in bars] == 2 * [("metake: targets", 5, 5)]
    assert measured == [(3, run.measurements[3]), (4, run.after)]


def test_run_key_changes_with_every_ingredient(demo, statistics_of, records):
    """A run's key changes with whatever its numbers depend on.

    One ingredient at a time; the same ones give the same key.
    """
    statistics, method = statistics_of(demo), method_of(demo, "memit", layers=(1, 2))
    plain = {
        "records": records[:2],
        "method": method,
        "statistics": statistics,
        "batch": 2,
        "contexts": ("The mill is dark",),
        "measured": [True, True, None],
    }

    def key(**changes):
        given = {**plain, **changes}
        return run_key(demo, given.pop("records"), given.pop("method"), given.pop("statistics"), **given)

    provenance = statistics.provenance
    other = [
        {"records": records[1:3]},
        {"records": records[:1]},
        {"records": [replace(records[0], rephrase="Who?"), records[1]]},
        {"method": method.updated(label="memit@label")},
        {"method": method.updated(lr=0.3)},
        {"batch": 1},
        {"method": method.updated(fit="equality_constrained", label=method.name)},
        {"contexts": ("Today it rains",)},
        {"contexts": None},
        {"statistics": None},
        {"statistics": replace(statistics, provenance=replace(provenance, text="another"))},
        {"statistics": replace(statistics, provenance=replace(provenance, tokens=7))},
        {"statistics": replace(statistics, provenance=replace(provenance, window=7))},
        {"statistics": replace(statistics, provenance=replace(provenance, dtype="bfloat16"))},
        {"measured": [False, True, None]},
    ]
    assert key() == key() == json.loads(json.dumps(key()))  # plain values, as they are read back
    keys = [json.dumps(key(**changes)) for changes in ({}, *other)]
    assert len(set(keys)) == len(keys)
    saved = demo.weight(0).clone()
    try:
        with torch.no_grad():
            demo.weight(0).add_(1e-3)
        assert json.dumps(key()) not in keys
    finally:
        with torch.no_grad():
            demo.weight(0).copy_(saved)


def test_run_key_differs_between_prompt_frames(talking, records):
    """A run's key tells the frames of its prompts apart."""
    plain, framed = load(str(talking), device="cpu"), load(str(talking), device="cpu", chat=True)
    method = method_of(plain, "memit")
    keys = [run_key(model, records[:1], method, None, batch=1, contexts=None) for model in (plain, framed)]
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == ["chat"]


def test_row_has_seconds_per_edit_over_all_batches(run_of):
    run = run_of([{"seconds": 3.0, "requests": [1, 2]}, {"seconds": 5.0, "requests": [3, 4]}])
    assert run.seconds_per_edit == 2.0
    assert run_of([]).seconds_per_edit == 0.0


@pytest.fixture
def run_of(demo):
    method = method_of(demo, "memit")
    values = {name: np.array([np.nan, np.nan, np.nan]) for name in PER_RECORD}
    values["efficacy"] = np.array([1.0, 0.0, 0.1234567])
    values["kl"] = np.array([0.5, np.nan, 1.0])
    after = Measurement(values, 4.5, float("inf"), [], [("a", "b", "c")] * 3)
    return lambda batches: MethodRun(method, after, after, batches, "end")


def test_row_has_measured_values_and_no_nan(run_of):
    row = run_of([{"seconds": 3.0, "requests": [1, 2]}]).row()
    assert row["mean"] == {"efficacy": 0.374486, "kl": 0.75, "perplexity": 4.5, "perplexity_median": None}
    assert row["per_record"] == {"efficacy": [1.0, 0.0, 0.123457], "kl": [0.5, None, 1.0]}
    assert set(row["interval"]) == {"efficacy", "kl"}
    assert row["interval"]["kl"] == [0.5, 1.0]
    assert row["seconds_per_edit"] == 1.5


def test_run_measures_records_edited_so_far(demo, statistics_of, records):
    """Measurements on the way are of the records edited so far.

    After every second batch and at the end: what an editor that stops there would measure.
    """
    chosen = records[:5]
    method = method_of(demo, "memit", layers=(1, 2), contexts=(), steps=6, lam=30.0)
    session = Protocol(chosen, 1, generate=False, measure_every=2).prepare(demo, statistics_of(demo))
    evaluator, before = session.evaluator, session.before
    whole = session.run(method)
    assert list(whole.measurements) == [2, 4, 5]
    assert whole.moment == "end"
    three = replace(session, protocol=replace(session.protocol, records=chosen[:3], measure_every=None))
    assert list(three.run(method).measurements) == [3]
    with Editor(demo, method=method, statistics=statistics_of(demo)) as editor:
        for count in range(1, 6):
            editor.edit(chosen[count - 1].request)
            if count in whole.measurements:
                seen = evaluator.measure(before, only=range(count))
                for name in ("efficacy", "specificity", "agreement", "same_subject", "kl"):
                    np.testing.assert_array_equal(whole.measurements[count].values[name], seen.values[name])
                    assert np.isnan(whole.measurements[count].values[name][count:]).all()
    assert np.isfinite(whole.after.values["efficacy"]).all()


def test_run_judges_separate_batches_on_the_unedited_model(demo, statistics_of, records):
    """Batches judged alone stand on the unedited model.

    Each as if it were the only one; their measurements are put together by record.
    """
    chosen = records[:4]
    method = method_of(demo, "alphaedit", layers=(1, 2), contexts=(), steps=6, l2=0.01)
    session = Protocol(chosen, 2, consecutive=False).prepare(demo, statistics_of(demo))
    evaluator, before = session.evaluator, session.before
    run = session.run(method)
    assert (run.moment, run.measurements) == ("alone", {})
    assert np.isnan(run.after.perplexity)
    for half in (range(2), range(2, 4)):
        with Editor(demo, method=method, statistics=statistics_of(demo)) as editor:
            editor.edit([chosen[i].request for i in half])
            alone = evaluator.measure(before, only=half)
        for name in ("efficacy", "generalization", "specificity", "agreement", "kl"):
            np.testing.assert_array_equal(run.after.values[name][list(half)], alone.values[name][list(half)])
        assert [run.after.answers[i] for i in half] == [alone.answers[i] for i in half]
        assert [run.after.choices[i] for i, (_, r) in enumerate(evaluator.kinds) if r in half] == [
            alone.choices[i] for i, (_, r) in enumerate(evaluator.kinds) if r in half
        ]


def test_run_uses_shared_contexts_without_own_ones(demo, statistics_of, records, monkeypatch):
    """Shared contexts are used where the settings have none."""
    seen = []
    build = Batch.build

    def watched(model, requests, contexts, *rest):
        seen.append(tuple(contexts))
        return build(model, requests, contexts, *rest)

    monkeypatch.setattr(Batch, "build", watched)
    session = Protocol(records[:1], 1, generate=False).prepare(demo, statistics_of(demo))
    session.contexts[0] = ("The mill is dark",)
    for own in (None, ("Today it rains",)):
        session.run(method_of(demo, "memit", layers=(1,), steps=1, contexts=own))
    assert seen == [("The mill is dark",), ("Today it rains",)]


def test_run_refuses_a_batch_below_one(records):
    with pytest.raises(MetakeError, match=r"^batch: must be at least 1, got 0$"):
        Protocol(records[:1], 0)


def test_result_file_describes_its_run(demo, statistics_of, run_of):
    run = run_of([])
    content = result_file(demo, run.before, [run], statistics_of(demo), edits=3)
    assert content["model"] == demo.name
    assert content["fingerprint"] == demo.fingerprint()
    assert content["statistics"]["tokens"] == statistics_of(demo).provenance.tokens
    assert content["edits"] == 3
    assert content["generation"] == {
        "decoding": "greedy",
        "stop_tokens": [demo.tokenizer.eos_token_id],
        "set_aside": {},
    }
    assert content["before"]["mean"]["kl"] == 0.75
    assert result_file(demo, run.before, [], None)["statistics"] is None


@pytest.mark.parametrize("field", ["request", "rephrase", "locality"])
def test_fitting_records_reserves_tokens_for_contexts(demo, records, field):
    """A record may fill what the contexts leave.

    24 tokens are kept for contexts: of each prompt with its answer, one token more is too many.
    """
    long = "mill " * 30
    changes = {
        "request": replace(records[0].request, prompt=long + "{} is"),
        "rephrase": long,
        "locality": long,
    }
    record = replace(records[0], **{field: changes[field]})
    prompt, answer = {
        "request": (record.request.text, record.request.target_new),
        "rephrase": (record.rephrase, record.request.target_new),
        "locality": (record.locality, record.locality_answer),
    }[field]
    longest = len(encode(demo.tokenizer, prompt, answer))
    for limit, fits in ((longest + 24, True), (longest + 23, False)):
        good, bad = fitting_records(SimpleNamespace(max_positions=limit, tokenizer=demo.tokenizer), [record])
        assert (len(good), len(bad)) == (fits, not fits)


LONG = "mill " * 100
TOO_LONG = {
    "a second paraphrase": ({"rephrases": ("Who?", LONG)}, "rephrase"),
    "the rival": ({"target_true": LONG}, "prompt"),
    "a neighbor": ({"target_true": "x", "neighbors": ("Who?", LONG)}, "neighbor"),
    "a prompt about the subject": ({"same_subject": (("Who?", "x"), (LONG, "x"))}, "same_subject"),
    "an answer about the subject": ({"same_subject": (("Who?", LONG),)}, "same_subject"),
    "the locality's answer": ({"locality_answer": LONG}, "locality"),
    "a generation prompt": ({"generation_prompts": ("Who", LONG)}, "generation prompt"),
}


@pytest.mark.parametrize("case", TOO_LONG)
def test_fitting_records_checks_every_text_first(demo, records, case):
    """Every text that will be run is checked before.

    What is left is measured by a model of that length without an IndexError, what is not is named by its field.
    """
    change, field = TOO_LONG[case]
    short = replace(records[0], target_true="x", rephrases=("Who is it?",), generation_prompts=("It is",))
    good, bad = fitting_records(
        SimpleNamespace(max_positions=70, tokenizer=demo.tokenizer), [short, replace(short, **change)]
    )
    assert good == [short]
    assert re.fullmatch(rf"record 2 \(.*\): {field}: \d+ tokens( with contexts)?, the model takes 70", bad[0])


def test_fitting_records_takes_texts_of_the_models_length(demo, records):
    """A text of exactly the model's length is taken.

    A scored answer may end at the last position; a prompt that is continued needs one more.
    """
    for change, spare in (({"same_subject": ((LONG, "x"),)}, 0), ({"generation_prompts": (LONG,)}, 1)):
        record = replace(records[0], **change)
        length = len(encode(demo.tokenizer, LONG, "x" if not spare else "")) + spare
        for limit, fits in ((length, True), (length - 1, False)):
            model = SimpleNamespace(max_positions=limit, tokenizer=demo.tokenizer)
            assert bool(fitting_records(model, [record])[0]) is fits


def test_fitting_records_counts_missing_prompts_in_a_note(demo, records):
    with pytest.warns(UserWarning, match="of 2 records have no") as caught:
        assert len(fitting_records(demo, [records[0], Record(records[1].request)])[0]) == 2
    assert [str(w.message) for w in caught] == [
        "1 of 2 records have no rephrase: no generalization of them",
        "1 of 2 records have no locality: no specificity of them",
    ]


def test_check_batches_refuses_contradictions_in_a_batch(records):
    """Contradicting records are refused in a batch and noted across."""
    other = replace(records[0], request=replace(records[0].request, target_new="weaver"))
    fighting = [records[1], records[0], records[2], other]
    with pytest.raises(MetakeError, match=r"has two targets, .* in the batch that begins with record 1"):
        check_batches(fighting, 4)
    with pytest.warns(UserWarning, match="in different batches: the later edit undoes the earlier"):
        check_batches(fighting, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_batches(fighting, 3, consecutive=False)
        check_batches(records[:4], 2)


def test_run_refuses_contradictions_before_measuring(demo, records, monkeypatch):
    """Run refuses contradicting records before it measures."""
    monkeypatch.setattr("metake.evaluation.protocol.Evaluator", None)
    other = replace(records[0], request=replace(records[0].request, target_new="weaver"))
    with pytest.raises(MetakeError, match="has two targets,"):
        Protocol([records[0], other], 2).run(demo, [])


def test_run_judges_both_of_identical_records(demo, statistics_of, records):
    """Twins of a batch are both judged.

    They are edited once, and the run still knows how many records its batches hold.
    """
    chosen = [records[0], replace(records[0], rephrase=records[1].rephrase), records[2]]
    method = method_of(demo, "memit", layers=(1,), contexts=(), steps=2)
    with pytest.warns(UserWarning, match="duplicate requests are ignored"):
        (run,) = Protocol(chosen, 2, generate=False).run(demo, [method], statistics_of(demo)).runs
    assert [(len(b["requests"]), b["records"]) for b in run.batches] == [(1, 2), (1, 1)]
    assert np.isfinite(run.after.values["efficacy"]).all()


@pytest.mark.parametrize("consecutive", [True, False])
def test_run_judges_prune_with_its_bound(demo, statistics_of, records, consecutive):
    """All edits at the end, or each batch alone: as an editor is that has finished."""
    chosen = records[:2]
    method = method_of(demo, "prune", layers=(1, 2), contexts=(), steps=6, clamp=None, lam=1e-6, lr=20.0)
    session = Protocol(chosen, 1, consecutive, generate=False).prepare(demo, statistics_of(demo))
    evaluator, before = session.evaluator, session.before
    run = session.run(method)
    for group in [[0, 1]] if consecutive else [[0], [1]]:
        with Editor(demo, method=method, statistics=statistics_of(demo)) as editor:
            for i in group:
                editor.edit(chosen[i].request)
            raw = evaluator.measure(before).values["kl"][group]
            editor.finalize()
            bounded = evaluator.measure(before).values["kl"][group]
        assert (abs(raw - bounded) > 1e-3 * bounded).all()
        np.testing.assert_array_equal(run.after.values["kl"][group], bounded)


def test_row_is_of_the_edited_model(demo, run_of):
    """A row is of the edited model and the file holds the unedited one once."""
    run = run_of([])
    before = replace(run.before, values={**run.before.values, "efficacy": np.zeros(3)})
    content = result_file(demo, before, [replace(run, before=before)], None)
    assert content["before"]["mean"]["efficacy"] == 0
    assert content["methods"][0]["mean"]["efficacy"] == 0.374486
    assert content["methods"][0]["answers"] == run.after.answers
    assert content["methods"][0]["settings"] == run.method.model_dump()
    assert (content["methods"][0]["moment"], content["chat"]) == ("end", None)


def test_result_file_names_versions(demo, talking, run_of):
    content = result_file(demo, run_of([]).before, [], None)
    assert content["versions"] == {
        "metake": version("metake"),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "device": "cpu",
    }
    assert (content["glossary"], content["moments"]) == (GLOSSARY, EVALUATION_TIMES)
    framed = result_file(load(str(talking), device="cpu", chat=True), run_of([]).before, [], None)
    assert framed["chat"]["before"] == "Asked: "


def test_run_passes_modules_and_reads_no_answers(demo, records, monkeypatch):
    """A run gives its editor the model's modules and reads no answers."""
    seen = {}

    def editor(*given, **options):
        seen.update(options, given=given)
        raise KeyboardInterrupt

    monkeypatch.setattr("metake.evaluation.protocol.Editor", editor)
    method = method_of(demo, "memit")
    model = SimpleNamespace(modules="of the model", model=demo.model, tokenizer=demo.tokenizer)
    with pytest.raises(KeyboardInterrupt):
        Session(Protocol(records[:1], 1), model, "C", None, None, {0: ()}).run(method)
    assert seen["given"] == (demo.model, demo.tokenizer, method)
    assert seen | {"given": None} == {
        "statistics": "C",
        "modules": "of the model",
        "answers": False,
        "progress": True,
        "undoable": 1,
        "given": None,
    }


@pytest.fixture
def compared(demo, statistics_of, records, monkeypatch, tmp_path):
    """`compared(**options)`: what every method is run with, without running it."""

    def go(methods=None, **options):
        runs = []

        def run(session, method, checkpoints, contexts, *callbacks):
            runs.append((method, checkpoints, contexts, callbacks))
            return MethodRun(method, session.before, session.before, [], "end")

        monkeypatch.setattr(Session, "_run", run)
        monkeypatch.setattr(
            "metake.evaluation.protocol.sample_contexts", lambda *_, seed: (f"{SAMPLED} {seed}",)
        )
        protocol = Protocol(
            options.pop("records", records[:2]),
            options.pop("batch_size", 2),
            options.pop("consecutive", True),
            options.pop("generate", False),
            options.pop("text", "The mill is dark. " * 9),
            context_seed=options.pop("context_seed", None),
        )
        chosen = methods or [method_of(demo, "memit", layers=(1, 2))]
        folder = options.pop("folder", tmp_path)
        return protocol.run(demo, chosen, statistics_of(demo), folder, **options), runs

    return go


def folder_of(compared):
    """Folder of the checkpoints of a comparison's only run."""
    _, ((_, checkpoints, *_),) = compared
    return checkpoints and checkpoints.folder


def test_run_folder_is_unique_to_method_and_key(compared, records):
    """Every run has a folder of its own.

    Named after method and key: whatever changes the numbers changes the folder; the same call finds it again.
    """
    changes = [
        {},
        {"batch_size": 1},
        {"consecutive": False},
        {"generate": True},
        {"text": None},
        {"text": "Today it rains. " * 9},
        {"records": records[1:3]},
    ]
    folders = [folder_of(compared(**change)) for change in changes]
    assert len(set(folders)) == len(folders)
    assert all(folder.name.startswith("memit-") for folder in folders)
    assert folder_of(compared()) == folders[0]
    assert folder_of(compared(folder=None)) is None


def test_run_shares_contexts_between_methods_of_a_seed(compared, demo):
    """Sampled once per seed, from the unedited model; a method with contexts of its own needs none."""
    plain = method_of(demo, "memit", layers=(1, 2))
    methods = [
        plain,
        plain.updated(seed=3, label="memit@other"),
        plain.updated(contexts=("It rains",), seed=5, label="memit@own"),
        method_of(demo, "ultraedit", layers=(1, 2)),  # it has no contexts
    ]
    out, runs = compared(methods)
    assert [contexts for _, _, contexts, _ in runs] == [("sampled with 0",), ("sampled with 3",), None, None]
    assert out.content["contexts"] == {"0": ("sampled with 0",), "3": ("sampled with 3",)}
    assert [method for method, *_ in runs] == methods
    assert compared(methods, context_seed=7)[0].content["contexts"] == {"7": ("sampled with 7",)}
    assert [row["method"] for row in out.content["methods"]] == [method.name for method in methods]


def test_content_lists_questions_in_page_order(compared, records):
    """The content names what was asked in the order that a page reads.

    Prompt, target, truth, rephrase, unrelated prompt, its answer; callbacks reach the run as they were given.
    """
    out, runs = compared(batch_size=1, on_edit=print, on_measurement=repr, note="x")
    assert out.content["requests"] == [
        [r.request.text, r.request.target_new, r.ground_truth, r.rephrase, r.locality, r.locality_answer]
        for r in records[:2]
    ]
    assert len({text for text in out.content["requests"][0]}) == 6
    assert {name: out.content[name] for name in ("edits", "batch", "note")} == {
        "edits": 2,
        "batch": 1,
        "note": "x",
    }
    ((*_, callbacks),) = runs
    assert callbacks == (print, repr)
    assert out.before.answers == [("", "", "")] * 2  # nothing was generated


def test_run_folder_changes_with_contexts(compared, monkeypatch):
    first = folder_of(compared())
    monkeypatch.setattr("tests.evaluation.test_protocol.SAMPLED", "otherwise sampled with")
    assert folder_of(compared()) != first
