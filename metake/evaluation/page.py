"""A comparison of methods as a page: questions and answers, the table, how much of each plan was realised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metake.console import draw_or_note
from metake.evaluation.compare import Comparison
from metake.evaluation.glossary import explain
from metake.report.answers import Answer, Dialogue, Line, judge_neighbour, judge_target
from metake.report.page import Picture, Section, write_page

SHOWN = 12  # edits whose answers stand on a page
ATTENUATION = (
    "Attenuation: of a residual r (the shift of the hidden state that an edit plans), a layer with key k and constraint "
    "lambda C writes only the share eta = rho / (1 + rho), with rho = k^T (lambda C)^-1 k. The stronger the constraint "
    "and the more common the key's direction, the smaller eta."
)
PRESETS = (
    "Each method has its own preset (strength of the constraint, rate, steps), searched with the same number of trials. "
    "Closed-loop targets still succeed under a stronger constraint, so their presets may have a larger lambda and with it "
    "a lower eta: a low eta alone is no failure, and the share of answers that are right is what counts."
)


def dialogues(content: Mapping[str, Any], methods: Sequence[str] | None = None) -> list[Dialogue]:
    """The first edits of a result file as questions and answers; none where the model did not answer freely."""
    rows = {
        row["method"]: row["answers"]
        for row in content["methods"]
        if methods is None or row["method"] in methods
    }
    made = []
    for i, (prompt, target, _, rephrase, locality, truth) in enumerate(content["requests"][:SHOWN]):
        before = content["before"]["answers"][i]
        if not any((*before, *(answer for answers in rows.values() for answer in answers[i]))):
            continue

        def judge(
            j: int, answer: str, before: Sequence[str] = before, target: str = target, truth: str = truth
        ) -> Answer:
            return judge_neighbour(answer, before[2], truth) if j == 2 else judge_target(answer, target)

        lines = [
            Line(kind, question(text), {
                "before": Answer(before[j]), **{name: judge(j, answers[i][j]) for name, answers in rows.items()}
            })
            for j, (kind, text) in enumerate((("edited", prompt), ("reworded", rephrase), ("neighbour", locality)))
            if text
        ]  # fmt: skip
        made.append(Dialogue(f"{question(prompt)} → {target}", lines))
    return made


def question(prompt: str) -> str:
    """A prompt as a person reads it, without the frame `Q: ... A:`."""
    return prompt.removeprefix("Q: ").removesuffix("\nA:")


def settings_line(settings: Mapping[str, Any], name: str) -> str:
    """The settings that differ most between presets, in one line."""
    meta = f" + {settings['meta_steps']} in the closed loop" if settings["target"] == "bilevel" else ""
    layers = ", ".join(str(layer) for layer in settings["layers"])
    strength = {"ridge": f"lambda {settings['weight']:,.0f}", "projected": f"L2 {settings['l2']:g}"}.get(
        settings["geometry"], "no constraint"
    )
    return f"{name}: {strength}, layers {layers}, {settings['steps']} steps{meta}"


def draw(runs: Mapping[str, Any], figure: Path) -> Path:
    """Path of the figure; the library that draws is loaded here, where it may fail."""
    from metake.report.figures import plot_realisation

    return plot_realisation(runs, figure)


def describe(runs: Mapping[str, Any]) -> str:
    """The figure in words."""
    from metake.report.figures import describe_realisation

    return describe_realisation(runs)


def comparison_sections(
    comparison: Comparison, figure: Path, *, title: str, paragraphs: Sequence[str] = (), answers: bool = True
) -> list[Section]:
    """Sections of a page: answers, then the table with the figure, which is drawn now.

    Args:
        figure: the figure's path.
        paragraphs: text before the table.
        answers: show the edits as questions and answers.
    """
    content = comparison.content
    talks = dialogues(content) if answers else []
    sections = []
    if talks:
        some = (
            f"The first {len(talks)} of {content['edits']} edits"
            if len(talks) < content["edits"]
            else "Every edit"
        )
        sections.append(Section(
            f"{title}: answers", dialogues=talks,
            paragraphs=[f"{some} as questions with the answers before and after. ✓ on an edited or reworded question: the "
                        "answer begins with the new target; on a neighbour, which the edit must not change: the answer is "
                        "the unedited model's or the true one."],
        ))  # fmt: skip
    runs = {run.method: run.batches for run in comparison.runs if run.settings.target != "gradient"}
    pictures = [
        Picture(path, describe(runs), "Above: residual that is still missing after each layer's write. "
                "Below: attenuation eta. Medians over the edits, bars: quartiles.")
        for path in (draw_or_note(lambda: draw(runs, figure)) if runs else [])
    ]  # fmt: skip
    head, rows = comparison.cells()
    used = (
        "Settings: "
        + "; ".join(settings_line(row["settings"], row["method"]) for row in content["methods"])
        + "."
    )
    sections.append(Section(
        title, [*paragraphs, used], head=head, rows=rows, pictures=pictures,
        caption="Per cent, unless the list at the end names another unit",
    ))  # fmt: skip
    return sections


def write_comparison_page(path: Path, comparison: Comparison) -> Path:
    """Path of the page of one comparison; its figure is written beside it as `realisation.png`."""
    content = comparison.content
    title = f"{content['model']}: {content['edits']} edits with {', '.join(run.method for run in comparison.runs)}"
    sections = comparison_sections(
        comparison, path.with_name("realisation.png"), title="Methods compared", paragraphs=[ATTENUATION]
    )
    return write_page(path, title=title, sections=sections, glossary=explain(comparison.cells()[0]))
