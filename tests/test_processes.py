"""Process groups: two processes give the result of one."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from metake import cli
from metake.calibration.locate import locate
from metake.data.records import read_records
from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.geometry.statistics import Statistics
from metake.models.load import load
from metake.planners.weight_loss import WeightLoss
from metake.presets import settings_for
from metake.processes import VARIABLES, all_reduce_sum, process_group, rank_and_size
from metake.prompts import Batch
from metake.shipped import ASSETS
from metake.texts import default_text

ROWS = {"memit": {}, "metake-proxy": {}, "metake": {"meta_stop": "post_edit_loss"}}
CONTEXTS = ("The market is cold", "Today it rains")


def work(count: int = 3) -> dict[str, torch.Tensor]:
    """Second moments, and what every row asks for and writes, of however many processes there are."""
    torch.set_num_threads(1)
    model = load("demo", device="cpu")
    statistics = collect(
        model, model.tokenizer, default_text("demo"), (1, 2, 3, 4), tokens=3000, progress=False
    )
    found = {"C": statistics[3]}
    requests = [r.request for r in read_records(ASSETS / "world" / "dev.json", count)]
    for name, changes in ROWS.items():
        plain = settings_for(model, name)
        quick = {"layers": (1, 2, 3), "steps": 4, "meta_steps": 4, "contexts": CONTEXTS, **changes}
        method = plain.updated(**plain.supported_changes(quick))
        with Editor(model.model, model.tokenizer, method, statistics=statistics) as editor:
            stage = editor.edit(requests).stages[0]
            found[f"{name} residuals"] = stage.targets.residuals
            found[f"{name} left"] = stage.solution.factors[3][0]
    for name in ("memit", "metake"):
        location = locate(model, requests, name, statistics)
        method = location.method
        found[f"{name} settings"] = torch.tensor(
            [*method.layers, method.value("lookup") == "subject", method.value("lr")]
        )
        found[f"{name} reach"] = torch.tensor([w.probability for w in location.windows])
    for objective in ("target_new", "prompt_last"):
        loss = WeightLoss(model, Batch.build(model, requests, ()).edits, (3,), objective)
        value, gradients = loss({3: torch.zeros_like(model.weight(3))}, [2, 0, 1])
        found |= {f"{objective} loss": torch.tensor(value), f"{objective} gradient": gradients[3]}
    return found


def join(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    try:
        assert rank_and_size() == (rank, world)
        assert all_reduce_sum(torch.tensor([1.0, rank])).tolist() == [world, world * (world - 1) / 2]
        torch.save(work(), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # forked where that is possible, so that nothing has to be imported again
    method = "spawn" if torch.cuda.is_available() else "fork"
    mp.start_processes(join, args=(2, str(folder)), nprocs=2, start_method=method)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_process_group_gives_every_process_the_same_edit(together):
    for name, value in together[0].items():
        assert torch.equal(value, together[1][name]), name


def test_process_group_of_two_gives_the_edit_of_one_process(together):
    alone = work()
    assert set(alone) == set(together[0])
    for name, value in alone.items():
        assert float(value.norm()) > 0
        off = float((together[0][name] - value).norm() / value.norm())
        assert off < 1e-4, (name, off)


def test_process_group_writes_the_statistics_once(tmp_path, monkeypatch):
    """Both processes read half of the text, the first writes what one process would have."""
    command = ["stats", "--model", "demo", "--layers", "1-2", "--tokens", "2000", "--device", "cpu"]
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    monkeypatch.setattr(sys, "argv", ["metake", *command, "--out", str(alone)])
    cli.main()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.run(
        [*launch, "-m", "metake.cli", *command, "--out", str(shared)], capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("written") == 1
    a, b = Statistics.load(alone), Statistics.load(shared)
    assert a.provenance == b.provenance
    for layer in (1, 2):
        torch.testing.assert_close(a[layer], b[layer])


def test_all_reduce_sum_returns_its_argument_in_a_single_process():
    values = torch.ones(2)
    assert rank_and_size() == (0, 1)
    assert all_reduce_sum(values) is values


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "MASTER_ADDR is not set"),
        (
            {"WORLD_SIZE": "x", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "1", "MASTER_ADDR": "h"},
            "WORLD_SIZE=x: no number",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "x", "MASTER_ADDR": "h"},
            "MASTER_PORT=x: no number",
        ),
    ],
)
def test_process_group_refuses_an_incomplete_environment(monkeypatch, environment, complaint):
    for name in (*VARIABLES, "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MetakeError, match=f"{complaint}.*unset WORLD_SIZE"), process_group():
        raise AssertionError("entered a process group without processes")


def test_process_group_takes_an_empty_world_size_as_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "")
    with process_group():
        assert rank_and_size() == (0, 1)
