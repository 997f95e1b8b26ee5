"""The glossary of a page."""

import numpy as np

from metake.evaluation.glossary import GLOSSARY, LABELS, UNITS, explain
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.evaluation.results import Results


def test_explain_lists_what_is_shown_once():
    """Explain has what is shown once and nothing else."""
    assert explain(["method", "KL", "Eff", "KL"]) == {
        "KL (nats)": GLOSSARY["kl"],
        "Eff (%)": GLOSSARY["efficacy"],
    }


def test_explain_covers_every_label():
    assert len(explain(LABELS.values())) == len(LABELS)
    assert set(UNITS) <= set(LABELS)


def test_metric_unit_is_that_of_its_cell():
    """A table multiplies what is a share, a difference of probabilities or a cosine by a hundred, and nothing else."""
    values = {name: np.array([0.5]) for name in PER_RECORD}
    (_, *head), ((_, *cells),) = Results(Measurement(values, 0.5, 0.5, [], []), [], {}).cells()
    names = {label: name for name, label in LABELS.items()}
    for label, cell in zip(head[:-1], cells[:-1], strict=True):
        assert cell == ("50.0" if "cent" in UNITS.get(names[label], "per cent") else "0.50"), label
