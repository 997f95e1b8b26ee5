"""A change apart from its model."""

import pytest
import torch

from metake.deltas import FORMAT, Delta
from metake.errors import MetakeError
from metake.models.editable import EditableModel
from metake.models.trace import run
from metake.tensor_files import write_tensors
from tests.cases import tiny

IDS = torch.tensor([[3, 5, 8, 13]])


@pytest.fixture
def delta(tiny_model):
    torch.manual_seed(0)
    factors = {n: (torch.randn(tiny_model.d_v, 2), torch.randn(tiny_model.d_k, 2)) for n in (1, 3)}
    return Delta(factors, tiny_model.fingerprint(), {"edits": [{"subject": "x"}]})


@torch.no_grad()
def test_delta_applies_the_dense_sum_and_reverts_exactly(tiny_model, delta):
    """Apply is the dense sum and revert is bit exact."""
    before = {n: tiny_model.weight(n).clone() for n in range(4)}
    applied = delta.apply(tiny_model)
    for n in (1, 3):
        torch.testing.assert_close(tiny_model.weight(n), (before[n].double() + delta.to_dense(n)).float())
    assert torch.equal(tiny_model.weight(0), before[0])
    applied.revert()
    assert all(torch.equal(tiny_model.weight(n), before[n]) for n in before)
    applied.revert()  # again: nothing happens
    assert all(torch.equal(tiny_model.weight(n), before[n]) for n in before)


@torch.no_grad()
def test_delta_gives_equal_logits_after_saving(tiny_model, delta, tmp_path):
    with delta.applied(tiny_model):
        wanted = run(tiny_model, IDS).logits
    path = delta.save(tmp_path / "edit")
    for place in (path, path.parent):
        again = Delta.load(place)
        assert again.note == delta.note
        with again.applied(tiny_model):
            assert torch.equal(run(tiny_model, IDS).logits, wanted)


def test_delta_digest_does_not_depend_on_its_note(tiny_model, delta, tmp_path):
    whole = {0: torch.zeros(tiny_model.d_v, tiny_model.d_k)}
    assert Delta(delta.factors, delta.model, {"version": "0"}).digest == delta.digest
    delta.save(tmp_path)
    assert Delta.load(tmp_path).digest == delta.digest
    left, right = delta.factors[1]
    others = [
        Delta(delta.factors, "another", delta.note),
        Delta({**delta.factors, 1: (right.T.contiguous().T, left)}, delta.model),
        Delta({1: delta.factors[1], 2: delta.factors[3]}, delta.model),
        Delta({**delta.factors, 1: (left + 1e-7, right)}, delta.model),
        Delta({**delta.factors, 1: (left.double(), right)}, delta.model),
        Delta(delta.factors, delta.model, {}, whole),
    ]
    assert len({other.digest for other in (*others, delta)}) == 7


