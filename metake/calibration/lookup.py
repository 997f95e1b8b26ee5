"""Choice of the token at which keys are read: by separability, and by reach where separability does not decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metake.calibration.constants import ALIKE, TOLERANCE, TOO_ALIKE
from metake.prompts import Lookup

LOOKUPS: tuple[Lookup, ...] = ("subject", "prompt")


def choose_lookup(cosine: Mapping[str, float], reach_at: Callable[[Lookup], float]) -> tuple[Lookup, str]:
    """Token at which keys are read, and the reason.

    The prompt's last token up to a mean |cos| of `ALIKE`, or if facts are not more alike there than at the subject's. The
    subject's last token if the prompt's is above `TOO_ALIKE` and its own up to `ALIKE`. Between them, as for a few facts
    with the same prompt, the subject's unless the prompt's reaches more, by `TOLERANCE` or twice as much.

    Args:
        cosine: lookup -> mean |cos| of the keys of different facts.
        reach_at: target probability that a few virtual edits reach at a lookup; not called if separability decides.

    Returns:
        The lookup, and a line.
    """
    prompt, subject = cosine["prompt"], cosine["subject"]
    measured = (
        f"keys of different facts have a mean |cos| of {prompt:.2f} at the prompt's last token "
        f"and {subject:.2f} at the subject's"
    )
    if prompt <= max(ALIKE, subject):
        return "prompt", f"lookup prompt: {measured} (the prompt's is taken up to {ALIKE})"
    if prompt > TOO_ALIKE and subject <= ALIKE:
        return "subject", f"lookup subject: {measured} (the prompt's is taken up to {ALIKE})"
    reached = {lookup: reach_at(lookup) for lookup in LOOKUPS}
    more = reached["prompt"] > min(reached["subject"] + TOLERANCE, 2 * reached["subject"])
    lookup: Lookup = "prompt" if more else "subject"
    return lookup, (
        f"lookup {lookup}: {measured}; a few virtual edits reach a target probability of {reached['prompt']:.2f} "
        f"and {reached['subject']:.2f}"
    )
