"""The base model of an adapter, by a name that peft and vLLM can load."""

from __future__ import annotations

from pathlib import Path

from metake.files import expand
from metake.models.known import SMOLLM2
from metake.shipped import ASSETS, DEMOS

SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_WITHOUT_OWNER = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")  # older than owners on the hub
PLACEHOLDER = "BASE"
REMEDY = "BASE: the hub name or folder of the unedited model is not known; give base= (--base)"


def loadable_base(name: str, *, relative: bool = False) -> str:
    """Hub name or folder of a model, as `AutoModelForCausalLM.from_pretrained` and `vllm serve` take it.

    Args:
        name: a value of `--model`, or the name of a loaded model, which for a folder is the last part of its path.
        relative: whether the name may be a path from the current folder, as a value of `--model` may.

    Returns:
        Absolute path of a folder, or a hub name; empty if neither is known.
    """
    if name == SMOLLM2:
        return SMOLLM2_HUB
    folder = ASSETS / name if name in DEMOS else expand(name)
    if (relative or folder.is_absolute()) and (folder / "config.json").is_file():
        return str(folder.resolve())
    of_hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith(".gguf")
    return name if of_hub or name in HUB_WITHOUT_OWNER else ""


def is_hub_name(base: str) -> bool:
    """Whether a base is a name of the hub, which a model card links.

    Args:
        base: what `loadable_base` returns, or a value of `--base`.

    Returns:
        False for a path, and for an empty base.
    """
    return bool(base) and not Path(base).is_absolute() and not expand(base).exists()


def displayed_base(base: str) -> str:
    """Short name of a base for a text.

    Args:
        base: as in `is_hub_name`; not empty.

    Returns:
        The hub name, or the last part of a path.
    """
    return base if is_hub_name(base) else expand(base).resolve().name
