"""`run_zsre.py` killed without warning, again and again, ends like a run that was left alone."""

import multiprocessing
import random
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments import run_zsre
from tests.cases import results_of

RUN = ("--methods", "alphaedit", "--edits", 20, "--batch", 2, "--seeds", 1, "--no-generate", "--untuned")


def command(out, slow_disk):
    replace = Path.replace
    if slow_disk:  # so that there is a time between a file's writing and its renaming
        Path.replace = lambda self, target: (time.sleep(0.02), replace(self, target))[1]
    sys.argv = ["run_zsre.py", *map(str, RUN), "--out", str(out)]
    run_zsre.main()


def start(out, slow_disk=False):
    """The command in a process of its own, forked so that nothing has to be imported again."""
    process = multiprocessing.get_context("fork").Process(target=command, args=(out, slow_disk))
    process.start()
    return process


def kill_when(out, moment, slow_disk):
    """Start the run, kill it (SIGKILL) as soon as `moment()` is true; whether it was still running."""
    process = start(out, slow_disk)
    while process.is_alive() and not moment():
        time.sleep(0.005)
    process.kill()
    process.join()
    return process.exitcode == -9


def finish(out):
    process = start(out)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("seed", [0])
def test_evaluate_killed_five_times_gives_equal_results(demo, tmp_path, seed):
    """Killed five times it ends with the same weights and numbers.

    Three times at random moments of a batch, twice while a file is being written; `demo` imports for all forks.
    """
    draw = random.Random(seed)
    cut, whole = tmp_path / "cut", tmp_path / "whole"

    def finished():
        return len(list(cut.glob("runs/*/*/batch.json")))

    def writing():
        return any(cut.glob("runs/*/*/.*"))

    killed = 0
    for when in ("batch", "write", "batch", "write", "batch"):
        done, wait = finished(), draw.uniform(0, 0.1)
        started: list[float] = []

        def in_batch(done=done, wait=wait, started=started):
            """Some time after a batch of this process was written: in the middle of the next."""
            if not started and finished() > done:
                started.append(time.monotonic())
            return bool(started) and time.monotonic() - started[0] > wait

        killed += kill_when(cut, writing if when == "write" else in_batch, slow_disk=when == "write")
    assert killed == 5
    assert finished() < 10  # there is something left to do
    finish(cut)
    finish(whole)
    (mine, my_deltas), (other, other_deltas) = results_of(cut), results_of(whole)
    assert mine == other
    assert len(my_deltas) == 10
    assert my_deltas.keys() == other_deltas.keys()
    for place, delta in my_deltas.items():
        for layer in delta.layers:
            assert torch.equal(delta.to_dense(layer), other_deltas[place].to_dense(layer))
