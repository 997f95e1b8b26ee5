"""Load a model with its tokenizer.

No code that comes with a model is executed: no remote code, no pickle (safetensors or GGUF only).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from metake.errors import MetakeError
from metake.extras import require
from metake.files import as_path, expand
from metake.models.chat import Chat
from metake.models.converted import Conversion
from metake.models.dequantized import dequantize, forget_quantization
from metake.models.editable import EditableModel
from metake.models.known import place_of, suggestion
from metake.models.modules import TOWERS, ModuleMap
from metake.models.save import write_files
from metake.models.sharded import load_sharded
from metake.names import unknown_name
from metake.shipped import DEMOS, DTYPES


def load(
    name: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    modules: ModuleMap | Path | str | None = None,
    chat: bool | None = False,
) -> EditableModel:
    """Load a named model, a local folder or file, or a model from the hub.

    Args:
        name: a name of `metake models`, the path of a folder or GGUF file, or a name on the hub.
        dtype: of the weights, one of `DTYPES`; solves are in fp64 or fp32 in any case.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` to place blocks on all devices of this process, or `sharded` to
            divide every weight over the processes (`sharded:N`: over N processes each); these need accelerate.
            Default: the first GPU, or the CPU without one.
        modules: module map of an unknown family, or a JSON file with it.
        chat: put prompts into the tokenizer's chat template, as user turns. Without it, a tokenizer that has a
            template gives a warning; None suppresses the warning.

    Returns:
        The model, in evaluation mode, with its tokenizer.

    Raises:
        unknown_name: a `MetakeError`, `dtype` is not one of `DTYPES`.
        MetakeError: there is no such model, a package is missing, the family is not supported, the module map cannot
            be read, or `chat` is set and the tokenizer has no chat template.

    Example:
        >>> import metake
        >>> metake.load("demo", device="cpu")
        <EditableModel: demo, gpt2, 6 layers>
    """
    name = os.fspath(as_path(name, "model")) if isinstance(name, Path) else name
    if not isinstance(name, str) or not name.strip():
        raise MetakeError(f"model: must be a name or the path of a folder, got {name!r}; e.g. load('demo')")
    dtype = str(dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    modules = ModuleMap.of(modules)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, str) or device.partition(":")[0] not in ("auto", "sharded"):
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise MetakeError(f"device: {device!r} is not available; try cpu") from error
    place, options = place_of(name)
    read = _from_gguf if "gguf_file" in options else _from_pretrained
    model, tokenizer = read(name, place, options, getattr(torch, dtype), device, modules)
    path = expand(name)
    canonical = name if name in DEMOS or not path.exists() else path.resolve().name
    model.name_or_path = canonical
    if chat is False and getattr(tokenizer, "chat_template", None):
        warnings.warn(
            f"{name}: the tokenizer has a chat template, but prompts are used without it; give chat=True (--chat) to use it",
            stacklevel=2,
        )
    tokenizer = Chat(tokenizer) if chat else tokenizer
    return EditableModel(model, tokenizer, name=canonical, modules=modules)


def editable_model(model: Any, modules: ModuleMap | Path | str | None = None) -> EditableModel:
    """The `EditableModel` of a model; an `EditableModel` is returned unchanged.

    Args:
        model: an `EditableModel` or a model of `transformers`.
        modules: module map of an unknown family.

    Returns:
        The model, without a tokenizer if it had none.

    Raises:
        MetakeError: another type, or a model that cannot be edited.
    """
    if isinstance(model, EditableModel):
        if modules is None:
            return model
        return EditableModel(model.model, model.tokenizer, name=model.name, modules=modules)
    if not isinstance(model, torch.nn.Module):
        raise MetakeError(
            f"model: must be what metake.load returns, or a transformers model, not {type(model).__name__}; "
            "load one first, e.g. metake.load('demo')"
        )
    return EditableModel(model, modules=modules)


def as_editable(
    model: Any, tokenizer: Any = None, modules: ModuleMap | Path | str | None = None
) -> EditableModel:
    """A model with its tokenizer, of an `EditableModel` (whose tokenizer can be another one), or of a model and a tokenizer.

    Args:
        model: an `EditableModel` or a model of `transformers`.
        tokenizer: the model's tokenizer; by default that of the `EditableModel`.
        modules: module map of an unknown family.

    Returns:
        The model with its tokenizer.

    Raises:
        MetakeError: either is missing or something else, or the model cannot be edited.
    """
    editable = editable_model(model, modules)
    tokenizer = editable.tokenizer if tokenizer is None else tokenizer
    if tokenizer is None:
        raise MetakeError("tokenizer: is missing; give the model's, or what metake.load returns for both")
    if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        raise MetakeError(
            f"tokenizer: must be a tokenizer, not {type(tokenizer).__name__}; a method is named by method=..."
        )
    return editable if tokenizer is editable.tokenizer else editable.with_tokenizer(tokenizer)


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Context without transformers' bar for weights, and with that for GGUF files on a terminal only.

    Bars of downloads are left as they are. The caller's setting is restored afterwards.
    """
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as bars

    reader: Any = modeling_gguf_pytorch_utils  # exports no tqdm
    # `disable_progress_bar` would hide the hub's downloads, too
    own, active = reader.tqdm, bars._tqdm_active
    reader.tqdm, bars._tqdm_active = partial(own, disable=None), False
    try:
        yield
    finally:
        reader.tqdm, bars._tqdm_active = own, active


def _from_gguf(
    name: str,
    place: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    device: str | torch.device,
    modules: ModuleMap | None,
) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file, from the cache, or converted and cached."""
    with ThreadPoolExecutor(1) as beside:  # its file and its copy in the cache are hashed
        found = beside.submit(_conversion, Path(place, options["gguf_file"]), dtype)
        import_module("transformers.modeling_utils")
    conversion, is_cached = found.result()
    if str(device).startswith("sharded") and not is_cached:
        raise MetakeError(f"{name}: load the GGUF file once without {device}, which converts it")
    if is_cached:
        here = {"local_files_only": True}
        return _from_pretrained(name, str(conversion.folder), here, dtype, device, modules)
    cacheable = conversion.is_cacheable()
    loaded = _from_pretrained(name, place, options, dtype, device, modules)
    if cacheable:
        with bars_on_terminals():
            conversion.store(lambda folder: write_files(*loaded, folder))
    return loaded


def _conversion(file: Path, dtype: torch.dtype) -> tuple[Conversion, bool]:
    """Place of a GGUF file's conversion, and whether it is there and undamaged."""
    conversion = Conversion.of(file, str(dtype).removeprefix("torch."))
    return conversion, conversion.is_cached()


def _from_pretrained(
    name: str,
    place: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    device: str | torch.device,
    modules: ModuleMap | None,
) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    divided = str(device).startswith("sharded")
    if device == "auto" or divided:
        require("hub", "accelerate", what=f"device: {device}")
    sharding = {"device_map": "auto"} if device == "auto" else {}
    safe = {} if "gguf_file" in options else {"use_safetensors": True}
    # an unreachable hub gives one error line without the warnings of its retries
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with bars_on_terminals():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
            if divided:
                model = load_sharded(name, place, str(device), dtype, modules)
                return model.eval(), tokenizer
            read: Any = _loader(place, options)  # its type leaves out the loading information
            model, found = read(
                place,
                dtype=dtype,
                trust_remote_code=False,
                output_loading_info=True,
                **safe,
                **sharding,
                **options,
            )
    except MetakeError:
        raise
    except Exception as error:  # the loaders raise whatever their formats raise
        reason = shorten(next(iter(str(error).strip().splitlines()), ""), 200, placeholder=" ...")
        remedy = "" if options else f"; {suggestion(name)}"  # options: the files are here
        raise MetakeError(f"{name}: cannot be loaded{remedy} ({type(error).__name__}: {reason})") from error
    if missing := sorted(found["missing_keys"]):  # the loader would fill them with random numbers
        raise MetakeError(
            f"{name}: has no weights for {missing[0]} (of {len(missing)}); save the whole model again"
        )
    if "gguf_file" in options:  # its weights are dense already
        forget_quantization(model)
    elif getattr(model, "is_quantized", False):
        count = dequantize(model, name, dtype)
        warnings.warn(
            f"{name}: {count} quantized modules are dequantized; deliver an edit as an adapter over the quantized model (metake export)",
            stacklevel=4,
        )
    if not sharding:
        model.to(device)
    return model.eval(), tokenizer


def _loader(place: str, options: dict[str, Any]) -> Any:
    """`from_pretrained` of a causal language model, or of a vision-language model, whose language tower is edited."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    if "gguf_file" in options:
        return AutoModelForCausalLM.from_pretrained
    kind = AutoConfig.from_pretrained(place, trust_remote_code=False, **options).model_type
    return (AutoModelForImageTextToText if kind in TOWERS else AutoModelForCausalLM).from_pretrained
