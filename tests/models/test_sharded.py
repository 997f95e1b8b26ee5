"""Models whose weights are divided over processes: same edit as one process, no process holds the model whole."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from metake.data.records import read_records
from metake.editor import Editor
from metake.errors import MetakeError
from metake.geometry.covariance import collect
from metake.models.load import load
from metake.models.save import save_model
from metake.presets import settings_for
from metake.processes import rank_and_size
from metake.shipped import ASSETS
from metake.texts import default_text

LAYERS = {
    "demo": {"rect": (2, 3)},  # Conv1D, tied head
    "demo-llama": {"metake": (1, 3), "ft-m": (2,)},  # Linear
}


def work(place: str, device: str) -> dict[str, object]:
    """What every row writes and the model answers, and whether the weights are back afterwards."""
    torch.set_num_threads(1)
    model = load(place, device=device)
    text = default_text(place)
    statistics = collect(model, model.tokenizer, text, (1, 2, 3), tokens=2000, progress=False)
    requests = [r.request for r in read_records(ASSETS / "world" / "dev.json", 2)]
    found: dict[str, object] = {"fingerprint": model.fingerprint(), "C": statistics[3]}
    for name, layers in LAYERS[place].items():
        plain = settings_for(model, name)
        quick = {"steps": 2, "meta_steps": 2, "contexts": ("The market is cold",), "layers": layers}
        method = plain.updated(**plain.supported_changes(quick))
        with Editor(model, method=method, statistics=statistics) as editor:
            editor.edit(requests)
            found |= {f"{name} layer {n}": editor.delta.to_dense(n) for n in method.layers}
            found[f"{name} answer"] = model.ask(
                requests[0].prompt.format(requests[0].subject), max_new_tokens=3
            )
        found[f"{name} undone"] = model.fingerprint()
    return found


def held(model) -> float:
    """Share of the weights that this process holds between passes."""
    shares = [(getattr(p, "to_local", lambda p=p: p)().numel(), p.numel()) for p in model.parameters()]
    return sum(local for local, _ in shares) / sum(whole for _, whole in shares)


def join(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    try:
        for shards in (3, 0):
            with pytest.raises(MetakeError, match=f"sharded:{shards}"):
                load("demo", device=f"sharded:{shards}")
        found = {place: work(place, "sharded") for place in LAYERS}
        model = load("demo", device="sharded")
        assert model.is_sharded
        assert held(model.model) == pytest.approx(1 / world, abs=0.02)
        with pytest.raises(MetakeError, match="no process holds this model whole"):
            save_model(model, f"{folder}/whole")
        assert rank_and_size() == (0, 1)
        load("demo", device="sharded:1")
        assert rank_and_size() == (rank, world)
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """What each of the two processes of a model found."""
    folder = tmp_path_factory.mktemp("sharded")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(join, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("place", LAYERS)
def test_sharded_model_gets_the_edit_of_a_whole_one(divided, place):
    alone = work(place, "cpu")
    for found in (ranks[place] for ranks in divided):
        assert set(found) == set(alone)
        for name, value in alone.items():
            if isinstance(value, torch.Tensor):
                off = float((found[name] - value).norm() / value.norm())
                assert off < 1e-5, (name, off)
            else:
                assert found[name] == value, name


def test_sharded_needs_several_processes():
    with pytest.raises(MetakeError, match="sharded needs several processes; start them by torchrun"):
        load("demo", device="sharded")
