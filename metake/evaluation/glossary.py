"""Definitions of the metrics in tables and result files; copied into each result file."""

from __future__ import annotations

from collections.abc import Iterable

from metake.evaluation.probes import MEASURES, split_name

GLOSSARY: dict[str, str] = {
    "efficacy": "share of the target's tokens that are the most likely ones on the edited prompt, with "
    "the target's earlier tokens given (teacher-forced); mean over records. Published as Efficacy.",
    "generalization": "efficacy on the rephrased prompt. Published as Generalization.",
    "specificity": "share of the true answer's tokens that are the most likely ones on an unrelated prompt (teacher-forced). "
    "Published as Specificity; limited by the facts that the unedited model knows.",
    "agreement": "on the same unrelated prompts, share of answer tokens whose most likely token is the "
    "unedited model's.",
    "same_subject": "agreement with the unedited model on other prompts about the edited subject: the "
    "record's own, without those that another record of the run edits, or three generic ones (next token) "
    "where it has none.",
    "generation": "share of records whose greedy continuation of the edited prompt equals the target. The continuation is "
    "free-running, has as many lines as the target, and is compared without a final full stop; the model's generation "
    "settings, such as a repetition penalty, are ignored.",
    "generation_rephrase": "generation on the rephrased prompt.",
    "generation_start": "share of records whose greedy continuation of the edited prompt starts with the target, "
    "followed by the end of a word (`Mal` does not start `Malak`; in scripts without spaces between words, a target may "
    "end anywhere).",
    "wild_exact": "WILD's Reliability, by exact match: share of records whose complete greedy answer to the edited prompt equals "
    "the target after normalization (lower case; without ASCII punctuation and the articles a, an, the). An answer ends at an "
    "end-of-text token, a line break or a full stop; no target is longer than the limit of tokens. `protocol` has the details.",
    "wild_exact_rephrase": "wild_exact on the rephrased prompt. WILD's Generalization.",
    "wild_start": "share of records whose complete greedy answer to the edited prompt begins with the target after normalization.",
    "wild_start_rephrase": "wild_start on the rephrased prompt.",
    "wild_judge": "share of records whose complete greedy answer to the edited prompt the given judge calls right.",
    "wild_judge_rephrase": "wild_judge on the rephrased prompt.",
    "wild_locality": "WILD's Locality: share of unrelated prompts whose complete greedy answer is the unedited model's.",
    "kl": "KL(unedited || edited) in nats, of the next token after the unrelated prompts of the first 200 records.",
    "overlap": "share of the unedited model's five most likely next tokens that are among the edited model's five, on the same prompts.",
    "efficacy_success": "CounterFact's Efficacy: share of records where the new target is likelier (mean NLL per "
    "token) than the old one on the edited prompt.",
    "paraphrase_success": "efficacy_success on all paraphrases. CounterFact's Generalization.",
    "neighborhood_success": "share of prompts about neighbors, whose answer is the old target, on which the old target is the likelier one. "
    "CounterFact's Specificity.",
    "efficacy_magnitude": "exp(-NLL(new)) - exp(-NLL(old)) on the edited prompt.",
    "paraphrase_magnitude": "efficacy_magnitude on all paraphrases.",
    "neighborhood_magnitude": "exp(-NLL(old)) - exp(-NLL(new)) on neighbors.",
    "fluency": "weighted entropy of bigrams and trigrams, in bits, of text sampled (top 5) from the edited model.",
    "consistency": "cosine of the tf-idf vectors of that text and of reference texts about subjects that truly have the "
    "new attribute; idf fitted on all texts of the given file (published figures: a prepared one, the same if it was "
    "fitted on these texts). CounterFact's reference score; mean over sampled records with reference texts.",
    "perplexity": "exp of the mean NLL per token on held-out text, used neither for statistics nor for plans.",
    "perplexity_median": "exp of the median over windows of the mean NLL per token on that text.",
    "seconds_per_edit": "wall time of planning, solving and writing, statistics excluded.",
}
EVALUATION_TIMES: dict[str, str] = {
    "before": "the unedited model",
    "end": "after the last of the consecutive batches, on one model, all records",
    "given": "an edited model that was given, all records",
    "alone": "after each batch on an otherwise unedited model, that batch's records; then reverted",
}
LABELS: dict[str, str] = {
    "efficacy": "Eff",
    "generalization": "Gen",
    "specificity": "Spe",
    "generation": "exact",
    "generation_rephrase": "exact (reph.)",
    "generation_start": "starts",
    "wild_exact": "WILD exact",
    "wild_exact_rephrase": "WILD exact (reph.)",
    "wild_start": "WILD starts",
    "wild_start_rephrase": "WILD starts (reph.)",
    "wild_judge": "WILD judge",
    "wild_judge_rephrase": "WILD judge (reph.)",
    "wild_locality": "WILD loc.",
    "agreement": "agree",
    "efficacy_success": "ES",
    "paraphrase_success": "PS",
    "neighborhood_success": "NS",
    "efficacy_magnitude": "EM",
    "paraphrase_magnitude": "PM",
    "neighborhood_magnitude": "NM",
    "fluency": "fluency",
    "consistency": "cons.",
    "same_subject": "same subj.",
    "kl": "KL",
    "overlap": "top 5",
    "perplexity": "ppl",
    "perplexity_median": "ppl (med.)",
    "seconds_per_edit": "s/edit",
}
SHORT_DEFINITIONS: dict[str, str] = {
    "efficacy": "correct target tokens on the edited prompt",
    "generalization": "the same on the rephrased prompt",
    "specificity": "correct tokens on an unrelated prompt",
    "efficacy_success": "new target likelier than the old one on the edited prompt",
    "paraphrase_success": "the same on paraphrases",
    "neighborhood_success": "old target likelier on neighbors",
    "generation": "free answers equal to the target",
    "wild_exact": "complete answers equal to the target after normalization",
    "wild_exact_rephrase": "the same on the rephrased prompt",
    "wild_locality": "unchanged answers to unrelated prompts",
    "perplexity": "perplexity on held-out text",
    "seconds_per_edit": "seconds per edit",
}
"""Short definitions of the metrics of the short table."""
UNITS: dict[str, str] = {
    "kl": "nats",
    "fluency": "bits",
    "consistency": "per cent of 1",
    "perplexity": "",
    "perplexity_median": "",
    "seconds_per_edit": "s",
    "efficacy_magnitude": "per cent of 1",
    "paraphrase_magnitude": "per cent of 1",
    "neighborhood_magnitude": "per cent of 1",
}
"""Units of the metrics; a metric that is not listed is a share in per cent."""


