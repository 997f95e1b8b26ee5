"""`save_pretrained`, `from_pretrained` and `push_to_hub` of a weight update: PEFT adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from metake.adapters.adapter import Adapter, build_adapter, check_paths, described_modules
from metake.adapters.base_name import loadable_base
from metake.adapters.export import Exported, save_peft
from metake.adapters.hub import local_folder, push
from metake.adapters.peft_reader import PeftFolder, layers_of, read_peft
from metake.adapters.serving import MAX_RANK
from metake.files import as_path
from metake.models.editable import EditableModel
from metake.models.load import editable_model


class Pretrained:
    """Base class of `Delta`: its forms in the Hugging Face ecosystem."""

    factors: Mapping[int, tuple[Tensor, Tensor]]
    model: str
    note: dict[str, Any]
    dense_updates: Mapping[int, Tensor]

    def __init__(
        self, factors: Mapping[int, tuple[Tensor, Tensor]], model: str, note: dict[str, Any]
    ) -> None:
        raise NotImplementedError

    @property
    def layers(self) -> tuple[int, ...]:
        """Changed layers, ascending."""
        raise NotImplementedError

    def require_foldable(self, what: str) -> None:
        """Refuse gated patches where only weights can be written.

        Args:
            what: begins the error line.
        """
        raise NotImplementedError

    def check_values(self, where: str = "delta") -> None:
        """Refuse a change that is not finite.

        Args:
            where: begins the error line, e.g. the file.
        """
        raise NotImplementedError

    def check_fits(self, model: EditableModel, check: bool = True, where: str = "delta") -> None:
        """Refuse a model that the change was not made for.

        Args:
            model: the model.
            check: compare the model's fingerprint with that of the change.
            where: begins the error line, e.g. the file.
        """
        raise NotImplementedError

    def as_adapter(
        self,
        model: EditableModel | nn.Module | None = None,
        *,
        base: str = "",
        max_rank: int = MAX_RANK,
        pad: bool = True,
        check: bool = True,
    ) -> Adapter:
        """The change as LoRA factors by module path; a dense update is replaced by its largest singular values.

        Args:
            model: the unedited model; needed only for a delta that does not say which modules it changes.
            base: hub name or folder of the base model in the adapter; default: of the model that the note names, if a
                hub name or folder of it is known.
            max_rank: largest rank of a layer; factors with more columns are recompressed.
            pad: pad every layer with zeros to one rank that vLLM takes.
            check: compare the model's fingerprint with that of the delta.

        Returns:
            The adapter, with the relative error of each layer.

        Raises:
            MetakeError: the model is another one, the change is empty or not finite, or no LoRA can address a module.
        """
        self.require_foldable("export")
        self.check_values()
        modules, name, fingerprint = self.note.get("modules"), self.note.get("model", ""), self.model
        if model is not None and self.layers:
            editable = editable_model(model)
            self.check_fits(editable, check)
            check_paths(editable, self.layers)
            modules, name = described_modules(editable), name or editable.name
            fingerprint = fingerprint or editable.fingerprint()
        return build_adapter(
            self.factors,
            self.dense_updates,
            modules=modules,
            base=base or loadable_base(name),
            fingerprint=fingerprint,
            note=self.note,
            max_rank=max_rank,
            pad=pad,
        )

    def save_pretrained(
        self,
        folder: Path | str,
        model: EditableModel | nn.Module | None = None,
        *,
        report: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        **options: Any,
    ) -> Exported:
        """Write the change as a PEFT adapter, with a model card (docs/export.md).

        Args:
            folder: folder of the adapter.
            model: the unedited model; needed only for a delta that does not say which modules it changes.
            report: measurements for the model card, e.g. `EditResult.summary()`.
            overwrite: write even if the folder holds other files.
            **options: `base`, `max_rank`, `pad` and `check` of `as_adapter`.

        Returns:
            Ranks, relative errors, and the command that serves the folder.

        Raises:
            MetakeError: as `as_adapter`; or the folder cannot be written or holds other files.

        Example:
            >>> import torch
            >>> import metake as mk
            >>> model = mk.load("demo", device="cpu")
            >>> delta = mk.Delta({2: (torch.ones(model.d_v, 3), torch.ones(model.d_k, 3))})
            >>> print(delta.save_pretrained("adapter", model, base="owner/name").serve)
            vllm serve owner/name --enable-lora --lora-modules edit=adapter
            >>> mk.Delta.from_pretrained("adapter").layers
            (2,)
        """
        path = as_path(folder, "Delta.save_pretrained: folder")
        return save_peft(self.as_adapter(model, **options), path, report or {}, overwrite=overwrite)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        model: EditableModel | nn.Module | None = None,
        *,
        check: bool = True,
    ) -> Self:
        """Read a PEFT adapter: one of `save_pretrained`, or one that peft wrote (any alpha, rsLoRA; not DoRA).

        Args:
            folder: the folder, or a repository of the hub, `owner/name`.
            model: the base model; needed for a folder that peft wrote.
            check: compare the folder's base model with the model.

        Returns:
            The delta, for the model.

        Raises:
            MetakeError: the folder is incomplete or damaged, is no plain LoRA, changes other modules than
                down-projections, or was made for another model.
        """
        content = read_peft(local_folder(folder, "Delta.from_pretrained: folder"))
        return cls.from_peft(content, None if model is None else editable_model(model), check=check)

    @classmethod
    def from_peft(cls, content: PeftFolder, model: EditableModel | None, *, check: bool = True) -> Self:
        """The delta of a folder that was read; `from_pretrained` in one step.

        Args:
            content: what `read_peft` returns.
            model: as in `from_pretrained`.
            check: as in `from_pretrained`.

        Returns:
            The delta.
        """
        factors = layers_of(content, model, check=check)
        made_for, note = content.meta.get("model", ""), content.meta.get("note", {})
        if model is not None and not made_for:
            made_for, note = model.fingerprint(), {"model": model.name, **note}
        modules = content.meta.get("modules") if model is None else described_modules(model)
        note = {**note, "modules": modules}
        delta = cls(factors, made_for, note)
        if model is not None:
            delta.check_fits(model, check, str(content.folder))
        return delta

    def push_to_hub(
        self,
        repo_id: str,
        model: EditableModel | nn.Module | None = None,
        *,
        token: str | None = None,
        private: bool | None = None,
        report: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Upload what `save_pretrained` writes to a repository of the hub, which is made if it does not exist.

        Args:
            repo_id: `owner/name`.
            model: as in `save_pretrained`.
            token: access token; default: that of `hf auth login`.
            private: whether a new repository is private.
            report: as in `save_pretrained`.
            **options: as in `save_pretrained`.

        Returns:
            Address of the commit.

        Raises:
            MetakeError: as `save_pretrained`; or the hub cannot be reached or refuses the upload.
        """
        adapter = self.as_adapter(model, **options)
        return push(
            repo_id,
            lambda folder: save_peft(adapter, folder, report or {}, shown_as=repo_id),
            token=token,
            private=private,
        )
