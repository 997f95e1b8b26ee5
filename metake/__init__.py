"""Knowledge editing by bi-level optimization, with its theory checked.

Example:
    import metake

    loaded = metake.load("demo")
    editor = metake.Editor(loaded, method="metake")
    result = editor.edit(metake.Request("What is the craft of {}?", "Nezan Girok", "baker"))
    print(result)

The names of `__all__` are the public interface. Each is imported when it is first used, so that `import metake` alone
does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metake.answers import Answer as Answer
    from metake.answers import Check as Check
    from metake.data.records import Record as Record
    from metake.data.records import read_records as read_records
    from metake.deltas import Applied as Applied
    from metake.deltas import Delta as Delta
    from metake.editor import Editor as Editor
    from metake.errors import MetakeError as MetakeError
    from metake.geometry.covariance import Statistics as Statistics
    from metake.methods.base import Method as Method
    from metake.methods.table import METHODS as METHODS
    from metake.models.architecture import ModuleMap as ModuleMap
    from metake.models.load import Loaded as Loaded
    from metake.models.load import load as load
    from metake.models.load import save_model as save_model
    from metake.presets import settings_for as settings_for
    from metake.presets import statistics_for as statistics_for
    from metake.requests import Request as Request
    from metake.result import EditResult as EditResult
    from metake.result import Preview as Preview

__version__ = "0.1.0"

_MODULE_OF = {
    "METHODS": "metake.methods.table",
    "Answer": "metake.answers",
    "Applied": "metake.deltas",
    "Check": "metake.answers",
    "Delta": "metake.deltas",
    "EditResult": "metake.result",
    "Editor": "metake.editor",
    "Loaded": "metake.models.load",
    "MetakeError": "metake.errors",
    "Method": "metake.methods.base",
    "ModuleMap": "metake.models.architecture",
    "Preview": "metake.result",
    "Record": "metake.data.records",
    "Request": "metake.requests",
    "Statistics": "metake.geometry.covariance",
    "load": "metake.models.load",
    "read_records": "metake.data.records",
    "save_model": "metake.models.load",
    "settings_for": "metake.presets",
    "statistics_for": "metake.presets",
}
__all__ = ["__version__", *_MODULE_OF]

if not TYPE_CHECKING:  # where types are checked, an unknown name stays an error

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'metake' has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
