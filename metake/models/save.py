"""Save a model with its tokenizer in the format of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.files import as_path, read_json, write_json
from metake.folders import check_folder, result_folder
from metake.models.editable import EditableModel
from metake.models.patch_hooks import patches_on, unfoldable


def save_model(model: EditableModel, folder: Path | str, *, overwrite: bool = False) -> None:
    """Write a model folder completely or not at all; a folder that metake wrote earlier is replaced.

    Args:
        model: the model with its tokenizer.
        folder: the folder to write.
        overwrite: replace also a folder that metake did not write.

    Raises:
        MetakeError: the folder cannot be written, or holds files that are not of an earlier result.

    Example:
        >>> import metake as mk
        >>> mk.save_model(mk.load("demo", device="cpu"), "edited")
        >>> mk.load("edited", device="cpu").name
        'edited'
    """
    if not isinstance(model, EditableModel):
        raise MetakeError(
            f"save_model: must be given what metake.load returns, not {type(model).__name__}; "
            "write save_model(model, folder)"
        )
    if model.is_sharded:
        raise MetakeError(
            "save_model: no process holds this model whole; save the delta, and apply it with metake apply"
        )
    folder = as_path(folder, "save_model: folder")
    check_folder(folder, overwrite=overwrite)
    with result_folder(folder, overwrite=overwrite) as place:
        write_model(model, place)


def write_model(model: EditableModel, place: Path) -> None:
    """Write the files of a model in the format of `transformers`.

    Args:
        model: the model with its tokenizer.
        place: an existing folder.

    Raises:
        MetakeError: the model has a gated patch, which the files would not hold.
    """
    for layer in range(len(model)):
        for patch in () if layer in model.experts else patches_on(model.down(layer)):
            raise MetakeError(unfoldable(patch, "save_model"))
    write_files(model.model, model.tokenizer, place)


def write_files(model: Any, tokenizer: Any, place: Path) -> None:
    """Write the files of a model and of its tokenizer as they are.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        place: an existing folder.
    """
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    # options of this load are left out, and the class gets the name that transformers before 5 knows
    path = place / "tokenizer_config.json"
    dropped = ("backend", "is_local", "local_files_only")
    config = {k: v for k, v in read_json(path).items() if k not in dropped}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(path, config)
