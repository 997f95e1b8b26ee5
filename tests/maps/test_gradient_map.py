"""Maps of keys and gradients: gradients against autograd in fp64, and the maps that are equal."""

from itertools import pairwise

import pytest
import torch
from torch.func import functional_call

from metake.applied import swapped_weights
from metake.maps.fitting import Fitting
from metake.maps.gradient_map import GradientMap, MapSpec, backward
from metake.maps.losses import PostEditLoss
from metake.maps.networks import IdentityNetwork, ResidualNetwork
from metake.maps.updates import LeastSquares, Orthogonal, OuterProduct
from metake.methods.learned_map import LearnedMap
from metake.methods.state import State
from metake.methods.ultraedit import UltraEdit
from metake.models.editable import EditableModel
from metake.models.tokens import encode
from metake.planners.normalized_gradient import answer_keys_and_gradients
from metake.prompts import Batch
from tests.cases import tiny

LAYERS = (1, 2)
NETWORKS = {
    "residual": ResidualNetwork(rank=5),
    "before": ResidualNetwork(rank=5, blocks=1, scaling="before"),
}
UPDATES = {part.kind: part for part in (LeastSquares(), Orthogonal(), OuterProduct())}


@pytest.fixture(scope="module")
def wide(demo):
    """In fp64 throughout, unlike the norms of Llama."""
    return EditableModel(tiny("gpt2").double(), demo.tokenizer)


def perturbed(spec, model, seed=0):
    """A map in fp64 that is not the identity."""
    made = GradientMap(spec, model.d_k, model.d_v, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def signals_of(model, requests):
    return answer_keys_and_gradients(model, Batch.build(model, requests, ()).edits, LAYERS)


def dense_change(made, signals, moments):
    """Changes of the weights by dense solves, as MALMEN's equations have them."""
    changes, previous = {}, None
    for layer, pair in made.pairs(signals, moments).items():
        step = pair.step
        if not made.spec.update.solves:
            changes[layer] = -step * pair.mapped_gradient.T @ pair.mapped_key
            continue
        value = -step * (pair.key * pair.mapped_key).sum(1, keepdim=True) * pair.mapped_gradient
        if made.spec.update.kind == "orthogonal" and previous is not None:
            value = value - torch.einsum("ij,ij", value, previous) / (previous**2).sum() * previous
        previous = value
        ridge = pair.log_lambda.exp() * torch.eye(pair.key.shape[1]).double()
        changes[layer] = torch.linalg.solve(pair.key.T @ pair.key + ridge, pair.key.T @ value).T
    return changes


def plain_loss(model, records, changes, nll=1.0, locality=1.0):
    """NLL and divergence by whole passes of the model, one row at a time."""
    names = {n: f"{model.module_name(n)}.weight" for n in changes}
    weights = {names[n]: (model.weight(n) + change).T for n, change in changes.items()}  # Conv1D
    total = torch.zeros((), dtype=torch.float64)
    for record in records:
        row = encode(model.tokenizer, record.rephrase, record.request.target_new)
        scores = functional_call(model.model, weights, (torch.tensor([row.ids]),)).logits[0].log_softmax(-1)
        total = total - nll * scores[list(row.predicting), list(row.answer_ids)].mean() / len(records)
        row = encode(model.tokenizer, record.locality, record.locality_answer)
        at = list(row.predicting)
        scores = functional_call(model.model, weights, (torch.tensor([row.ids]),)).logits[0].log_softmax(-1)
        before = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1).detach()
        kl = (before[at].exp() * (before[at] - scores[at])).sum(1).mean()
        total = total + locality * kl / len(records)
    return total


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("network", NETWORKS)
def test_fit_gradient_equals_autograd_through_dense_solve(wide, records, network, update):
    """Gradients of the post-edit loss by every parameter of the map: dL/dD = (dL/dW) Q against plain autograd."""
    spec = MapSpec(LAYERS, NETWORKS[network], UPDATES[update], 0.1)
    made, part = perturbed(spec, wide), records[:3]
    signals = made.signals(signals_of(wide, [r.request for r in part]))
    moments = made.pooled(signals.moments.values())
    factors = made(signals, moments)
    loss, gradients = PostEditLoss.of(wide, part, LAYERS, answer_weight=0.7, locality=0.4)(
        {n: f.left.detach() @ f.right.detach().T for n, f in factors.items()}
    )
    backward(factors, gradients)
    found = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    wanted = plain_loss(wide, part, dense_change(made, signals, moments), 0.7, 0.4)
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-9)
    wanted = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-10)
    assert ("log_lambda" in found) is spec.update.solves
    assert all(gradient.abs().max() > 0 for name, gradient in found.items() if "lambda" not in name)


