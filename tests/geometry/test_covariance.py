"""Statistics: the right sums, found again after an interruption, refused when they do not fit."""

from math import ceil

import pytest
import torch
from safetensors.torch import save_file

from metake.errors import MetakeError
from metake.geometry import covariance
from metake.geometry.covariance import collect, token_windows
from metake.geometry.statistics import FORMAT, Statistics, text_fingerprint
from metake.models.editable import EditableModel
from metake.models.trace import run
from metake.tensor_files import write_tensors
from metake.texts import default_text
from tests.cases import tiny

TEXT = default_text("demo")[:30_000]


@pytest.fixture(scope="module")
def tokenizer(demo):
    return demo.tokenizer


@torch.no_grad()
def test_collect_equals_a_dense_sum(tiny_model, tokenizer):
    statistics = collect(tiny_model, tokenizer, TEXT, (0, 2), tokens=700, window=64, rows=3, progress=False)
    keys = [
        run(tiny_model, torch.tensor([w]), keys=(2,)).keys[2][0]
        for w in token_windows(tokenizer, TEXT, 64, 700)
    ]
    keys = torch.cat(keys).double()
    assert len(keys) == statistics.provenance.tokens == 700
    expected = keys.T @ keys / len(keys)
    assert (statistics[2].double() - expected).norm() <= 1e-5 * expected.norm()
    assert torch.linalg.eigvalsh(statistics[2].double())[0] >= -1e-6 * expected.trace()