def label_of(metric: str) -> str:
    """The label of a metric in tables; of a probe group's accuracy, the group's name.

    Args:
        metric: a name of `LABELS`, or a metric of a group.

    Returns:
        the label.
    """
    group, measure = split_name(metric)
    if not group:
        return LABELS[metric]
    return group if measure == "accuracy" else f"{group} ({measure})"


def definition_of(metric: str) -> str:
    """The definition of a metric.

    Args:
        metric: a name of `GLOSSARY`, or a metric of a group.

    Returns:
        the definition.
    """
    group, measure = split_name(metric)
    return (
        f"probes of the group {group}: {MEASURES[measure]}; mean over records." if group else GLOSSARY[metric]
    )


def explained(label: str) -> str:
    """The label of a metric with its unit.

    Args:
        label: a value of `LABELS`, or the label of a group's metric.

    Returns:
        e.g. `KL (nats)`.
    """
    name = next((name for name, known in LABELS.items() if known == label), "")
    return label + (f" ({unit})" if (unit := UNITS.get(name, "%")) else "")


def explain(labels: Iterable[str], groups: Iterable[str] = ()) -> dict[str, str]:
    """Definitions by label with unit, for the metrics among the labels of a table.

    Args:
        labels: the head of a table.
        groups: metrics of probe groups in the table.

    Returns:
        label with unit -> definition.
    """
    names = {label: name for name, label in LABELS.items()}
    known = {explained(label): GLOSSARY[names[label]] for label in dict.fromkeys(labels) if label in names}
    return known | {explained(label_of(metric)): definition_of(metric) for metric in groups}
