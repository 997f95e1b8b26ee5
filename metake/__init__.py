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
    from metake.components import register as register
    from metake.data.records import Record as Record
    from metake.data.records import read_records as read_records
    from metake.deltas import Applied as Applied
    from metake.deltas import Delta as Delta
    from metake.editor import Editor as Editor
    from metake.errors import MetakeError as MetakeError
    from metake.geometry.operator import Geometry as Geometry
    from metake.geometry.specs import GeometrySpec as GeometrySpec
    from metake.geometry.statistics import Statistics as Statistics
    from metake.key_estimators import KeyEstimator as KeyEstimator
    from metake.methods.base import Method as Method
    from metake.methods.base import State as State
    from metake.methods.locate_then_edit import LocateThenEdit as LocateThenEdit
    from metake.methods.table import METHODS as METHODS
    from metake.methods.table import Row as Row
    from metake.methods.table import method_named as method_named
    from metake.methods.table import register_method as register_method
    from metake.models.architecture import ModuleMap as ModuleMap
    from metake.models.load import EditableModel as EditableModel
    from metake.models.load import load as load
    from metake.models.load import save_model as save_model
    from metake.planners.base import Planner as Planner
    from metake.planners.closed_loop import ClosedLoop as ClosedLoop
    from metake.planners.compensated import Compensated as Compensated
    from metake.planners.gradients import Gradient as Gradient
    from metake.planners.normalized_gradient import answer_signals as answer_signals
    from metake.planners.open_loop import OpenLoop as OpenLoop
    from metake.presets import methods_for as methods_for
    from metake.presets import settings_for as settings_for
    from metake.prompts import Batch as Batch
    from metake.requests import Request as Request
    from metake.result import EditResult as EditResult
    from metake.result import Preview as Preview
    from metake.solvers.allocation import Allocation as Allocation
    from metake.solvers.memory import Memory as Memory
    from metake.solvers.postprocess import Postprocess as Postprocess
    from metake.statistics_cache import statistics_for as statistics_for

__version__ = "0.1.0"

_MODULE_OF = {
    "Allocation": "metake.solvers.allocation",
    "Answer": "metake.answers",
    "Applied": "metake.deltas",
    "Batch": "metake.prompts",
    "Check": "metake.answers",
    "ClosedLoop": "metake.planners.closed_loop",
    "Compensated": "metake.planners.compensated",
    "Delta": "metake.deltas",
    "EditableModel": "metake.models.load",
    "EditResult": "metake.result",
    "Editor": "metake.editor",
    "Geometry": "metake.geometry.operator",
    "GeometrySpec": "metake.geometry.specs",
    "Gradient": "metake.planners.gradients",
    "KeyEstimator": "metake.key_estimators",
    "LocateThenEdit": "metake.methods.locate_then_edit",
    "METHODS": "metake.methods.table",
    "Memory": "metake.solvers.memory",
    "MetakeError": "metake.errors",
    "Method": "metake.methods.base",
    "ModuleMap": "metake.models.architecture",
    "OpenLoop": "metake.planners.open_loop",
    "Planner": "metake.planners.base",
    "Postprocess": "metake.solvers.postprocess",
    "Preview": "metake.result",
    "Record": "metake.data.records",
    "Request": "metake.requests",
    "Row": "metake.methods.table",
    "State": "metake.methods.base",
    "Statistics": "metake.geometry.statistics",
    "answer_signals": "metake.planners.normalized_gradient",
    "load": "metake.models.load",
    "method_named": "metake.methods.table",
    "methods_for": "metake.presets",
    "read_records": "metake.data.records",
    "register": "metake.components",
    "register_method": "metake.methods.table",
    "save_model": "metake.models.load",
    "settings_for": "metake.presets",
    "statistics_for": "metake.statistics_cache",
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
