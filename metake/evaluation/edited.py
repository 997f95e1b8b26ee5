"""Models that were edited elsewhere: read, compared with the unedited model, and measured on records."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from metake.adapters.peft_reader import is_peft_folder
from metake.deltas import FILE, Delta
from metake.errors import MetakeError
from metake.evaluation.metrics import Evaluator
from metake.evaluation.protocol import Protocol, Session
from metake.evaluation.results import GivenEdit, MethodRun, Results
from metake.files import as_path
from metake.models.chat import Chat
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.modules import ModuleMap
from metake.phases import phase

UNEDITED = ("before", "unedited")  # names of the unedited model in results
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def read_edited(
    folder: Path | str,
    base: EditableModel,
    *,
    dtype: str | torch.dtype = "float32",
    modules: ModuleMap | Path | str | None = None,
) -> EditableModel | Delta:
    """The edited model of a saved folder, or the delta of a folder without a model or of a PEFT adapter.

    Args:
        folder: folder of a saved model (safetensors, with its tokenizer), of a delta, or a PEFT adapter.
        base: the unedited model; the edited one has its device, and prompts in a chat template if it has.
        dtype: of the weights.
        modules: module map of an unknown family.

    Returns:
        The model, or the delta.

    Raises:
        MetakeError: the folder holds neither, or weights in another format than safetensors, or no tokenizer.
    """
    path = as_path(folder, "edited")
    if (path / "config.json").is_file():
        _check_files(path)
        chat = True if isinstance(base.tokenizer, Chat) else None
        return load(path, dtype=dtype, device=base.device, modules=modules, chat=chat)
    if path.is_file() or (path / FILE).is_file():
        return Delta.load(path)
    if is_peft_folder(path):
        return Delta.from_pretrained(path, base)
    raise MetakeError(
        f"{folder}: holds neither config.json and safetensors nor {FILE}; give the folder of a saved model, a delta or a "
        "PEFT adapter"
    )


def _check_files(folder: Path) -> None:
    """Refuse a folder without safetensors or without a tokenizer."""
    names = {path.name for path in folder.iterdir()}
    if not any(name.endswith(".safetensors") and name != FILE for name in names):
        others = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        found = f"{others[0]} is a pickle, which may run code" if others else "there are no weights"
        raise MetakeError(f"{folder}: {found}; save the model as safetensors (save_pretrained does)")
    if not names.intersection(TOKENIZER_FILES):
        raise MetakeError(
            f"{folder}: has no tokenizer (tokenizer.json); save the unedited model's there with tokenizer.save_pretrained"
        )


def _parameters(model: EditableModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in model.model.named_parameters()}


def check_architecture(base: EditableModel, edited: EditableModel) -> None:
    """Refuse an edited model with another architecture than the unedited one.

    Args:
        base: the unedited model.
        edited: the edited model.

    Raises:
        MetakeError: another family, or a tensor that is missing, added, or of another shape.
    """
    if base.family != edited.family:
        raise MetakeError(
            f"{edited.name}: is a {edited.family} model, {base.name} is {base.family}; give the model that was edited as --base"
        )
    before, after = _parameters(base), _parameters(edited)
    for name in dict.fromkeys([*before, *after]):
        shapes = [list(model[name].shape) if name in model else None for model in (after, before)]
        if shapes[0] != shapes[1]:
            said = [f"is {shape}" if shape else "is missing" for shape in shapes]
            raise MetakeError(
                f"{edited.name}: {name} {said[0]}, in {base.name} it {said[1]}; give the model that was edited as --base"
            )


def check_tokens(base: Evaluator, edited: Evaluator) -> None:
    """Refuse an edited model whose tokenizer differs from the unedited one's.

    Args:
        base: measurements of the unedited model.
        edited: measurements of the edited model, on the same records.

    Raises:
        MetakeError: another vocabulary, or a record with other tokens.
    """
    name, remedy = edited.model.name, f"save the tokenizer of {base.model.name} in its folder"
    if base.model.tokenizer.get_vocab() != edited.model.tokenizer.get_vocab():
        raise MetakeError(f"{name}: the tokenizer has another vocabulary than {base.model.name}'s; {remedy}")
    for (_, index), row, other in zip(base.kinds, base.rows, edited.rows, strict=True):
        if row != other:
            raise MetakeError(
                f"{name}: the tokenizer splits record {index + 1} into other tokens than {base.model.name}'s; {remedy}"
            )


def changed_weights(base: EditableModel, edited: EditableModel) -> dict[str, float]:
    """Changed parameters, with the Frobenius norm of each change relative to that of the unedited parameter.

    Args:
        base: the unedited model.
        edited: a model of the same architecture.

    Returns:
        Name of a parameter -> relative norm; parameters that are equal bit for bit are left out.
    """
    after, found = _parameters(edited), {}
    for name, weight in _parameters(base).items():
        other = after[name].to(weight.device)
        if not torch.equal(other, weight):
            found[name] = float((other.float() - weight.float()).norm() / weight.float().norm())
    return found


def _delta_weights(base: EditableModel, delta: Delta) -> dict[str, float]:
    """As `changed_weights`, of the change of a delta."""
    modules = base.modules
    return {
        f"{modules.blocks}.{layer}.{modules.down}.weight": norm / float(base.weight(layer).float().norm())
        for layer, norm in delta.norms().items()
    }


def _given(base: EditableModel, edited: EditableModel | Delta, source: str) -> GivenEdit:
    """What a run has in place of a method."""
    name = Path(source).resolve().name if source else "edited"
    name = f"{name} (edited)" if name in UNEDITED else name
    if isinstance(edited, Delta):
        kinds = tuple(patch.kind for patch in edited.patches)
        given = GivenEdit(name, source, _delta_weights(base, edited), edited.layers, kinds)
    else:
        changed = changed_weights(base, edited)
        blocks = [f"{base.modules.blocks}.{layer}." for layer in range(len(base))]
        layers = [n for n, block in enumerate(blocks) if any(tensor.startswith(block) for tensor in changed)]
        given = GivenEdit(name, source, changed, tuple(layers))
    if not given.changed and not given.patches:
        warnings.warn(f"{source or 'edited'}: equal to {base.name}, bit for bit", stacklevel=3)
    return given


def judge_edited(
    protocol: Protocol, base: EditableModel, edited: EditableModel | Delta, source: str = "", **extra: Any
) -> Results:
    """Results of a model that was edited elsewhere: all metrics of a run, with `base` as the unedited model.

    A model with another architecture or other tokens than `base`, or a delta of another model, raises a `MetakeError`.

    Args:
        protocol: the records and what is measured of them; all of them are measured on the edited model.
        base: the unedited model, on which a delta is applied and reverted.
        edited: the edited model, or the change.
        source: folder that it was read from; its last part names it in tables.
        **extra: further plain values for the result file.

    Returns:
        One run, and the content of the result file.
    """
    protocol.check()
    evaluator = protocol.evaluator(base)
    other = evaluator
    if isinstance(edited, Delta):
        edited.check_fits(base, where=source or "delta")  # before any measurement
    else:
        check_architecture(base, edited)
        other = protocol.evaluator(edited)
        check_tokens(evaluator, other)
    given = _given(base, edited, source)
    with phase("evaluate the unedited model"):
        before = evaluator.measure()
    with phase("evaluate the edited model"):
        if isinstance(edited, Delta):
            with edited.applied(base):
                after = evaluator.measure(before)
        else:
            after = other.measure(before)
    run = MethodRun(given, before, after, [], "given")
    return Session(protocol, base, None, evaluator, before).results([run], **extra)
