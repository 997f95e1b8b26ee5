"""Names of the modules that an edit uses: one row per model family.

A model outside the table is described by a row of the same form (`ModuleMap`); the rest of the library is independent
of the family.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from metake.errors import MetakeError
from metake.files import as_path, read_json
from metake.names import unknown_name


@dataclass(frozen=True)
class ModuleMap:
    """Dotted module names: `blocks` and `head` from the model, `down` from a block.

    Attributes:
        blocks: the list of transformer blocks.
        down: the FFN's down-projection inside a block (`nn.Linear` or GPT-2's `Conv1D`); its
            output must be added to the residual stream as it is, or after an RMS norm.
        head: the module that turns hidden states into logits.

    Example:
        >>> import metake as mk
        >>> modules = mk.ModuleMap(blocks="transformer.h", down="mlp.c_proj")
        >>> modules.head
        'lm_head'
        >>> mk.load("demo", device="cpu", modules=modules).d_v
        128
    """

    blocks: str
    down: str
    head: str = "lm_head"

    def __post_init__(self) -> None:
        for key, name in asdict(self).items():
            if not isinstance(name, str) or not name:
                raise MetakeError(f"modules: {key}: must be a dotted module name, got {name!r}")

    @classmethod
    def of(cls, modules: ModuleMap | Path | str | None) -> ModuleMap | None:
        """Module map of a map, a file or None.

        Args:
            modules: a map, which is returned unchanged, or the path of a JSON file.

        Returns:
            The map; None if `modules` is None.

        Raises:
            MetakeError: another type, or the file does not contain a map.
        """
        if modules is None or isinstance(modules, ModuleMap):
            return modules
        if not isinstance(modules, str | Path):
            raise MetakeError(
                f"modules: must be a ModuleMap or a JSON file with one, not {type(modules).__name__}; "
                "write ModuleMap(blocks=..., down=..., head=...)"
            )
        return cls.read(modules)

    @classmethod
    def read(cls, path: Path | str) -> ModuleMap:
        """Module map from a JSON file.

        Args:
            path: file with the keys `blocks`, `down` and, optionally, `head`.

        Returns:
            The map.

        Raises:
            MetakeError: the file does not contain a map.
            MetakeError: unknown key.
        """
        path = as_path(path, "modules")
        fields = read_json(path)
        known = {"blocks", "down", "head"}
        if isinstance(fields, dict) and (unknown_keys := [name for name in fields if name not in known]):
            raise unknown_name(str(path), unknown_keys[0], sorted(known))
        if not isinstance(fields, dict) or not {"blocks", "down"} <= set(fields):
            raise MetakeError(f"{path}: a module map holds the keys blocks, down and optionally head")
        for name, value in fields.items():
            if not isinstance(value, str) or not value:
                raise MetakeError(f"{path}: {name}: must be a dotted module name in quotes, got {value!r}")
        return cls(**fields)


LLAMA_LIKE = ModuleMap("model.layers", "mlp.down_proj")
FAMILIES: dict[str, ModuleMap] = {
    "gpt2": ModuleMap("transformer.h", "mlp.c_proj"),
    "gptj": ModuleMap("transformer.h", "mlp.fc_out"),
    "gpt_neox": ModuleMap("gpt_neox.layers", "mlp.dense_4h_to_h", "embed_out"),
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "phi3": LLAMA_LIKE,
    "gemma2": LLAMA_LIKE,
    "gemma3_text": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
}
# Vision-language models; their maps are tested at every load like those that a user gives. Only the language tower is
# edited, at prompts without an image.
LANGUAGE_TOWER = ModuleMap("model.language_model.layers", "mlp.down_proj")
TOWERS: dict[str, ModuleMap] = dict.fromkeys(
    ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "llava_onevision", "gemma3"), LANGUAGE_TOWER
)
# Mixtures of experts with fused tensors: the down-projection is a parameter of the experts, not a module.
MIXTURE = ModuleMap("model.layers", "mlp.experts.down_proj")
MIXTURES: dict[str, ModuleMap] = dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"), MIXTURE)
DESCRIBED = {**TOWERS, **MIXTURES}
