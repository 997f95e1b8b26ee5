"""An adapter as a GGUF file of llama.cpp."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from metake.adapters.adapter import Adapter
from metake.errors import MetakeError
from metake.extras import needs
from metake.files import write_file

FILE = "adapter.gguf"
# family -> architecture of llama.cpp; it runs no GPT-J
ARCHITECTURES = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "llama": "llama",
    "mistral": "llama",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}


def with_equal_ranks(adapter: Adapter) -> Adapter:
    """The adapter with every layer padded to the largest rank: a GGUF file has one alpha for all layers.

    Args:
        adapter: the adapter.

    Returns:
        An adapter that is written as it is.
    """
    rank = max(low.rank for low in adapter.layers.values())
    return replace(adapter, layers={n: low.padded(rank) for n, low in adapter.layers.items()}, pad=False)


def architecture_of(adapter: Adapter) -> str:
    """Name of the architecture in llama.cpp.

    Args:
        adapter: the adapter.

    Returns:
        The name.

    Raises:
        MetakeError: llama.cpp does not run the family, or its name there is not known.
    """
    family = str(adapter.modules["family"])
    if family not in ARCHITECTURES:
        raise MetakeError(
            f"export: gguf-lora: {family}: no architecture of llama.cpp (known: {', '.join(ARCHITECTURES)}); give "
            "--format peft or merged"
        )
    return ARCHITECTURES[family]


def tensor_names(adapter: Adapter, gguf: Any) -> dict[int, str]:
    """Layer -> name of its weight in llama.cpp.

    Args:
        adapter: the adapter.
        gguf: the package.

    Returns:
        Names such as `blk.4.ffn_down.weight`.

    Raises:
        MetakeError: the architecture has no such module.
    """
    name = architecture_of(adapter)
    kind = next(kind for kind, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
    known = gguf.get_tensor_name_map(kind, max(adapter.layers) + 1)
    names = {layer: known.get_name(adapter.path(layer)) for layer in adapter.layers}
    for layer, found in names.items():
        if found is None:
            raise MetakeError(
                f"export: gguf-lora: {adapter.path(layer)}: no module of {name} in llama.cpp; give --format peft"
            )
    return {layer: f"{found}.weight" for layer, found in names.items()}


def write_gguf(adapter: Adapter, path: Path) -> None:
    """Write a GGUF adapter of llama.cpp in fp32, with alpha equal to the rank.

    Args:
        adapter: an adapter of equal ranks.
        path: the file.
    """
    with needs("adapters"):
        import gguf
    names = tensor_names(adapter, gguf)

    def write(place: Path) -> None:
        writer = gguf.GGUFWriter(place, architecture_of(adapter))
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.rank))
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        for layer, low in adapter.layers.items():
            writer.add_tensor(f"{names[layer]}.lora_a", low.right.T.contiguous().numpy())
            writer.add_tensor(f"{names[layer]}.lora_b", low.left.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_file(path, write)
