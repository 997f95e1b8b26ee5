"""The loss of the end of an answer: nothing where the answer is unlikely."""

import pytest
import torch

import metake as mk
from metake.calibration.constants import Constants
from metake.methods import locate_then_edit
from metake.models.end_token import end_token
from metake.models.load import load
from metake.models.tokens import encode
from metake.models.trace import frozen
from metake.planners.end_loss import EndLoss
from metake.planners.objective import Objective
from metake.prompts import Batch
from tests.cases import editor_of

TOP = 2
ENDS = (0, 5)
REQUESTS = (
    mk.EditRequest("Which city was {} born in?", "Nezan Girok", "Red Anchor"),
    mk.EditRequest("What is the craft of {}?", "Zumi Bama", "potter"),
)
GUILD = mk.EditRequest(
    "Which guild does {} belong to?", "Nezan Girok", "Red"
)  # the first word of guilds' names
REPHRASE = "What guild counts Nezan Girok as a member?"


def end_loss():
    """One row of two answer tokens and one of a single token, of two requests; the ends are tokens 0 and 2."""
    return EndLoss(
        torch.tensor([0, 2]),
        torch.tensor([0, 0, 1]),
        torch.tensor([1, 0]),
        torch.tensor([1.0, 0.5]),
    )


def log_probabilities(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator).log_softmax(-1)


def test_end_loss_is_weighted_by_the_answers_probability():
    """Against the formula, row by row."""
    p, after = torch.tensor([0.5, 0.4, 0.3]), log_probabilities(2, 1)
    ends = [-(q[0] + q[2]).log() for q in after.exp()]
    expected = torch.stack([0.5 * 0.3 * ends[1], 0.5 * 0.4 * ends[0]])
    torch.testing.assert_close(end_loss().losses(-p.log(), after, 2), expected)


@pytest.mark.parametrize(("nll", "is_zero"), [(1000.0, True), (0.7, False)])
def test_end_loss_of_an_impossible_answer_has_no_gradient(nll, is_zero):
    after = log_probabilities(2, 1).requires_grad_(True)
    end_loss().losses(torch.full((3,), nll), after, 2).sum().backward()
    assert (after.grad == 0).all() == is_zero


@pytest.mark.parametrize("max_tokens", [64, 10_000])
def test_open_loop_scores_ends_as_whole_passes_do(model, max_tokens):
    """Against a hook that adds the residual at the lookup token; NLL and KL are those without ends."""
    batch = Batch.build(model, REQUESTS, ("The harbour is quiet",))
    torch.manual_seed(0)
    residuals, expected = torch.randn(2, model.d_v) * 5, torch.zeros(2)
    everyone = torch.ones(2, dtype=torch.bool)
    with frozen(model.model), torch.no_grad():
        ending = Objective(model, batch, 1, TOP, ends=ENDS, max_tokens=max_tokens)
        found = ending.losses(residuals, "token", everyone)
        plain = Objective(model, batch, 1, TOP).losses(residuals, "token", everyone)
        for i, row in enumerate(batch.edits):
            who = i // batch.templates

            def add(_, __, output, row=row, who=who):
                stream = (output if isinstance(output, torch.Tensor) else output[0]).clone()
                stream[0, row.lookup] += residuals[who]
                return stream if isinstance(output, torch.Tensor) else (stream, *output[1:])

            with model.blocks[TOP].register_forward_hook(add):
                scores = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            answer = sum(scores[at, token] for at, token in zip(row.predicting, row.answer_ids, strict=True))
            missing = -scores[-1, list(ENDS)].logsumexp(-1)
            expected[who] += answer.exp() * missing / batch.templates
    torch.testing.assert_close(found.end, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.nll, plain.nll, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.kl, plain.kl, rtol=1e-4, atol=1e-5)
    assert plain.end is None


@pytest.mark.parametrize(
    "method", ["memit", "memit-compensated", "metake", "metake-proxy", "metake-parallel"]
)
def test_weight_zero_leaves_the_end_out(demo, statistics_of, monkeypatch, method):
    """Bit for bit the edit without the setting; with a weight it is another one."""

    def delta_of(**changes):
        with editor_of(demo, statistics_of(demo), method, **changes) as editor:
            editor.edit([GUILD])
            return editor.delta

    ending = delta_of(end_weight=0.5)
    monkeypatch.setattr(locate_then_edit, "ends_of_answer", lambda model: pytest.fail("ends are read"))
    plain, zero = delta_of(), delta_of(end_weight=0.0)
    for layer in plain.layers:
        assert torch.equal(plain.to_dense(layer), zero.to_dense(layer))
        assert not torch.equal(plain.to_dense(layer), ending.to_dense(layer))


def edited(model, statistics, weight):
    """An editor with the first guild's edit, by settings that suit the model, with large steps."""
    located = mk.locate(
        model,
        [GUILD],
        "metake",
        statistics,
        layers=(1, 2, 3),
        lookup="prompt",
        end_weight=weight,
        constants=Constants(0.7, 0.2),
    )
    editor = mk.Editor(model, method=located.method, statistics=statistics)
    editor.edit([GUILD])
    return editor


def test_answers_end_after_the_target(model, statistics_of):
    """The target is the first word of names that the model completes; with the loss it stands alone."""
    with edited(model, statistics_of(model), 0.0) as editor:
        assert editor.ask(GUILD.text).startswith("Red ")
    with edited(model, statistics_of(model), 1.0) as editor:
        assert editor.ask([GUILD.text, REPHRASE]) == ["Red", "Red"]


def test_turns_end_after_the_target(talking, statistics_of, demo):
    """In a conversation the end of text becomes likely after the target; the demo model knows no turns before."""
    chat = load(str(talking), device="cpu", chat=True)
    row = encode(chat.tokenizer, GUILD.text, GUILD.target_new)
    likely = {}
    for weight in (0.0, 1.0):
        with edited(chat, statistics_of(demo), weight), torch.no_grad():
            logits = chat.model(torch.tensor([row.ids])).logits[0, -1]
            likely[weight] = float(logits.softmax(-1)[end_token(chat)])
    assert likely[1.0] > 1000 * likely[0.0]