def test_malmen_with_the_identity_map_is_ultraedit(demo, records):
    """MALMEN without a network, with lambda 0 and normalized keys in its product, is UltraEdit."""
    spec = MapSpec(LAYERS, IdentityNetwork(), LeastSquares(inner="normalized"), 1e-3, "mean")
    plain = GradientMap(spec, demo.d_k, demo.d_v)
    learned = LearnedMap(layers=LAYERS, label="", reduction="mean", lr=1e-3)
    state = State(learned=plain)
    ultra = UltraEdit(layers=LAYERS, lr=1e-3)
    other = State()
    for part in (records[:4], records[4:9]):
        requests = [r.request for r in part]
        found, state, _ = learned.step(demo, requests, state, lambda: None)
        wanted, other, _ = ultra.step(demo, requests, other, lambda: None)
        for layer in LAYERS:
            torch.testing.assert_close(found.to_dense(layer), wanted.to_dense(layer), rtol=1e-9, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_unfitted_map_is_a_plain_gradient_step(demo, records, network):
    """A network that was not fitted changes no pair; a fitted one would."""
    spec = MapSpec(LAYERS, NETWORKS[network], LeastSquares(), 1e-3)
    made = GradientMap(spec, demo.d_k, demo.d_v, seed=3)
    signals = made.signals(signals_of(demo, [r.request for r in records[:4]]))
    moments = made.pooled(signals.moments.values())
    plain = GradientMap(MapSpec(LAYERS, IdentityNetwork(), LeastSquares(), 1e-3), demo.d_k, demo.d_v)
    for layer, change in plain(signals, moments).items():
        found = made(signals, moments)[layer]
        torch.testing.assert_close(found.left, change.left, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found.right, change.right, rtol=0, atol=0)
    made.network.blocks[0].bias.add_(1.0)
    assert not torch.allclose(made(signals, moments)[1].left, plain(signals, moments)[1].left, rtol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_those_of_the_published_equations(name):
    """MALMEN: y + s relu(y A B + b) + m. MEND: y + relu(s (y A B + b) + m)."""
    network = NETWORKS[name].build(7, 2, seed=4).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    rows = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    wanted = rows
    for block in network.blocks:
        inner = wanted @ (block.a @ block.b) + block.bias
        if name == "residual":
            wanted = wanted + block.scale[1] * inner.relu() + block.shift[1]
        else:
            wanted = wanted + (block.scale[1] * inner + block.shift[1]).relu()
    torch.testing.assert_close(network(rows, 1), wanted, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_gradients_of_the_sum_do_not_depend_on_the_batch(wide, records):
    """With the moments of the fit, a request's pair is the same in every batch and at every place of it."""
    made = perturbed(MapSpec(LAYERS, NETWORKS["residual"], LeastSquares(), 0.1), wide)
    requests = [r.request for r in records[:5]]
    made.moments = made.pooled(made.signals(signals_of(wide, requests)).moments.values())

    def pairs(batch, at):
        signals = made.signals(signals_of(wide, batch))
        own = signals.owners == at
        return made.pairs(signals, made.pooled([]))[1].mapped_gradient[own]

    for batch, at in ((requests, 2), (requests[::-1], 2), (requests[2:3], 0), (requests[1:4], 1)):
        torch.testing.assert_close(pairs(batch, at), pairs(requests, 2), rtol=1e-7, atol=1e-10)


@torch.no_grad()
def test_change_does_not_depend_on_the_order_of_a_batch(wide, records):
    made = perturbed(MapSpec(LAYERS, NETWORKS["residual"], LeastSquares(), 0.1), wide)
    requests = [r.request for r in records[:5]]

    def change(batch):
        signals = made.signals(signals_of(wide, batch))
        factors = made(signals, made.pooled(signals.moments.values()))
        return {n: f.left @ f.right.T for n, f in factors.items()}

    found, wanted = change(requests[::-1]), change(requests)
    for layer in LAYERS:
        torch.testing.assert_close(found[layer], wanted[layer], rtol=1e-7, atol=1e-11)


def test_batches_of_a_fit_drop_no_record():
    """A number of records that no batch size divides: every record once per epoch, in an order of its own."""
    fitting = Fitting(batch=4, length=2, seed=1)
    seen = [r for step in range(11) for batch in fitting.batches(range(11), step) for r in batch]
    epochs = [seen[i : i + 11] for i in range(0, 88, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert len(fitting.batches(range(11), 0)) == 2


def test_held_out_records_share_no_subject_with_the_others(records):
    """A fact may have several records; a share of the subjects is held out, with all their records."""
    doubled = [*records, *records]
    train, held = Fitting(held_out=0.25, seed=5).split(doubled)
    names = [{r.request.subject for r in part} for part in (train, held)]
    assert not names[0] & names[1]
    assert len(held) == 6
    assert len(train) == 18
    assert Fitting(held_out=0.0).split(records) == (records, [])


def test_preview_of_a_map_is_the_attenuation_of_its_ridge(demo, records, tmp_path):
    """eta of a mean key k is k.k / (k.k + e^lambda)."""
    made = GradientMap(MapSpec(LAYERS, NETWORKS["residual"], LeastSquares(), 1e-3), demo.d_k, demo.d_v)
    with torch.no_grad():
        made.log_lambda.copy_(torch.tensor([0.5, 2.0]))
    method, requests = LearnedMap(layers=LAYERS), [r.request for r in records[:3]]
    signals = signals_of(demo, requests)
    found = method.preview(demo, requests, State(learned=made))
    for at, layer in enumerate(LAYERS):
        square = signals.mean(signals.keys[layer]).square().sum(1)
        wanted = square / made.log_lambda[at].detach().exp()
        torch.testing.assert_close(found.rho[at].float(), wanted, rtol=1e-4, atol=0)


@torch.no_grad()
def test_horse_writes_orthogonal_value_differences(wide, records):
    """Neighboring layers are orthogonal as they are written; those of the map itself are not."""
    spec = MapSpec((0, 1, 2), NETWORKS["residual"], Orthogonal(), 0.1)
    made, requests = perturbed(spec, wide), [r.request for r in records[:4]]
    signals = answer_keys_and_gradients(wide, Batch.build(wide, requests, ()).edits, (0, 1, 2))
    pairs = made.pairs(signals, made.pooled(signals.moments.values()))

    def cosines(update):
        d = list(update.values(pairs).values())
        return [abs(float((a * b).sum() / (a.norm() * b.norm()))) for a, b in pairwise(d)]

    assert max(cosines(Orthogonal())) < 1e-12
    assert max(cosines(LeastSquares())) > 1e-3


@torch.no_grad()
def test_mend_of_a_batch_is_the_sum_over_its_requests(wide, records):
    """Nothing is solved and the moments are those of the fit, so edits of one batch do not interact."""
    made = perturbed(MapSpec(LAYERS, NETWORKS["before"], OuterProduct(), 0.1), wide)
    requests = [r.request for r in records[:4]]
    made.moments = made.pooled(made.signals(signals_of(wide, requests)).moments.values())

    def change(batch):
        factors = made(made.signals(signals_of(wide, batch)), made.pooled([]))
        return {n: f.left @ f.right.T for n, f in factors.items()}

    together, alone = change(requests), [change([request]) for request in requests]
    for layer in LAYERS:
        torch.testing.assert_close(together[layer], sum(part[layer] for part in alone), rtol=1e-7, atol=1e-10)


def test_sequence_of_a_fit_is_edits_in_a_row(wide, records):
    """Loss and gradients of RLEdit's sequence against batches that are written one after the other."""
    spec = MapSpec(LAYERS, NETWORKS["residual"], LeastSquares(), 0.05)
    made, parts = perturbed(spec, wide), [records[:3], records[3:6]]
    fitting = Fitting(batch=3, length=2, depth=2, decay=0.5, locality=0.3, norm=0.1)
    loss, _ = fitting.loss(made, wide, parts, running=True, learn=True)
    found = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    changes, total, seen = dict.fromkeys(LAYERS, 0.0), 0.0, []
    for step, part in enumerate(parts):
        weights = {n: wide.weight(n) + c for n, c in changes.items()} if step else {}
        with swapped_weights(wide, {n: w.detach() for n, w in weights.items()}):
            signals = made.signals(signals_of(wide, [r.request for r in part]))
        seen += list(signals.moments.values())
        update = dense_change(made, signals, made.pooled(seen))
        # the changes of earlier batches are constants in the gradient of this one, as published
        changes = {n: (changes[n].detach() if step else 0.0) + update[n] for n in LAYERS}
        recent = [plain_loss(wide, p, changes, 1.0, 0.3) for p in parts[: step + 1]]
        total = total + sum(0.5**age * value for age, value in enumerate(reversed(recent))) / 2
        total = total + 0.1 * sum(u.square().sum() for u in update.values()) / 2
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-9)
    wanted = {name: parameter.grad for name, parameter in made.named_parameters()}
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-10)
