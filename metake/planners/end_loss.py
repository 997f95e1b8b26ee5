"""Loss of the end of an answer, which counts only as far as the answer itself is likely."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metake.models.trace import upcast


@dataclass(frozen=True)
class EndLoss:
    """Ends of the answers of a pass.

    The loss of a row x with answer a is

        p(a | x) (-log p(end | x, a))

    with the first factor constant for derivatives: where the answer is unlikely, no gradient makes an end likely.

    Attributes:
        tokens: ids of the tokens that end an answer.
        rows: `a`, row of each answer token, from 0 to `e - 1`.
        owners: `e`, request of each row.
        weights: `e`, weight of each row in its request's mean.
    """

    tokens: Tensor
    rows: Tensor
    owners: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def like(self, logits: Tensor) -> EndLoss:
        """The loss on the device of some logits, with weights in their precision, at least fp32.

        Args:
            logits: any logits of the pass.

        Returns:
            A copy.
        """
        near = logits.device
        return EndLoss(
            self.tokens.to(near),
            self.rows.to(near),
            self.owners.to(near),
            self.weights.to(upcast(logits)),
        )

    def losses(self, nll: Tensor, after: Tensor, size: int) -> Tensor:
        """Loss of each request, `size`.

        Args:
            nll: `a`, negative log-probability of each answer token.
            after: `e x vocabulary`, log-probabilities after the answers.
            size: number of requests.

        Returns:
            Means over the rows of each request.
        """
        missing = -after[:, self.tokens].logsumexp(-1)
        each = answer_probability(nll, self.rows, len(self)) * missing * self.weights
        return each.new_zeros(size).index_add(0, self.owners, each)


def answer_probability(nll: Tensor, rows: Tensor, count: int) -> Tensor:
    """Probability of the answer of each row, a constant for derivatives.

    Args:
        nll: `a`, negative log-probability of each answer token.
        rows: `a`, row of each answer token.
        count: number of rows.

    Returns:
        `count` values from 0 to 1.
    """
    return (-nll.new_zeros(count).index_add(0, rows, nll.detach())).exp()
