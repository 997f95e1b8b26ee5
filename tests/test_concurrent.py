"""Two runs at once with one cache and one output folder end like one run alone."""

import multiprocessing
import sys

from experiments import run_zsre
from metake.texts import default_text
from tests.cases import results_of

RUN = ("--methods", "memit", "--edits", 4, "--batch", 2, "--seeds", 1, "--no-generate", "--untuned")


def command(out, text, barrier):
    sys.argv = ["run_zsre.py", *map(str, (*RUN, "--text", text, "--out", out))]
    barrier.wait(60)
    run_zsre.main()


def exit_codes(out, text, count):
    """Of so many processes that begin together, forked so that nothing has to be imported again."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)
    processes = [context.Process(target=command, args=(out, text, barrier)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_two_runs_share_cache_and_folder(demo, write, tmp_path, monkeypatch):
    """The fixture `demo` imports for all forks."""
    text = write("t.txt", default_text("demo")[:20_000])
    one, two, cache = (tmp_path / name for name in ("one", "two", "cache"))
    monkeypatch.setenv("METAKE_CACHE", str(cache))
    assert exit_codes(two, text, 2) == [0, 0]
    (statistics,) = cache.iterdir()  # and nothing half-written
    collected = statistics.read_bytes()
    assert exit_codes(one, text, 1) == [0]
    assert statistics.read_bytes() == collected
    (mine, my_deltas), (other, other_deltas) = results_of(two), results_of(one)
    assert mine == other
    assert {place: delta.digest for place, delta in my_deltas.items()} == {
        place: delta.digest for place, delta in other_deltas.items()
    }
