"""A model with its tokenizer and the modules that an edit uses: its blocks, their down-projections, its head."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from metake.errors import MetakeError
from metake.models.chat import Chat
from metake.models.experts import Experts
from metake.models.modules import DESCRIBED, FAMILIES, ModuleMap
from metake.models.patch_hooks import patches_on
from metake.models.post_norm import PostNorm
from metake.models.probe import check_values
from metake.models.sharded import assign, gathered, is_sharded
from metake.models.weights import check_weight, is_plain, other_uses
from metake.models.wrappers import compiled_from, unwrap
from metake.words import counted

MAX_NEW_TOKENS = 40


class EditableModel:
    """A causal language model with its tokenizer and access to the modules that are edited.

    Args:
        model: from `transformers`, or any module called with `input_ids` that returns `.logits`.
        tokenizer: the model's tokenizer, or a `Chat` that puts prompts into the chat template; not needed where token
            ids are given.
        name: the model's name in messages and result files; by default that in its configuration, or its family.
        modules: needed for a model whose family is not in `FAMILIES`; a map, or the file of one.

    Attributes:
        model: the module; edits change its weights.
        family: model type of its configuration.
        blocks: its transformer blocks.
        head: the module that turns hidden states into logits.

    Raises:
        MetakeError: unknown family, a named module is missing, the stream does not receive the FFN output as it is or
            after an RMS norm, or the weights are quantized.

    Example:
        >>> import metake as mk
        >>> demo = mk.load("demo", device="cpu")
        >>> model = mk.EditableModel(demo.model, demo.tokenizer)
        >>> model.family, len(model.blocks) == len(model)
        ('gpt2', True)
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        name: str = "",
        modules: ModuleMap | Path | str | None = None,
    ) -> None:
        model = unwrap(model)
        self.model: Any = model
        self.tokenizer = tokenizer
        modules = ModuleMap.of(modules)
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        self.family: str = family
        self.name = name or str(getattr(model, "name_or_path", "") or family)
        found = modules or FAMILIES.get(family) or DESCRIBED.get(family)
        if found is None:
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
        mixtures = (Experts.of(block, self.modules.down) for block in self.blocks)
        self.experts = {layer: found for layer, found in enumerate(mixtures) if found is not None}
        if family == "gpt_neox" and not hasattr(model, "embed_out"):
            self.modules = ModuleMap(self.modules.blocks, self.modules.down)
        self.head: nn.Module = self._find(model, self.modules.head)
        if not hasattr(model, "get_input_embeddings"):
            raise MetakeError(
                f"{family}: the model has no get_input_embeddings(), which says where its tokens enter"
            )
        for layer in range(len(self.blocks)):
            check_weight(
                f"{family}: {self.modules.down} of block {layer}", self.down(layer), is_sharded(model)
            )
        if is_sharded(model) and (self.experts or self.post_norm(0) is not None):
            raise MetakeError(
                f"{family}: experts and norms of FFN outputs cannot be divided; use --device auto"
            )
        described = found != FAMILIES.get(family)
        plain = all(is_plain(self.down(layer)) for layer in range(len(self.blocks)))
        if described or not plain or self.post_norm(0) is not None:
            with self._evaluating():
                check_values(self)

    def _find(self, root: nn.Module, name: str) -> nn.Module:
        try:
            return compiled_from(root.get_submodule(name))
        except AttributeError as error:
            raise MetakeError(f"{self.family}: no module {name!r}; correct the module map") from error

    def __len__(self) -> int:
        return len(self.blocks)

    def __repr__(self) -> str:
        chat = ", chat template" if isinstance(self.tokenizer, Chat) else ""
        return f"<EditableModel: {self.name}, {self.family}, {counted(len(self), 'layer')}{chat}>"

    def with_tokenizer(self, tokenizer: Any) -> EditableModel:
        """The same model with another tokenizer.

        Args:
            tokenizer: a tokenizer of the model, or a `Chat`.

        Returns:
            A copy that shares the module.
        """
        other = copy.copy(self)
        other.tokenizer = tokenizer
        return other

    @overload
    def ask(self, questions: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> str: ...

    @overload
    def ask(
        self, questions: list[str] | tuple[str, ...], *, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[str]: ...

    def ask(self, questions: str | Iterable[str], *, max_new_tokens: int = MAX_NEW_TOKENS) -> str | list[str]:
        """Greedy answer of the model in its current state, or a list of answers to several questions.

        With `load(name, chat=True)` an answer is the whole turn, otherwise its first line.

        Args:
            questions: complete prompts.
            max_new_tokens: maximum number of tokens per answer.

        Returns:
            A string for a string, otherwise a list.
        """
        from metake.models.ask import ask  # builds on this module

        return ask(self, questions, max_new_tokens)

    def down(self, layer: int) -> nn.Module:
        """The down-projection of a block.

        Args:
            layer: the block.

        Returns:
            An `nn.Linear` or `Conv1D`.
        """
        if layer in self.experts:
            return self.experts[layer].down
        return self._find(self.blocks[layer], self.modules.down)

    def module_name(self, layer: int | str) -> str:
        """Dotted name of a down-projection in the model.

        Args:
            layer: the block, or a text that stands for its number.

        Returns:
            E.g. `transformer.h.17.mlp.c_proj`.
        """
        return f"{self.modules.blocks}.{layer}.{self.modules.down}"

    def post_norm(self, layer: int) -> PostNorm | None:
        """The norm between a block's down-projection and the residual add; None if there is none.

        Args:
            layer: the block.

        Returns:
            The norm of Gemma 2 and 3 and OLMo 2.
        """
        return PostNorm.of(self.blocks[layer])

    def ffn(self, layer: int) -> nn.Module | None:
        """The FFN of a block, a function of single tokens; None for a model with a user-supplied module map.

        Args:
            layer: the block.

        Returns:
            The module that contains the down-projection.
        """
        name = self.modules.down.rpartition(".")[0]
        if (
            not name
            or layer in self.experts
            or self.modules.down != getattr(FAMILIES.get(self.family), "down", None)
        ):
            return None
        return self._find(self.blocks[layer], name)

    def weight(self, layer: int) -> torch.Tensor:
        """Weight of a down-projection, `d_v x d_k`, a view of the parameter (transposed for `Conv1D`).

        Of a model that is divided over processes: the whole weight, a copy; all processes have to call this.

        Args:
            layer: the block.

        Returns:
            The weight, in the dtype of the model and without gradients.
        """
        module = self.down(layer)
        weight = gathered(module.get_parameter("weight").detach())
        return weight.T if isinstance(module, Conv1D) else weight

    def set_weight(self, layer: int, values: torch.Tensor) -> None:
        """Write the weight of a down-projection.

        Args:
            layer: the block.
            values: `d_v x d_k`, on any device.
        """
        module = self.down(layer)
        values = values.T if isinstance(module, Conv1D) else values
        assign(module.get_parameter("weight").detach(), values)

    def weight_shape(self, layer: int) -> tuple[int, int]:
        """Shape of a down-projection's weight, `(d_v, d_k)`.

        Args:
            layer: the block.

        Returns:
            Number of rows and columns.
        """
        module = self.down(layer)
        rows, columns = module.get_parameter("weight").shape
        return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)

    def weight_device(self, layer: int) -> torch.device:
        """Device of a down-projection.

        Args:
            layer: the block.

        Returns:
            The device; of a divided model, this process's.
        """
        return self.down(layer).get_parameter("weight").device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the down-projections."""
        return self.down(0).get_parameter("weight").dtype

    @property
    def d_k(self) -> int:
        """Size of a key: inputs of a down-projection."""
        return self.weight_shape(0)[1]

    @property
    def d_v(self) -> int:
        """Size of the residual stream: outputs of a down-projection."""
        return self.weight_shape(0)[0]

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are divided over processes."""
        return is_sharded(self.model)

    @property
    def moment_shape(self) -> tuple[int, ...]:
        """Shape of C: `d_k x d_k`, in a mixture of experts one matrix per expert."""
        if not self.experts:
            return (self.d_k, self.d_k)
        count = next(iter(self.experts.values())).count
        return (count, self.d_k // count, self.d_k // count)

    def check_tokens(self, largest: int) -> None:
        """Refuse token ids without an embedding.

        Args:
            largest: the largest token id.

        Raises:
            MetakeError: the tokenizer is another model's, or has tokens that were added later.
        """
        embedding = self.model.get_input_embeddings()
        count = getattr(embedding, "num_embeddings", len(embedding.weight))
        if largest >= count:
            raise MetakeError(
                f"tokenizer: token {largest} is outside the model's vocabulary of {count}; give the model's own tokenizer, or call "
                "model.resize_token_embeddings(len(tokenizer)) after adding tokens"
            )

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, which take the token ids."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def max_positions(self) -> int | None:
        """Length of the longest input; None if the configuration states no limit."""
        config = getattr(self.model, "config", None)
        config = getattr(config, "text_config", config)  # of a vision-language model
        for key in ("max_position_embeddings", "n_positions"):
            if getattr(config, key, None):
                return int(getattr(config, key))
        return None

    @property
    def pass_tokens(self) -> int:
        """Default number of padded tokens of a pass: 1,024 on a CPU, which fit its caches, 8,192 on a GPU."""
        return 1024 if self.device.type == "cpu" else 8192

    @cached_property
    def unfused_gelus(self) -> list[nn.Module]:
        """Activations of the blocks that compute GELU's tanh form step by step."""
        from transformers.activations import NewGELUActivation  # imports for a second, done with a model

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
            experts = self.experts.get(layer)
            others = other_uses(self.model, down, experts.module if experts else None)
            if others or sum(self.down(other) is down for other in range(len(self))) > 1:
                also = others[0] if others else "another block"
                raise MetakeError(
                    f"layers: {layer}: the weight of {self.modules.down} is also that of {also}, so an edit would "
                    "change both; choose another layer"
                )

    def fingerprint(self, layers: int | None = None, dtype: torch.dtype | None = None) -> str:
        """Hash of the model's weights and patches, independent of the device.

        Hashes a strided sample of every weight in fp32, which takes milliseconds and detects a low-rank edit, since it
        changes every entry.

        Args:
            layers: number of blocks that are hashed; all by default.
            dtype: dtype that the weights are rounded to first.

        Returns:
            16 hexadecimal digits.
        """
        digest = hashlib.sha256(json.dumps(asdict(self.modules)).encode())
        parts = [self.model.get_input_embeddings(), *self.blocks[:layers]]
        for part in parts:
            for name, tensor in part.state_dict().items():
                flat = gathered(tensor.detach()).reshape(-1)
                sample = flat[:: max(1, flat.numel() // 512)][:512].cpu()
                if dtype is not None and sample.is_floating_point():
                    sample = sample.to(dtype)
                sample = sample.float()
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(sample.numpy().tobytes())
        for layer in range(len(self) if layers is None else min(layers, len(self))):
            if layer not in self.experts:
                for patch in patches_on(self.down(layer)):
                    digest.update(f"{layer}{patch.digest}".encode())
        return digest.hexdigest()[:16]