@torch.no_grad()
def test_then_equals_one_delta_after_the_other(tiny_model, delta):
    other = Delta(
        {
            0: (torch.randn(tiny_model.d_v, 1), torch.randn(tiny_model.d_k, 1)),
            3: (torch.randn(tiny_model.d_v, 1), torch.randn(tiny_model.d_k, 1)),
        }
    )
    with delta.applied(tiny_model), other.applied(tiny_model):
        wanted = run(tiny_model, IDS).logits
    both = delta.then(other)
    assert list(both.factors) == [0, 1, 3]
    with both.applied(tiny_model):
        torch.testing.assert_close(run(tiny_model, IDS).logits, wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_delta_takes_whole_matrices(tiny_model, delta, tmp_path):
    """A change that is not thin.

    Whole matrices are applied, saved, composed and measured as factors are.
    """
    whole = Delta({}, delta.model, {}, {1: torch.randn(tiny_model.d_v, tiny_model.d_k)})
    both = delta.then(whole)
    assert (both.layers, whole.layers) == ((1, 3), (1,))
    torch.testing.assert_close(both.to_dense(1), delta.to_dense(1) + whole.to_dense(1))
    torch.testing.assert_close(both.then(whole).to_dense(1), delta.to_dense(1) + 2 * whole.to_dense(1))
    assert both.norms()[1] == pytest.approx(float(both.to_dense(1).norm()))
    both.save(tmp_path)
    again = Delta.load(tmp_path)
    before = tiny_model.weight(1).clone()
    for n in both.layers:
        assert torch.equal(again.to_dense(n), both.to_dense(n))
    with again.applied(tiny_model):
        torch.testing.assert_close(tiny_model.weight(1), (before.double() + both.to_dense(1)).float())
    assert torch.equal(tiny_model.weight(1), before)
    broken = Delta({}, "", {}, {1: torch.full((tiny_model.d_v, tiny_model.d_k), float("inf"))})
    with pytest.raises(MetakeError, match="not finite"):
        broken.apply(tiny_model)


def test_norms_need_no_dense_matrix(delta):
    for n, norm in delta.norms().items():
        assert norm == pytest.approx(float(delta.to_dense(n).norm()), rel=1e-4)


def test_applied_restores_after_an_exception(tiny_model, delta):
    before = tiny_model.fingerprint()

    def fails():
        with delta.applied(tiny_model):
            assert tiny_model.fingerprint() != before
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fails()
    assert tiny_model.fingerprint() == before


def test_apply_refuses_what_does_not_fit(tiny_model, delta):
    before = tiny_model.fingerprint()
    wrong = Delta({1: (torch.zeros(3, 1), torch.zeros(tiny_model.d_k, 1))})
    broken = Delta({1: (torch.full((tiny_model.d_v, 1), float("nan")), torch.zeros(tiny_model.d_k, 1))})
    elsewhere = Delta({9: (torch.zeros(tiny_model.d_v, 1), torch.zeros(tiny_model.d_k, 1))})
    foreign = Delta(delta.factors, "0123456789abcdef")
    deeper = Delta(elsewhere.factors, "0123456789abcdef", {"model": "deep"})
    for bad, complaint in (
        (wrong, "another model"),
        (broken, "not finite"),
        (elsewhere, "out of range"),
        (foreign, "another model"),
        (deeper, r"another model \(deep\)"),
    ):
        with pytest.raises(MetakeError, match=complaint):
            bad.apply(tiny_model)
    assert tiny_model.fingerprint() == before
    with torch.no_grad():
        foreign.apply(tiny_model, check=False).revert()


def test_load_names_a_damaged_file(delta, tmp_path):
    path = delta.save(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MetakeError, match=r"delta\.safetensors"):
        Delta.load(tmp_path)
    with pytest.raises(MetakeError, match="no such file"):
        Delta.load(tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_save_keeps_the_precision_of_factors(tmp_path, dtype):
    """Factors are saved as precise as they are.

    Every bit of a change comes back, in the precision it was solved in.
    """
    generator = torch.Generator().manual_seed(0)
    pair = tuple(torch.randn(5, 2, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    whole = torch.randn(4, 4, dtype=torch.float64, generator=generator).to(dtype)
    Delta({1: pair}, "m", {}, {2: whole}).save(tmp_path)
    again = Delta.load(tmp_path)
    for found, saved in zip((*again.factors[1], again.dense_updates[2]), (*pair, whole), strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, saved)


def test_dense_is_factors_and_matrix_together():
    """Dense is factors and whole change together."""
    left, right = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0], [7.0]])
    whole = torch.tensor([[0.5, 0.0, -1.0], [0.0, 0.25, 0.0]])
    delta = Delta({1: (left, right)}, "", {}, {1: whole, 2: whole})
    assert delta.to_dense(1).tolist() == [[3.5, 5.0, 6.0], [6.0, 10.25, 14.0]]
    assert delta.to_dense(2).tolist() == whole.tolist()
    assert delta.to_dense(2).dtype == torch.float64
    assert repr(delta) == "<Delta: 0 edits, layers [1, 2], for the model of any kind>"
    assert repr(Delta({}, "abc", {"edits": [1]})) == "<Delta: 1 edit, layers [], for the model abc>"


def test_norm_of_a_small_change_is_small():
    left, right = torch.tensor([[0.3, 0.0], [0.0, 0.1]]), torch.tensor([[0.2, 0.2], [0.0, 0.1]])
    wanted = (0.06**2 + 0.02**2 + 0.01**2) ** 0.5  # of [[.06, 0], [.02, .01]]
    assert Delta({0: (left, right)}).norms()[0] == pytest.approx(wanted, rel=1e-6)


NO_FLOATS = [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", NO_FLOATS)
@pytest.mark.parametrize("field", ["2.left", "2.whole"])
def test_tensor_of_another_dtype_is_refused_by_name(demo, dtype, field, tmp_path):
    part, pair = torch.zeros(demo.d_v, demo.d_k), (torch.zeros(demo.d_v, 1), torch.zeros(demo.d_k, 1))
    if field == "2.left":
        delta = Delta({2: (pair[0].to(dtype), pair[1])})
    else:
        delta = Delta({}, dense_updates={2: part.to(dtype)})
    kind = str(dtype).removeprefix("torch.")
    for use in (lambda: delta.apply(demo), lambda: delta.save_pretrained(tmp_path / "a", demo)):
        with pytest.raises(MetakeError, match=rf"^delta: {field}: is of dtype {kind}, must be float32 or"):
            use()
    assert not (tmp_path / "a").exists()


def test_model_of_another_dtype_is_named(demo):
    """By the delta's note; without one, among the reasons."""
    other = EditableModel(tiny("gpt2").to(torch.bfloat16))
    pair = (torch.zeros(other.d_v, 1), torch.zeros(other.d_k, 1))
    for note, said in (
        ({"dtype": "float32"}, "dtype: made for a model in float32, the model is in bfloat16; load it with"),
        ({}, "another state of this one, or in another dtype than bfloat16; give the unedited model"),
        ({"dtype": "bfloat16"}, "another state of this one; give the unedited model"),
    ):
        with pytest.raises(MetakeError, match=said):
            Delta({1: pair}, "another", note).apply(other)


@pytest.mark.parametrize(
    ("dtype", "step", "wanted"),
    [
        (torch.float64, 2.0**-50, 1 + 2.0**-50),  # fp32 would lose it
        (
            torch.bfloat16,
            2.0**-8 + 2.0**-18,
            1 + 2.0**-7,
        ),  # rounded to bf16 first, it would be half a step: 1
    ],
)
def test_apply_rounds_the_sum_once(dtype, step, wanted):
    model = EditableModel(tiny("gpt2").to(dtype))
    with torch.no_grad():
        model.weight(1).fill_(1.0)
    whole = torch.full((model.d_v, model.d_k), step, dtype=torch.float64)
    applied = Delta({}, "", {}, {1: whole}).apply(model)
    assert float(model.weight(1)[0, 0]) == wanted
    applied.revert()
    assert float(model.weight(1)[0, 0]) == 1


def test_then_belongs_to_the_first_model():
    """Composition belongs to the first model and lists edits in order."""
    first = Delta({}, "mine", {"edits": ["a"], "method": "memit", "seed": 1})
    second = Delta({}, "theirs", {"edits": ["b", "c"], "method": "rome"})
    both = first.then(second)
    assert both.model == "mine"
    assert both.note == {"edits": ["a", "b", "c"], "method": "rome", "seed": 1}
    assert Delta({}).then(second).note["edits"] == ["b", "c"]
    assert second.then(Delta({})).note["edits"] == ["b", "c"]


def test_then_keeps_the_finer_precision():
    def pair(value, dtype):
        return torch.full((1, 1), value, dtype=dtype), torch.ones(1, 1, dtype=dtype)

    rough, fine = Delta({0: pair(1.0, torch.float32)}), Delta({0: pair(2.0**-40, torch.float64)})
    for both in (rough.then(fine), fine.then(rough)):
        assert float(both.to_dense(0)) == 1 + 2.0**-40


def test_apply_restores_the_model_after_a_failure(monkeypatch):
    """A failure between two layers leaves the model as it was."""
    model = EditableModel(tiny("gpt2"))
    before = [model.weight(n).clone() for n in range(4)]
    whole = torch.ones(model.d_v, model.d_k)
    change = Delta._change

    def fails(self, layer, device):
        if layer == 2:
            raise MemoryError
        return change(self, layer, device)

    monkeypatch.setattr(Delta, "_change", fails)
    with pytest.raises(MemoryError):
        Delta({}, "", {}, {1: whole, 2: whole}).apply(model)
    assert all(torch.equal(model.weight(n), before[n]) for n in range(4))


def test_apply_checks_every_part_before_writing():
    """Every part of a change is checked before any is written."""
    model = EditableModel(tiny("gpt2"))
    before = model.fingerprint()
    left, right = torch.zeros(model.d_v, 1), torch.zeros(model.d_k, 1)
    whole = torch.zeros(model.d_v, model.d_k)
    for broken in (
        Delta({0: (left, right), 1: (left, right + float("nan"))}),
        Delta({0: (left, right)}, "", {}, {0: whole + float("inf")}),
    ):
        with pytest.raises(MetakeError, match="not finite; nothing was changed"):
            broken.apply(model)
    with pytest.raises(
        MetakeError, match=rf"layer 0 is {model.d_v} x 3, the model's {model.d_v} x {model.d_k}"
    ):
        Delta({0: (left, torch.zeros(3, 1))}).apply(model)
    with pytest.raises(MetakeError, match="another model"), Delta({0: (left, right)}, "other").applied(model):
        pass
    with Delta({0: (left, right)}, "other").applied(model, check=False):
        pass
    assert model.fingerprint() == before


def test_load_refuses_a_file_without_a_factor(tmp_path):
    write_tensors(
        tmp_path / "delta.safetensors", FORMAT, {"1.left": torch.zeros(2, 1)}, {"model": "", "note": {}}
    )
    with pytest.raises(MetakeError, match=r"delta\.safetensors: holds no delta; give what metake edit wrote"):
        Delta.load(tmp_path)


def test_norms_of_canceling_changes_are_small():
    """Norms of changes that cancel are small numbers.

    Three pairs that add up to nothing: rounding may leave a square below zero.
    """
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        left, right = torch.randn(20, 1, generator=generator), torch.randn(30, 1, generator=generator)
        delta = Delta({0: (torch.cat([left, -left / 3, -2 * left / 3], 1), right.expand(-1, 3))})
        assert delta.norms()[0] == pytest.approx(0, abs=1e-2 * float(left.norm() * right.norm()))


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        (lambda: Delta({}).then({}), "delta: only another delta can follow, not dict"),
        (lambda: Delta({}).save(3), "Delta.save: folder: must be a path (str or Path), not int"),
        (lambda: Delta.load(None), "Delta.load: folder: must be a path (str or Path), not NoneType"),
    ],
)
def test_delta_names_what_is_no_delta_or_folder(use, complaint):
    with pytest.raises(MetakeError) as raised:
        use()
    assert str(raised.value) == complaint


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dense_delta_is_added_without_a_copy_in_fp64(tiny_model, monkeypatch, dtype):
    """The weight is the rounded sum; a dense update alone needs no matrix in fp64, for its norm neither."""
    model = EditableModel(tiny_model.model.to(dtype))
    change = torch.randn(model.d_v, model.d_k)
    delta, before = Delta({}, dense_updates={1: change}), model.weight(1).clone()
    wanted = delta.to_dense(1)
    monkeypatch.delattr(Delta, "to_dense")
    exact = torch.promote_types(dtype, torch.float32)
    with delta.applied(model):
        assert torch.equal(model.weight(1), (before.to(exact) + change.to(exact)).to(dtype))
    assert torch.equal(model.weight(1), before)
    assert delta.norms()[1] == pytest.approx(float(wanted.norm()), rel=1e-12)


@torch.no_grad()
def test_then_adds_dense_updates_and_keeps_factors(tiny_model, delta):
    one, two = (torch.randn(tiny_model.d_v, tiny_model.d_k) for _ in range(2))
    total = delta.then(Delta({}, dense_updates={1: one})).then(Delta({}, dense_updates={1: two, 2: one}))
    assert total.layers == (1, 2, 3)
    torch.testing.assert_close(total.to_dense(1), delta.to_dense(1) + one + two, rtol=1e-6, atol=1e-6)
    assert total.norms()[1] == pytest.approx(float(total.to_dense(1).norm()))
    assert total.norms()[2] == pytest.approx(float(one.norm()))
