"""Numbers of the calibration, chosen on some models and judged on others (experiments/compare_calibration.py)."""

from __future__ import annotations

from dataclasses import dataclass

ALIKE = 0.3  # mean |cos| of the prompts' keys above which facts are read at the subject's last token
TOO_ALIKE = 0.6  # the same above which they never are if subjects differ; in between, the reach at both tokens decides
TOLERANCE = 0.05  # reach that a later window of layers may lack and still be preferred
REQUESTS = 4  # virtual edits per window
STEPS = 6  # gradient steps of each loop of a virtual edit
CLOSED_STEPS = (
    60  # of the upper level; requests stop once their target is reached, so only hard ones take them all
)


@dataclass(frozen=True)
class Constants:
    """Strength and step size of a calibrated method; they are the same on every model.

    Attributes:
        attenuation: median eta of the first batch's keys.
        step: Adam's learning rate, per root mean square of the residual stream at the lookup token.
    """

    attenuation: float
    step: float


CONSTANTS = {  # by the planner's kind
    "open-loop": Constants(0.9, 0.2),
    "compensated": Constants(0.7, 0.2),
    "closed-loop": Constants(0.7, 0.1),
}
