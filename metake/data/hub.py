"""Datasets of known names on the hub; their files are read like local ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metake.data.entries import read_entries
from metake.errors import MetakeError
from metake.extras import require


@dataclass(frozen=True)
class Dataset:
    """A dataset on the hub.

    Attributes:
        name: name of `--data`.
        repository: its repository.
        file: path of a JSON file in it; empty for a dataset of tables, which the package `datasets` reads.
        split: split of a dataset of tables.
        reader: name of the format.
    """

    name: str
    repository: str
    file: str
    reader: str
    split: str = "test"


DATASETS = (
    Dataset("knowedit-wiki-recent", "zjunlp/KnowEdit", "benchmark/wiki_recent/recent_test.json", "knowedit"),
    Dataset(
        "knowedit-wiki-counterfact", "zjunlp/KnowEdit", "benchmark/wiki_counterfact/test_cf.json", "knowedit"
    ),
    Dataset("knowedit-zsre", "zjunlp/KnowEdit", "benchmark/ZsRE/ZsRE-test-all.json", "knowedit"),
    Dataset("knowedit-wikibio", "zjunlp/KnowEdit", "benchmark/WikiBio/wikibio-test-all.json", "knowedit"),
    Dataset("wikibigedit", "lukasthede/WikiBigEdit", "wiki_big_edit_20240201_20240220.json", "wikibigedit"),
    Dataset("qaedit", "WenDingY/QAEdit", "", "qaedit", "train"),
    Dataset("counterfact", "azhx/counterfact", "", "counterfact"),
)
NAMES = tuple(dataset.name for dataset in DATASETS)


def find_dataset(path: Path) -> Dataset | None:
    """The dataset of a name.

    Args:
        path: value of `--data`.

    Returns:
        the dataset; None for a name that is none of a known dataset.
    """
    return next((dataset for dataset in DATASETS if str(path) == dataset.name), None)


def load_dataset(dataset: Dataset) -> list[Any]:
    """Entries of a dataset.

    Args:
        dataset: the dataset.

    Returns:
        its entries.

    Raises:
        MetakeError: the package is missing, or the hub cannot be reached.
    """
    require("hub", "datasets", what=f"--data {dataset.name}")
    try:
        if dataset.file:  # as it is: a table would need one type per field
            from transformers.utils.hub import cached_file

            place = cached_file(dataset.repository, dataset.file, repo_type="dataset")
        else:
            import datasets

            return [dict(row) for row in datasets.load_dataset(dataset.repository, split=dataset.split)]
    except Exception as error:  # the loaders raise whatever their formats raise
        reason = " ".join(str(error).split())[:200]
        raise MetakeError(
            f"--data {dataset.name}: {dataset.repository} cannot be loaded from the hub ({type(error).__name__}: "
            f"{reason}); download its file elsewhere and give --data FILE"
        ) from error
    return read_entries(Path(str(place)))
