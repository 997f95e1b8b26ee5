"""What an edit costs elsewhere: tasks of the lm-evaluation-harness before and after.

    pip install 'metake[harness]'
    python experiments/downstream.py --model gpt2-xl --delta edited --tasks hellaswag,arc_easy --limit 500
    python experiments/downstream.py --model smollm2 --delta edited --tasks mine --task-folder tasks

`--delta` is what `metake edit` or `run_zsre.py` wrote. Tasks that come from a hub need one; `--task-folder`
holds task files of one's own. Writes downstream.json and a table; every number with its standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command
from metake.errors import MetakeError
from metake.extras import needs, require
from metake.files import write_json, write_text
from metake.names import did_you_mean
from metake.options import Parser, at_least, chosen_model, model_options, output_folder, show_help


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    model_options(parser, None)
    parser.add_argument("--delta", type=Path, required=True, help="folder or file of a saved change")
    parser.add_argument("--tasks", required=True, help="comma-separated")
    parser.add_argument("--task-folder", type=Path, help="task files of one's own")
    parser.add_argument("--limit", type=at_least(1), help="examples per task")
    parser.add_argument(
        "--batch", type=at_least(1), default=8, help="examples per pass; default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/downstream",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

from metake.deltas import Delta
from metake.models.editable import EditableModel
from metake.provenance import provenance
from metake.report.tables import markdown, render


def judge(
    loaded: EditableModel, tasks: list[str], limit: int | None, folder: Path | None, batch: int
) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, `METRIC_stderr` beside it.

    Raises:
        MetakeError: the harness is not installed, or knows no such task.
    """
    with needs("harness"):
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    manager = TaskManager(include_path=None if folder is None else str(folder))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        near = did_you_mean(unknown[0], manager.all_tasks) or "lm_eval ls tasks lists them"
        raise MetakeError(f"--tasks: the harness knows no {unknown[0]!r}; {near}")
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch)
    found = simple_evaluate(model, tasks=tasks, limit=limit, task_manager=manager, log_samples=False)
    return {
        task: {
            name.replace(",none", ""): value for name, value in numbers.items() if isinstance(value, float)
        }
        for task, numbers in found["results"].items()
    }


@command("downstream")
def main() -> None:
    args = options().parse_args()
    require("harness", "lm_eval", what="--tasks")
    change = Delta.load(args.delta)
    model = chosen_model(args)
    tasks = [task.strip() for task in args.tasks.split(",") if task.strip()]
    before = judge(model, tasks, args.limit, args.task_folder, args.batch)
    with change.applied(model):
        after = judge(model, tasks, args.limit, args.task_folder, args.batch)
    content: dict[str, Any] = {
        **provenance(model.name, model, change.note.get("method", "")),
        "delta": str(args.delta),
        "digest": change.digest,
        "limit": args.limit,
        "before": before,
        "after": after,
    }
    rows = [
        [
            task,
            name,
            f"{value:.3f} +- {before[task].get(name + '_stderr', float('nan')):.3f}",
            f"{after[task][name]:.3f}",
            f"{after[task][name] - value:+.3f}",
        ]
        for task in before
        for name, value in before[task].items()
        if not name.endswith("_stderr")
    ]
    head = ["task", "metric", "before", "after", "change"]
    write_json(args.out / "downstream.json", content)
    write_text(args.out / "downstream.md", markdown(head, rows))
    print(render("tasks before and after", head, rows, 120))


if __name__ == "__main__":
    main()
