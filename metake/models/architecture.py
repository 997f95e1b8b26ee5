"""The modules of a model that an edit uses: its blocks, their down-projections, its head.

A supported family is one row of module names. A model outside the table is described by a row of the same form
(`ModuleMap`); the rest of the library is independent of the family.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from metake.errors import MetakeError
from metake.files import as_path, read_json
from metake.models.probe import check_values
from metake.models.weights import check_weight, is_plain, other_uses
from metake.models.wrappers import compiled_from, unwrap
from metake.names import unknown_name


@dataclass(frozen=True)
class ModuleMap:
    """Dotted module names: `blocks` and `head` from the model, `down` from a block.

    Attributes:
        blocks: the list of transformer blocks.
        down: the FFN's down-projection inside a block (`nn.Linear` or GPT-2's `Conv1D`); its
            output must be added to the residual stream as it is.
        head: the module that turns hidden states into logits.

    Example:
        >>> import metake as mk
        >>> modules = mk.ModuleMap(blocks="transformer.h", down="mlp.c_proj")
        >>> modules.head
        'lm_head'
        >>> mk.load("demo", device="cpu", modules=modules).arch.d_v
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
            unknown_name: a key has another name.
        """
        path = as_path(path, "modules")
        fields = read_json(path)
        known = {"blocks", "down", "head"}
        if isinstance(fields, dict) and (strange := [name for name in fields if name not in known]):
            raise unknown_name(str(path), strange[0], sorted(known))
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
}
# Models that normalize the FFN output before the residual add (Gemma 2 and 3, OLMo 2) are not supported: the stream
# does not receive v = W k.
POST_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_ffw_norm")


class Architecture:
    """A causal language model together with the names of the modules that edits touch.

    Args:
        model: from `transformers`, or any module called with `input_ids` that returns `.logits`.
        modules: needed for a model whose family is not in `FAMILIES`; a map, or the file of one.

    Raises:
        MetakeError: unknown family, a named module is missing, the FFN output is normalized before the residual add, or
            the weights are quantized.
    """

    def __init__(self, model: nn.Module, modules: ModuleMap | Path | str | None = None) -> None:
        self.model = model = unwrap(model)
        modules = ModuleMap.of(modules)
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        self.family: str = family
        found = modules or FAMILIES.get(family)
        if found is None:
            self._refuse_post_norm(model)
            raise MetakeError(
                f"{family}: unknown model family (known: {', '.join(FAMILIES)}); describe it with "
                "ModuleMap(blocks=..., down=..., head=...), on the command line --modules FILE.json"
            )
        self.modules: ModuleMap = found
        self.blocks: list[nn.Module] = [
            compiled_from(block)
            for block in self._find(model, self.modules.blocks)._modules.values()
            if block is not None
        ]
        if not self.blocks:
            raise MetakeError(f"{family}: {self.modules.blocks} holds no blocks; correct the module map")
        self._refuse_post_norm(self.blocks[0])
        if family == "gpt_neox" and not hasattr(model, "embed_out"):
            self.modules = ModuleMap(self.modules.blocks, self.modules.down)
        self.head: nn.Module = self._find(model, self.modules.head)
        if not hasattr(model, "get_input_embeddings"):
            raise MetakeError(
                f"{family}: the model has no get_input_embeddings(), which says where its tokens enter"
            )
        for layer in range(len(self.blocks)):
            check_weight(f"{family}: {self.modules.down} of block {layer}", self.down(layer))
        described = modules is not None and modules != FAMILIES.get(family)
        if described or not all(is_plain(self.down(layer)) for layer in range(len(self.blocks))):
            with self._evaluating():
                check_values(self)

    def _find(self, root: nn.Module, name: str) -> nn.Module:
        try:
            return compiled_from(root.get_submodule(name))
        except AttributeError as error:
            raise MetakeError(f"{self.family}: no module {name!r}; correct the module map") from error

    def _refuse_post_norm(self, module: nn.Module) -> None:
        names = {name.rsplit(".", 1)[-1] for name, _ in module.named_modules()}
        found = names.intersection(POST_NORMS)
        if found:
            raise MetakeError(
                f"{self.family}: {found.pop()} is applied to the FFN's output before it is added, so the "
                "stream would not receive the edit of the down-projection; not supported"
            )

    def __len__(self) -> int:
        return len(self.blocks)

    def down(self, layer: int) -> nn.Module:
        """The down-projection of a block.

        Args:
            layer: the block.

        Returns:
            An `nn.Linear` or `Conv1D`.
        """
        return self._find(self.blocks[layer], self.modules.down)

    def ffn(self, layer: int) -> nn.Module | None:
        """The FFN of a block, a function of single tokens; None for a described model, where this is not known.

        Args:
            layer: the block.

        Returns:
            The module that contains the down-projection.
        """
        name = self.modules.down.rpartition(".")[0]
        if not name or self.modules.down != getattr(FAMILIES.get(self.family), "down", None):
            return None
        return self._find(self.blocks[layer], name)

    def weight(self, layer: int) -> torch.Tensor:
        """Weight of a down-projection, `d_v x d_k`, a view of the parameter (transposed for `Conv1D`).

        Args:
            layer: the block.

        Returns:
            The weight, in the dtype of the model and without gradients.
        """
        module = self.down(layer)
        weight: torch.Tensor = module.get_parameter("weight").detach()
        return weight.T if isinstance(module, Conv1D) else weight

    @property
    def d_k(self) -> int:
        """Size of a key: inputs of a down-projection."""
        return self.weight(0).shape[1]

    @property
    def d_v(self) -> int:
        """Size of the residual stream: outputs of a down-projection."""
        return self.weight(0).shape[0]

    def check_tokens(self, largest: int) -> None:
        """Refuse token ids without an embedding.

        Args:
            largest: the largest token id.

        Raises:
            MetakeError: the tokenizer is another model's, or has tokens that were added later.
        """
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        count = getattr(embedding, "num_embeddings", len(embedding.weight))
        if largest >= count:
            raise MetakeError(
                f"tokenizer: token {largest} is outside the model's vocabulary of {count}; give the model's own tokenizer, or call "
                "model.resize_token_embeddings(len(tokenizer)) after adding tokens"
            )

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, which take the token ids."""
        device: torch.device = self.model.get_input_embeddings().weight.device  # type: ignore[operator]
        return device

    @property
    def max_positions(self) -> int | None:
        """Length of the longest input; None if the configuration states no limit."""
        config = getattr(self.model, "config", None)
        for key in ("max_position_embeddings", "n_positions"):
            if getattr(config, key, None):
                return int(getattr(config, key))
        return None

    @property
    def pass_tokens(self) -> int:
        """Default number of padded tokens of a pass: 1,024 on a CPU, which fit its caches, 8,192 on a GPU."""
        return 1024 if self.device.type == "cpu" else 8192

    @cached_property
    def written_out_gelus(self) -> list[nn.Module]:
        """Activations of the blocks that compute GELU's tanh form step by step."""
        return [
            module for block in self.blocks for module in block.modules() if type(module) is NewGELUActivation
        ]

    @cached_property
    @torch.no_grad()
    def returns_tuples(self) -> bool:
        """Whether a block returns the stream as the first item of a tuple; depends on the version of `transformers`."""
        found: list[bool] = []

        class Stop(Exception):
            pass

        def probe(_: object, __: object, output: object) -> None:
            found.append(isinstance(output, tuple | list))
            raise Stop

        handle = self.blocks[0].register_forward_hook(probe)
        try:
            with self._evaluating(), suppress(Stop):
                self.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device), use_cache=False)
        finally:
            handle.remove()
        return found[0]

    def _evaluating(self) -> ExitStack:
        """Context without dropout and gradients, in which every hook is called."""
        from metake.models.trace import eager, frozen  # builds on this module

        stack = ExitStack()
        stack.enter_context(frozen(self.model))
        stack.enter_context(eager(self.model))
        return stack

    @property
    def cache_argument(self) -> str:
        """Name of the argument of the model's forward pass that takes the KV cache."""
        names = inspect.signature(self.model.forward).parameters
        return "cache" if "cache" in names else "past_key_values"

    def can_resume(self, length: int) -> bool:
        """Whether a pass over rows can start from a KV cache of their first tokens.

        True for the families of the table only: a described model may count or mask positions differently. Fused
        attention does not take the mask; within a sliding window attention is full.

        Args:
            length: length of the longest row.

        Returns:
            False also for a row longer than the sliding window.
        """
        if self.family not in FAMILIES:
            return False
        config = self.model.config
        if getattr(config, "_attn_implementation", None) not in ("sdpa", "eager"):
            return False
        window = getattr(config, "sliding_window", None)
        return window is None or length <= window

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse layers that the model does not have, or that cannot be edited.

        Args:
            layers: the layers to edit.

        Raises:
            MetakeError: no layer, one that is no number or out of range, or one whose weight is used twice.
        """
        if not isinstance(layers, Sequence) or not all(type(layer) is int for layer in layers):
            raise MetakeError(f"layers: must be a list of whole numbers, got {layers!r}")
        if not layers:
            raise MetakeError("layers: none given; name at least one layer to edit")
        if list(layers) != sorted(set(layers)):
            raise MetakeError(f"layers: {list(layers)} must be in ascending order without repetition")
        for layer in layers:
            if not 0 <= layer < len(self):
                raise MetakeError(
                    f"layers: {layer} is out of range; {self.family} has layers 0 to {len(self) - 1}"
                )
            down = self.down(layer)
            others = other_uses(self.model, down)
            if others or sum(self.down(other) is down for other in range(len(self))) > 1:
                also = others[0] if others else "another block"
                raise MetakeError(
                    f"layers: {layer}: the weight of {self.modules.down} is also that of {also}, so an edit would "
                    "change both; choose another layer"
                )

    def fingerprint(self, layers: int | None = None, dtype: torch.dtype | None = None) -> str:
        """Hash of the model's weights, independent of the device.

        Hashes a strided sample of every weight in fp32, which takes milliseconds and detects a low-rank edit, since it
        changes every entry.

        Args:
            layers: number of blocks that are hashed; all by default.
            dtype: dtype that the weights are rounded to first.

        Returns:
            16 hexadecimal digits.
        """
        digest = hashlib.sha256(json.dumps(asdict(self.modules)).encode())
        parts = [self.model.get_input_embeddings(), *self.blocks[:layers]]  # type: ignore[operator]
        for part in parts:
            for name, tensor in part.state_dict().items():
                flat = tensor.detach().reshape(-1)
                sample = flat[:: max(1, flat.numel() // 512)][:512].cpu()
                if dtype is not None and sample.is_floating_point():
                    sample = sample.to(dtype)
                sample = sample.float()
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(sample.numpy().tobytes())
        return digest.hexdigest()[:16]