def test_collect_does_not_depend_on_rows_or_streaming(tiny_model, tokenizer):
    """Rows and a stream of documents change nothing."""
    whole = collect(tiny_model, tokenizer, TEXT, (1,), tokens=900, rows=16, progress=False)
    small = collect(tiny_model, tokenizer, TEXT, (1,), tokens=900, rows=1, progress=False)
    stream = collect(tiny_model, tokenizer, iter(TEXT.split("\n")), (1,), tokens=900, progress=False)
    torch.testing.assert_close(whole[1], small[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole[1], stream[1], rtol=1e-4, atol=1e-5)


def test_a_text_longer_than_the_models_window_gives_no_warning(demo):
    """The text is cut into windows, so that its length is no cause for transformers' warning."""
    tokenizer = type(demo.tokenizer).from_pretrained(demo.tokenizer.name_or_path)
    windows = token_windows(tokenizer, TEXT, 64, None)
    assert sum(map(len, windows)) > tokenizer.model_max_length
    assert not tokenizer.deprecation_warnings


def test_token_windows_start_with_bos_where_added():
    from metake.models.load import load

    tokenizer = load("demo-llama", device="cpu").tokenizer
    windows = token_windows(tokenizer, TEXT, 32, 200)
    assert all(w[0] == tokenizer.bos_token_id and len(w) <= 32 for w in windows)
    assert sum(len(w) - 1 for w in windows) == 200


def test_collect_resumes_a_killed_run_with_equal_result(tokenizer, tmp_path, monkeypatch):
    """A killed run continues to the same result."""
    model = EditableModel(tiny("llama"))
    options = {"tokens": 6000, "window": 32, "rows": 4, "progress": False}
    wanted = collect(model, tokenizer, TEXT, (1,), **options)
    partial = tmp_path / "run.partial"

    calls = 0
    forward = model.model.forward

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 30:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", dies)
    with pytest.raises(KeyboardInterrupt):
        collect(model, tokenizer, TEXT, (1,), partial=partial, keep_every=0, **options)
    assert partial.is_file()
    calls = 1000
    again = collect(model, tokenizer, TEXT, (1,), partial=partial, **options)
    assert calls - 1000 < 30  # of 47: the first 29 at most were not repeated
    assert torch.equal(again[1], wanted[1])
    assert not partial.exists()


def test_collect_restarts_after_a_damaged_partial_file(tokenizer, tmp_path):
    """A damaged partial file is started over."""
    model = EditableModel(tiny("gpt2"))
    partial = tmp_path / "run.partial"
    partial.write_text("not a tensor")
    with pytest.warns(UserWarning, match=r"run\.partial: damaged .*: starting over"):
        collect(model, tokenizer, TEXT, (0,), tokens=500, partial=partial, progress=False)


def test_statistics_survive_saving_and_loading(tiny_model, tokenizer, tmp_path):
    statistics = collect(tiny_model, tokenizer, TEXT, (0, 1), tokens=700, progress=False)
    path = tmp_path / "s.safetensors"
    statistics.save(str(path))
    again = Statistics.load(path)
    assert again.provenance == statistics.provenance
    assert torch.equal(again[1], statistics[1])
    again.check(tiny_model, (0, 1))
    again.check(tiny_model, (1,))
    with pytest.raises(MetakeError, match="no statistics for layer 2"):
        again.check(tiny_model, (1, 2))
    tiny_model.weight(0).add_(1e-3)
    with pytest.raises(MetakeError, match="another model"):
        again.check(tiny_model, (1,), path)


def test_load_statistics_names_other_files(tokenizer, tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(MetakeError, match="no such file"):
        Statistics.load(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(MetakeError, match="damaged"):
        Statistics.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(MetakeError, match=r"not a metake-statistics-2 file"):
        Statistics.load(path)
    save_file({"C.0": torch.zeros(2, 2)}, path, {"format": "metake-statistics-1", "provenance": "{}"})
    with pytest.raises(MetakeError, match="metake-statistics-1 is a format of an earlier metake"):
        Statistics.load(path)
    write_tensors(path, FORMAT, {"C.0": torch.zeros(2, 2)}, {"provenance": {"model": "m"}})
    with pytest.raises(MetakeError, match="no statistics of keys"):
        Statistics.load(path)
    full = {"model": "m", "text": "t", "tokens": 9, "layers": [0], "window": 4}
    write_tensors(path, FORMAT, {"C.0": torch.full((2, 2), float("nan"))}, {"provenance": full})
    with pytest.raises(MetakeError, match="NaN"):
        Statistics.load(path)


def test_statistics_check_notes_another_dtype_of_equal_weights(tokenizer):
    """Statistics of the same weights in another dtype are used with a note.

    Measured in either dtype, used in the other; other weights are refused in both.
    """
    for measured, used in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        statistics = collect(
            EditableModel(tiny("llama").to(measured)), tokenizer, TEXT, (0, 1), tokens=700, progress=False
        )
        model = EditableModel(tiny("llama").to(used))
        with pytest.warns(UserWarning, match=f"same weights in {str(measured)[6:]}, used for the model in"):
            statistics.check(model, (0, 1))
        model.weight(0).data.add_(0.1)
        with pytest.raises(MetakeError, match="another model"):
            statistics.check(model, (0, 1))


def test_load_statistics_suggests_no_deletion_of_other_paths(tmp_path):
    """A wrong statistics path is not called something to delete."""
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("years of work")
    for path in (theirs, tmp_path, tmp_path / "none"):
        with pytest.raises(MetakeError) as refused:
            Statistics.load(path)
        assert str(refused.value).startswith(str(path))
        assert str(refused.value).endswith("give a file that metake stats wrote, or run it again")


@pytest.mark.parametrize("number", ["tokens", "window", "rows"])
def test_collect_refuses_numbers_below_one(tokenizer, number):
    for value in (0, -5):
        with pytest.raises(MetakeError, match=f"{number}: must be at least 1, got {value}"):
            collect(EditableModel(tiny("gpt2")), tokenizer, TEXT, (0,), progress=False, **{number: value})


def test_collect_refuses_short_text_and_marks_thin_one(tokenizer):
    model = EditableModel(tiny("gpt2"))
    with pytest.raises(MetakeError, match="fewer than a key has entries"):
        collect(model, tokenizer, "too short", (0,), progress=False)
    assert collect(model, tokenizer, TEXT, (0,), tokens=500, progress=False).is_undersampled
    assert not collect(model, tokenizer, TEXT, (0,), tokens=20 * 128, progress=False).is_undersampled


def test_collect_sums_in_fp64(tokenizer, monkeypatch):
    """Moments are summed in fp64.

    A large product first, then small ones that fp32 would lose beside it: 2^24 + 1 is 2^24 there.
    """
    model = EditableModel(tiny("gpt2"))
    products = iter([2.0**24] + [1.0] * 1000)
    monkeypatch.setattr(
        "metake.geometry.covariance.second_moment",
        lambda keys: torch.full((model.d_k, model.d_k), next(products)),
    )
    statistics = collect(model, tokenizer, TEXT, (0,), tokens=640, window=4, rows=1, progress=False)
    expected = torch.tensor((2.0**24 + 159) / 640)
    assert float(statistics[0][0, 0]) == float(expected) != 2.0**24 / 640


OTHERS = {"text": TEXT[5:], "tokens": 601, "window": 17, "layers": (0,)}


@pytest.mark.parametrize("change", [*OTHERS, "model", ""])
def test_collect_resumes_only_the_same_run(tokenizer, tmp_path, monkeypatch, change):
    """An unfinished run is continued by the same run alone.

    Another text, number, window, layer or model begins anew, and ends as if nothing had been there.
    """
    partial = tmp_path / "run.partial"
    model = tiny("gpt2")
    plain = {"text": TEXT, "tokens": 600, "window": 16, "layers": (0, 1)}

    def go(model, text, layers, **options):
        return collect(EditableModel(model), tokenizer, text, layers, rows=8, progress=False, **options)

    forward, calls = model.forward, []

    def dies(*args, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs) if len(calls) < 4 else 1 / 0

    monkeypatch.setattr(model, "forward", dies)
    with pytest.raises(ZeroDivisionError):
        go(model, **plain, partial=partial, keep_every=0)
    other = {**plain, **({change: OTHERS[change]} if change in OTHERS else {})}
    again = tiny("gpt2")
    if change == "model":
        with torch.no_grad():
            again.transformer.h[0].mlp.c_proj.weight.add_(0.1)
    wanted = go(again, **other)
    passes = []
    run_again = again.forward
    monkeypatch.setattr(again, "forward", lambda *a, **k: (passes.append(1), run_again(*a, **k))[1])
    found = go(again, **other, partial=partial)
    for layer in other["layers"]:
        assert torch.equal(found[layer], wanted[layer])
    whole = ceil(ceil(other["tokens"] / other["window"]) / 8)
    assert len(passes) == whole - (0 if change else 3)
    assert not partial.exists()


def test_collect_cuts_windows_to_the_models_length(tokenizer):
    """Windows are cut to what the model can take."""
    model = EditableModel(tiny("gpt2"))
    statistics = collect(model, tokenizer, TEXT, (0,), tokens=400, window=500, progress=False)
    assert statistics.provenance.window == model.max_positions == 128
    same = collect(model, tokenizer, TEXT, (0,), tokens=400, window=128, progress=False)
    assert torch.equal(statistics[0], same[0])


def test_collect_takes_as_many_tokens_as_key_entries(tokenizer):
    """A text of as many tokens as a key has entries is enough."""
    model = EditableModel(tiny("gpt2"))
    assert (
        collect(model, tokenizer, TEXT, (0,), tokens=model.d_k, progress=False).provenance.tokens == model.d_k
    )
    with pytest.raises(
        MetakeError, match=f"text: {model.d_k - 1} tokens, .* at least {20 * model.d_k} tokens"
    ):
        collect(model, tokenizer, TEXT, (0,), tokens=model.d_k - 1, progress=False)


@pytest.mark.parametrize("at", [20, 700, 29_000])
def test_text_fingerprint_depends_on_every_character(at):
    assert text_fingerprint(TEXT) != text_fingerprint(TEXT[:at] + "~" + TEXT[at + 1 :])


def test_collect_reads_a_stream_until_enough_tokens(tokenizer):
    """A stream is read until there are enough tokens.

    The document that reaches the number is the last one that is asked for.
    """
    taken = []

    def documents():
        for line in TEXT.splitlines():
            taken.append(line)
            yield line

    collect(EditableModel(tiny("gpt2")), tokenizer, documents(), (0,), tokens=300, progress=False)
    counts = [len(tokenizer(line).input_ids) for line in taken]
    assert sum(counts[:-1]) < 300 <= sum(counts)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_statistics_check_covers_weights_up_to_last_layer(tokenizer, layer):
    """A change at or below it is another model; keys do not depend on what stands above."""
    model = tiny("gpt2")
    statistics = collect(EditableModel(model), tokenizer, TEXT, (0, 1), tokens=300, progress=False)
    with torch.no_grad():
        model.transformer.h[layer].attn.c_attn.weight.add_(0.1)
    if layer == 2:
        statistics.check(EditableModel(model), (0, 1))
    else:
        with pytest.raises(MetakeError, match="another model"):
            statistics.check(EditableModel(model), (0, 1))


def test_collect_saves_within_a_twentieth_of_the_time(tokenizer, tmp_path, monkeypatch):
    """Keeping takes at most a twentieth of the time.

    Of a clock on which a pass takes 1 s and keeping 3 s: after 10 s at first, then after 60.
    """
    clock, kept, second_moment = [0.0], [], covariance.second_moment

    def summed(keys):
        clock[0] += 1
        return second_moment(keys)

    def write(*_):
        kept.append(clock[0])
        clock[0] += 3

    monkeypatch.setattr(covariance.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(covariance, "second_moment", summed)
    monkeypatch.setattr(covariance, "write_tensors", write)
    collect(
        EditableModel(tiny("gpt2")),
        tokenizer,
        TEXT,
        (0,),
        tokens=700,
        window=4,
        rows=1,
        partial=tmp_path / "p",
        keep_every=10,
        progress=False,
    )
    assert kept == [10, 73, 136]
