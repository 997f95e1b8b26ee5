"""Losses of watched positions on distributions that are written down here."""

import pytest
import torch
from scipy.stats import entropy

from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import Row
from metake.planners.micro_batch import MicroBatch, ScoredPositions
from metake.prompts import RowSpec

# three answer tokens of two requests, then three guards; probabilities over a vocabulary of three
ANSWERS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
NOW = torch.tensor([[0.2, 0.2, 0.6], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
THEN = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.1, 0.7], [0.3, 0.3, 0.4]])


def scored_positions(**changes):
    fields = {
        "positions": (torch.arange(6), torch.zeros(6, dtype=torch.long)),
        "labels": torch.tensor([0, 2, 1]),
        "answer_weights": torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64),
        "owners": torch.tensor([0, 0, 1, 1, 1, 0]),
        "kl_weights": torch.tensor([0.25, 0.75, 1.0], dtype=torch.float64),
        "reference": THEN.log(),
    }
    return ScoredPositions(**{**fields, **changes})


def logits():
    """Of those probabilities, each row shifted by a constant that softmax does not see."""
    shifts = torch.tensor([[3.0], [-2.0], [0.5], [7.0], [0.0], [-1.0]])
    return torch.cat([ANSWERS, NOW]).log() + shifts


@pytest.mark.parametrize("kl_from_unedited", [True, False])
def test_micro_batch_losses_are_weighted_sums(kl_from_unedited):
    """Losses are weighted sums of NLL and KL.

    `kl_from_unedited` is KL(unedited || edited), (12); otherwise KL(edited || unedited), MEMIT's.
    """
    scores = logits()
    nll, kl, _ = scored_positions().like(scores).losses(scores, 2, kl_from_unedited)
    expected = -torch.stack([0.5 * ANSWERS[0, 0].log() + 0.5 * ANSWERS[1, 2].log(), ANSWERS[2, 1].log()])
    torch.testing.assert_close(nll, expected)
    each = [
        float(entropy(b, a) if kl_from_unedited else entropy(a, b)) for a, b in zip(NOW, THEN, strict=True)
    ]
    torch.testing.assert_close(kl, torch.tensor([each[2], 0.25 * each[0] + 0.75 * each[1]]))


def test_micro_batch_without_kl_prompts_has_no_kl():
    """Rows without KL prompts have no divergence."""
    scores = logits()[:3]
    alone = scored_positions(
        owners=torch.tensor([0, 0, 1]), kl_weights=torch.empty(0), reference=torch.empty(0)
    )
    nll, kl, _ = alone.like(scores).losses(scores, 2, False)
    assert kl.tolist() == [0, 0]
    torch.testing.assert_close(nll, scored_positions().like(logits()).losses(logits(), 2, False)[0])


@pytest.mark.parametrize(
    ("given", "scored"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2],
)
def test_micro_batch_scores_in_the_logits_precision_or_fp32(given, scored):
    """Scores are as precise as the logits and never below fp32.

    Half-precision logits are summed in fp32; reference, shares and weights follow.
    """
    scores = logits().to(given)
    there = scored_positions(reference=THEN.log().to(scored)).like(scores)
    assert {t.dtype for t in (there.answer_weights, there.kl_weights, there.reference)} == {scored}
    nll, kl, _ = there.losses(scores, 2, False)
    assert nll.dtype == kl.dtype == scored
    log = scores.to(scored).log_softmax(-1)
    torch.testing.assert_close(nll[1], -log[2, 1], rtol=1e-6, atol=0)


def micro_batch(
    tokens: PrefixBatch, owners: list[int], above: PrefixSuffix, gates: PrefixSuffix
) -> MicroBatch:
    """Rows of one token, whose answers are not scored here."""
    specs = [RowSpec(owner, Row((0,), 0), has_residual=True, template=0) for owner in owners]
    return MicroBatch(specs, tokens, above, None, gates, [], 1, [0] * len(owners))


def test_micro_batch_adds_a_shift_in_fp32():
    """A shift is added in fp32 and rounded once.

    In bf16, 1 + (2^-8 + 2^-17) rounds up to 1 + 2^-7; with the shift rounded first, to 2^-8, it is 1.
    """
    split = PrefixBatch.of(torch.zeros(1, 1, dtype=torch.long), [1], [0], [0])
    stream = torch.ones(1, 1, 1, dtype=torch.bfloat16)
    rows = micro_batch(split, [0], PrefixSuffix(stream), PrefixSuffix(torch.ones(1, 1, 2)))
    moved = rows.shifted(torch.full((2, 1), 2.0**-9 + 2.0**-18)).suffix
    assert moved.dtype == torch.bfloat16
    assert float(moved) == 1 + 2.0**-7


def test_micro_batch_gate_scales_own_or_every_residual():
    """h_t + gate_t r of the row's request; in the joint form the sum over all requests, in beginnings too."""
    split = PrefixBatch.of(torch.zeros(2, 1, dtype=torch.long), [1, 1], [0, 0], [0, 0])
    residuals, owners = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [1, 0]
    stream = torch.full((2, 1, 2), 10.0)
    single = micro_batch(split, owners, PrefixSuffix(stream), PrefixSuffix(torch.tensor([[2.0], [5.0]])))
    assert single.shifted(residuals).suffix.tolist() == [[[10.0, 12.0]], [[15.0, 10.0]]]
    gates = torch.tensor([[[2.0, 3.0]], [[5.0, 7.0]]])
    joint = micro_batch(split, owners, PrefixSuffix(stream, stream + 1), PrefixSuffix(gates, -gates))
    moved = joint.shifted(residuals)
    assert moved.suffix.tolist() == [[[12.0, 13.0]], [[15.0, 17.0]]]
    assert moved.prefix.tolist() == [[[9.0, 8.0]], [[6.0, 4.0]]]
