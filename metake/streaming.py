"""Documents of a dataset on the hub."""

from __future__ import annotations

from collections.abc import Iterator

from metake.errors import MetakeError
from metake.extras import require


def stream_dataset(name: str) -> Iterator[str]:
    """Stream the documents of a dataset on the hub.

    Args:
        name: `NAME` or `NAME:CONFIG`.

    Returns:
        Texts of the documents.

    Raises:
        MetakeError: the package is missing or the dataset cannot be opened.
    """
    require("hub", "datasets", what="--dataset")
    import datasets

    path, _, config = name.partition(":")
    try:
        stream = datasets.load_dataset(path, config or None, split="train", streaming=True)
        column = next(c for c in ("text", "content", "document") if c in next(iter(stream)))
    except Exception as error:  # the loaders raise whatever their formats raise
        reason = " ".join(str(error).split())[:200]
        raise MetakeError(
            f"--dataset {name}: cannot be streamed ({type(error).__name__}: {reason})"
        ) from error
    return (str(entry[column]) for entry in stream)
