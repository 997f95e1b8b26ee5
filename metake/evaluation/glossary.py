"""What every number in a table or result file means; copied into each result file."""

from __future__ import annotations

from collections.abc import Iterable

GLOSSARY: dict[str, str] = {
    "efficacy": "share of the target's tokens that are the most likely ones on the edited prompt, with "
    "the target's earlier tokens given (teacher-forced); mean over records. Published as Efficacy.",
    "generalisation": "the same on the rephrased prompt. Published as Generalisation.",
    "specificity": "the same on an unrelated prompt against its true answer. Published as Specificity; "
    "bounded by what the unedited model knows.",
    "agreement": "on the same unrelated prompts, share of answer tokens whose most likely token is the "
    "unedited model's.",
    "same_subject": "agreement with the unedited model on other prompts about the edited subject: the "
    "record's own, without those that another record of the run edits, or three generic ones (next token) "
    "where it has none.",
    "generation": "share of records whose greedy continuation of the edited prompt, read as many lines as the "
    "target has and without a final full stop, is exactly the target (free-running; the model's own generation "
    "settings, such as a repetition penalty, are set aside).",
    "generation_rephrase": "the same on the rephrased prompt.",
    "generation_start": "share of records whose greedy continuation of the edited prompt starts with the target, "
    "which ends where a word does (`Mal` does not start `Malak`; any place in scripts without spaces between words).",
    "kl": "KL(unedited || edited) in nats, of the next token after the unrelated prompts of the first 200 records.",
    "overlap": "share of the five most likely next tokens there that are the unedited model's.",
    "efficacy_success": "CounterFact's Efficacy: share of records where the new target is likelier (mean NLL per "
    "token) than the old one on the edited prompt.",
    "paraphrase_success": "the same on all paraphrases. CounterFact's Generalisation.",
    "neighbourhood_success": "the reverse on prompts about neighbours, whose answer is the old target. Its Specificity.",
    "efficacy_magnitude": "exp(-NLL(new)) - exp(-NLL(old)) on the edited prompt.",
    "paraphrase_magnitude": "the same on all paraphrases.",
    "neighbourhood_magnitude": "exp(-NLL(old)) - exp(-NLL(new)) on neighbours.",
    "fluency": "weighted entropy of bigrams and trigrams, in bits, of text sampled (top 5) from the edited model.",
    "consistency": "cosine of the tf-idf vectors of that text and of reference texts about subjects that truly have the "
    "new attribute; idf fitted on all texts of the given file (published figures: a prepared one, the same if it was "
    "fitted on these texts). CounterFact's reference score; mean over sampled records with reference texts.",
    "perplexity": "exp of the mean NLL per token on text that no statistics or plan has seen.",
    "perplexity_median": "exp of the median over windows of the mean NLL per token on that text.",
    "seconds_per_edit": "wall time of planning, solving and writing, statistics excluded.",
}
MOMENTS: dict[str, str] = {
    "before": "the unedited model",
    "end": "after the last of the consecutive batches, on one model, all records",
    "alone": "after each batch on an otherwise unedited model, that batch's records; then reverted",
}
LABELS: dict[str, str] = {
    "efficacy": "Eff", "generalisation": "Gen", "specificity": "Spe", "generation": "exact",
    "generation_rephrase": "exact (reph.)", "generation_start": "starts", "agreement": "agree",
    "efficacy_success": "ES", "paraphrase_success": "PS", "neighbourhood_success": "NS",
    "efficacy_magnitude": "EM", "paraphrase_magnitude": "PM", "neighbourhood_magnitude": "NM", "fluency": "fluency",
    "consistency": "cons.",
    "same_subject": "same subj.", "kl": "KL", "overlap": "top 5", "perplexity": "ppl", "perplexity_median": "ppl (med.)",
    "seconds_per_edit": "s/edit",
}  # fmt: skip
BRIEFLY: dict[str, str] = {
    "efficacy": "target tokens that are right on the edited prompt",
    "generalisation": "on the rephrased one",
    "specificity": "true tokens on an unrelated one",
    "efficacy_success": "new target likelier than the old on the edited prompt",
    "paraphrase_success": "on paraphrases",
    "neighbourhood_success": "old likelier on neighbours",
    "generation": "free answers that are the target",
    "perplexity": "perplexity of other text",
    "seconds_per_edit": "seconds per edit",
}
"""Of the metrics of the short table, in a few words."""
UNITS: dict[str, str] = {
    "kl": "nats", "fluency": "bits", "consistency": "per cent of 1", "perplexity": "", "perplexity_median": "", "seconds_per_edit": "s",
    "efficacy_magnitude": "per cent of 1", "paraphrase_magnitude": "per cent of 1", "neighbourhood_magnitude": "per cent of 1",
}  # fmt: skip
"""Of a table's numbers; a metric that is not named is a share in per cent."""


def explained(label: str) -> str:
    """A label with its unit."""
    name = next((name for name, known in LABELS.items() if known == label), "")
    return label + (f" ({unit})" if (unit := UNITS.get(name, "%")) else "")


def explain(labels: Iterable[str]) -> dict[str, str]:
    """Label with unit -> meaning, of the metrics among the labels of a table."""
    names = {label: name for name, label in LABELS.items()}
    return {explained(label): GLOSSARY[names[label]] for label in dict.fromkeys(labels) if label in names}
