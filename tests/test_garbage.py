"""Garbage collection of the command line."""

import gc
import subprocess
import sys

import pytest

from metake.commands.common import load_model
from metake.commands.garbage import THRESHOLD, postponed_collection, resume_collection
from metake.commands.program import Script

AT_EXIT = """
import atexit, gc
from metake.commands.garbage import postponed_collection
atexit.register(lambda: print(gc.get_freeze_count()))  # runs after the handler of the context
{context}
"""


@pytest.fixture
def as_in_a_program():
    """Nothing is frozen, unlike in a test process."""
    gc.unfreeze()
    yield
    gc.freeze()


def test_collection_is_rare_until_the_model_is_loaded(as_in_a_program):
    """Afterwards it is as usual, and what was made before is left out; the end restores both."""
    usual = gc.get_threshold()
    with postponed_collection():
        assert gc.get_threshold()[0] == THRESHOLD > usual[0]
        load_model("demo", "cpu", "float32", None)
        assert gc.get_threshold() == usual
        assert gc.get_freeze_count() > 1000
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0)


def test_a_script_postpones_collection(as_in_a_program, capsys):
    """Scripts and the command line run in the context."""

    def show() -> None:
        print(gc.get_threshold()[0])

    Script("show", show)([])
    assert capsys.readouterr().out == f"{THRESHOLD}\n"


def test_collection_of_a_process_that_froze_its_objects_is_unchanged():
    """As in a test process, where commands run one after the other."""
    before = gc.get_threshold(), gc.get_freeze_count()
    assert before[1] > 1000
    with postponed_collection():
        assert gc.get_threshold() == before[0]
        load_model("demo", "cpu", "float32", None)
    assert gc.get_threshold() == before[0]
    assert before[1] >= gc.get_freeze_count() > 1000  # some objects have ended


def test_collection_is_restored_after_an_error(as_in_a_program):
    """A command that fails before it loads a model leaves the thresholds as they were."""
    usual = gc.get_threshold()
    with pytest.raises(RuntimeError), postponed_collection():
        raise RuntimeError
    assert gc.get_threshold() == usual


def test_resume_collection_has_no_effect_in_a_library():
    """`load_model` outside the command line freezes nothing."""
    before = gc.get_threshold(), gc.get_freeze_count()
    resume_collection()
    assert gc.get_threshold() == before[0]
    assert gc.get_freeze_count() <= before[1]


@pytest.mark.parametrize(("context", "frozen"), [("with postponed_collection(): pass", True), ("", False)])
def test_objects_are_frozen_at_exit(context, frozen):
    """The interpreter then finds none to go through."""
    code = AT_EXIT.format(context=context)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (int(found.stdout) > 1000) is frozen
