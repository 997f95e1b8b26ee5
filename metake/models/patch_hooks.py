"""Gated patches at a module, by hooks: the patches of a module are one value, which is read, exchanged and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn


class GatedPatch(Protocol):
    """A change of a module's output (or input) that depends on its input, token by token.

    Attributes:
        at_input: whether the input is changed, and not the output.
        layer: the block whose down-projection is patched.
    """

    at_input: ClassVar[bool]

    @property
    def layer(self) -> int: ...

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The changed values.

        Args:
            x: inputs of the module, `... x d_k`.
            y: values to change, `... x d`: the module's outputs, or its inputs.

        Returns:
            `y` itself, bit for bit, at every token whose gate is closed.
        """

    def to(self, device: torch.device) -> Self:
        """The patch on a device."""


class _Hook:
    """The patches of one module, as the hooks that PyTorch calls."""

    def __init__(self, patches: tuple[Any, ...]) -> None:
        self.patches = patches
        self._moved: dict[torch.device, tuple[Any, ...]] = {}

    def _on(self, device: torch.device) -> tuple[Any, ...]:
        if device not in self._moved:
            self._moved = {device: tuple(patch.to(device) for patch in self.patches)}
        return self._moved[device]

    def before(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Inputs after the patches that change them."""
        x = args[0]
        for patch in self._on(x.device):
            if patch.at_input:
                x = patch(x, x)
        return None if x is args[0] else (x, *args[1:])

    def after(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Outputs after the patches that change them."""
        for patch in self._on(output.device):
            if not patch.at_input:
                output = patch(args[0], output)
        return output


def _hooks(module: nn.Module) -> Iterator[tuple[dict[int, Any], int, _Hook]]:
    """Our hooks of a module: the dictionary, the key, and the object."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in list(hooks.items()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, _Hook):
                yield hooks, key, owner


def patches_on(module: nn.Module) -> tuple[Any, ...]:
    """Patches of a module, in the order in which they act.

    Args:
        module: the module.

    Returns:
        None of them is copied: an unchanged module has the same objects.
    """
    return next((hook.patches for _, _, hook in _hooks(module)), ())


def set_patches(module: nn.Module, patches: tuple[Any, ...]) -> None:
    """Exchange the patches of a module.

    Args:
        module: the module.
        patches: all patches that it has afterwards; none restores the module as it was without any.
    """
    for hooks, key, _ in _hooks(module):
        del hooks[key]
    if patches:
        hook = _Hook(patches)
        module.register_forward_pre_hook(hook.before)
        module.register_forward_hook(hook.after)


@contextmanager
def changed_output(module: nn.Module, change: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Context in which a function of a module's inputs and outputs replaces its outputs.

    Args:
        module: the module.
        change: inputs and outputs (those after its patches) -> outputs.
    """
    handle = module.register_forward_hook(lambda _, args, output: change(args[0], output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recorded_gates(modules: dict[int, nn.Module]) -> Iterator[dict[int, list[Tensor]]]:
    """Context that records which tokens open a gate.

    Args:
        modules: layer -> its patched module.

    Yields:
        Layer -> per pass, whether any of the layer's gates is open, one value per token.
    """
    found: dict[int, list[Tensor]] = {layer: [] for layer in modules}
    handles = []
    for layer, module in modules.items():

        def record(module: nn.Module, args: tuple[Any, ...], layer: int = layer) -> None:
            x = args[0]
            gates = [patch.to(x.device).gate(x.detach().float()) > 0 for patch in patches_on(module)]
            found[layer].append(torch.stack(gates).any(0).cpu())

        handles.append(module.register_forward_pre_hook(record, prepend=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def unfoldable(patch: Any, what: str) -> str:
    """Line on a patch where only weights can be written.

    Args:
        patch: the patch.
        what: begins the line.

    Returns:
        The line.
    """
    return (
        f"{what}: the {patch.kind} patch of layer {patch.layer} has a gate, so it does not fold into the weights; keep the "
        "delta and apply it: Delta.applied(model), metake ask --delta, metake evaluate --edited"
    )
