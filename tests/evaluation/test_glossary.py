"""The glossary of a page."""

from metake.evaluation.glossary import GLOSSARY, LABELS, UNITS, explain


def test_explain_has_what_is_shown_once_and_nothing_else():
    assert explain(["method", "KL", "Eff", "KL"]) == {
        "KL (nats)": GLOSSARY["kl"],
        "Eff (%)": GLOSSARY["efficacy"],
    }


def test_every_label_can_be_explained():
    assert len(explain(LABELS.values())) == len(LABELS)
    assert set(UNITS) <= set(LABELS)
