"""Knowledge editing for language models (ROME, MEMIT, AlphaEdit, MetaKE, ...), with a report of each edit.

Start here:

    >>> import metake as mk
    >>> model = mk.load("demo")                       # or "smollm2", a folder, a .gguf file, a hub name
    >>> editor = mk.Editor(model, method="metake")    # METHODS lists the names; help(mk.Editor)
    >>> result = editor.edit(mk.EditRequest("What is the craft of {}?", "Nezan Girok", "baker"))
    >>> print(result)                                 # answers before and after, realized share of each layer
    >>> result.delta.save("edit")                     # the weight update alone; help(mk.Delta)
    >>> editor.revert()                               # the original weights, bit for bit

Public names, by task:

Edit a model: load, save_model, EditableModel, ModuleMap, EditRequest, Editor, EditResult, Delta,
    MetakeError.
Data: Record, read_records, Statistics, statistics_for.
Evaluate methods: Protocol.
Methods: rome, memit, alphaedit, metake, compensated, iterated, with_past_keys, forward_replay,
    settings_for, locate, METHODS.
Custom components: Method, LocateThenEdit, Planner, OpenLoop, Gradient, GeometrySpec, Geometry,
    Allocation, KeyEstimator, Memory, Postprocess, Row, register, register_method, Batch,
    answer_keys_and_gradients.

A method is a value: `mk.metake(mk.alphaedit(layers), gradient="unrolled")`. The command line has the same functions:
`metake --help`. Each name is imported when it is first used, so that `import metake` alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metake.calibration.locate import locate as locate
    from metake.components import register as register
    from metake.constructors import alphaedit as alphaedit
    from metake.constructors import memit as memit
    from metake.constructors import metake as metake
    from metake.constructors import rome as rome
    from metake.data.record import Record as Record
    from metake.data.records import read_records as read_records
    from metake.deltas import Delta as Delta
    from metake.editor import Editor as Editor
    from metake.errors import MetakeError as MetakeError
    from metake.evaluation.protocol import Protocol as Protocol
    from metake.geometry.operator import Geometry as Geometry
    from metake.geometry.specs import GeometrySpec as GeometrySpec
    from metake.geometry.statistics import Statistics as Statistics
    from metake.key_estimators import KeyEstimator as KeyEstimator
    from metake.methods.base import Method as Method
    from metake.methods.combinators import compensated as compensated
    from metake.methods.combinators import forward_replay as forward_replay
    from metake.methods.combinators import iterated as iterated
    from metake.methods.combinators import with_past_keys as with_past_keys
    from metake.methods.locate_then_edit import LocateThenEdit as LocateThenEdit
    from metake.methods.table import METHODS as METHODS
    from metake.methods.table import Row as Row
    from metake.methods.table import register_method as register_method
    from metake.models.editable import EditableModel as EditableModel
    from metake.models.load import load as load
    from metake.models.modules import ModuleMap as ModuleMap
    from metake.models.save import save_model as save_model
    from metake.planners.base import Planner as Planner
    from metake.planners.gradients import Gradient as Gradient
    from metake.planners.normalized_gradient import answer_keys_and_gradients as answer_keys_and_gradients
    from metake.planners.open_loop import OpenLoop as OpenLoop
    from metake.presets import settings_for as settings_for
    from metake.prompts import Batch as Batch
    from metake.requests import EditRequest as EditRequest
    from metake.result import EditResult as EditResult
    from metake.solvers.allocation import Allocation as Allocation
    from metake.solvers.memory import Memory as Memory
    from metake.solvers.postprocess import Postprocess as Postprocess
    from metake.statistics_cache import statistics_for as statistics_for

__version__ = "0.2.0"

_MODULE_OF = {
    "Allocation": "metake.solvers.allocation",
    "Batch": "metake.prompts",
    "Delta": "metake.deltas",
    "EditResult": "metake.result",
    "EditableModel": "metake.models.editable",
    "Editor": "metake.editor",
    "Geometry": "metake.geometry.operator",
    "GeometrySpec": "metake.geometry.specs",
    "Gradient": "metake.planners.gradients",
    "KeyEstimator": "metake.key_estimators",
    "locate": "metake.calibration.locate",
    "LocateThenEdit": "metake.methods.locate_then_edit",
    "METHODS": "metake.methods.table",
    "Memory": "metake.solvers.memory",
    "MetakeError": "metake.errors",
    "Method": "metake.methods.base",
    "ModuleMap": "metake.models.modules",
    "OpenLoop": "metake.planners.open_loop",
    "Planner": "metake.planners.base",
    "Postprocess": "metake.solvers.postprocess",
    "Protocol": "metake.evaluation.protocol",
    "Record": "metake.data.record",
    "EditRequest": "metake.requests",
    "Row": "metake.methods.table",
    "Statistics": "metake.geometry.statistics",
    "alphaedit": "metake.constructors",
    "answer_keys_and_gradients": "metake.planners.normalized_gradient",
    "compensated": "metake.methods.combinators",
    "forward_replay": "metake.methods.combinators",
    "iterated": "metake.methods.combinators",
    "load": "metake.models.load",
    "memit": "metake.constructors",
    "metake": "metake.constructors",
    "read_records": "metake.data.records",
    "register": "metake.components",
    "register_method": "metake.methods.table",
    "with_past_keys": "metake.methods.combinators",
    "rome": "metake.constructors",
    "save_model": "metake.models.save",
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
