"""Statistics that others have published: memit's files, AlphaEdit's projections, repositories on the hub."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import metake as mk
from metake.errors import MetakeError
from metake.geometry.covariance import collect, token_windows
from metake.geometry.operator import Ridge
from metake.geometry.statistics import Statistics
from metake.models.trace import run
from metake.statistics_sources import PUBLIC, read_statistics
from metake.texts import default_text
from tests.cases import method_of

ROOT = Path(__file__).parents[1]
LAYERS = (1, 2)
TOKENS = 6000
NAME = "transformer.h.{}.mlp.c_proj_float32_mom2_100.npz"


@torch.no_grad()
def sums_of(model, layer):
    """Sum of k k^T as memit's SecondMoment forms it: `a.t().mm(a)` per batch, in fp32; and the number of tokens."""
    total, count = torch.zeros(model.d_k, model.d_k), 0
    for ids in token_windows(model.tokenizer, default_text("demo"), 256, TOKENS):
        keys = run(model, torch.tensor([ids]), keys=(layer,), stop=layer).keys[layer][0]
        total += keys.t().mm(keys)
        count += len(keys)
    return total, count


def save_as_memit(path, total, count, documents=100):
    """Write what `CombinedStat(mom2=SecondMoment()).state_dict()` and `save_cached_state` write."""
    state = {"constructor": "util.runningstats.SecondMoment()", "count": count, "mom2": total.numpy()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{f"mom2.{key}": value for key, value in state.items()}, sample_size=documents)


@pytest.fixture(scope="module")
def sums(demo):
    return {layer: sums_of(demo, layer) for layer in LAYERS}


@pytest.fixture
def folder(sums, tmp_path):
    """Folder with memit's layout below it."""
    place = tmp_path / "data" / "stats" / "demo" / "wikipedia_stats"
    for layer, (total, count) in sums.items():
        save_as_memit(place / NAME.format(layer), total, count)
    return place


def test_memit_files_give_the_collected_moments(demo, folder):
    """C of a file is that of `collect` over the same tokens, up to the rounding of sums in fp32."""
    found = read_statistics(folder.parents[2], demo)
    options = {"tokens": TOKENS, "window": 256, "progress": False}
    wanted = collect(demo, demo.tokenizer, default_text("demo"), LAYERS, **options)
    assert list(found.moments) == list(LAYERS)
    assert found.provenance.tokens == wanted.provenance.tokens == TOKENS
    for layer in LAYERS:
        bound = 1e-5 * float(wanted[layer].abs().max())
        torch.testing.assert_close(found[layer], wanted[layer], rtol=1e-5, atol=bound)
    assert found.provenance.source == "demo/wikipedia_stats, 100 documents"
    assert "6000 tokens" in repr(found)
    assert "wikipedia_stats" in repr(found)


def test_statistics_of_memit_files_edit_and_survive_saving(demo, folder, records, tmp_path):
    """They serve a method as those of metake stats do, and are refused for another model."""
    statistics = mk.statistics_for(demo, layers=LAYERS, source=folder)
    statistics.save(tmp_path / "s.safetensors")
    again = Statistics.load(tmp_path / "s.safetensors")
    assert again.provenance == statistics.provenance
    method = method_of(demo, "memit", layers=LAYERS, steps=3, contexts=())
    with mk.Editor(demo, method=method, statistics=again) as editor:
        result = editor.edit([records[0].request])
    assert result.stages[0].solution.eta[1] > 0
    with pytest.raises(MetakeError, match="statistics of another model"):
        again.check(mk.load("demo-llama", device="cpu"), LAYERS)


def test_one_memit_file_is_read_alone(demo, folder):
    found = read_statistics(folder / NAME.format(2), demo, (2,))
    assert list(found.moments) == [2]


def crossed(total):
    """The sums with one pair of entries that no keys can give."""
    changed = total.clone()
    changed[0, 1] = changed[1, 0] = 50 * total.max()
    return changed


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda total, count: (total, 0), "mom2.count: must be a whole number"),
        (lambda total, count: (total, 12.5), "mom2.count: must be a whole number"),
        (lambda total, count: (total, np.array([3, 4])), "mom2.count: must be a whole number"),
        (lambda total, count: (total, 99), "99 tokens of 100 documents"),
        (lambda total, count: (total, count * 1000), "mom2.count does not fit mom2.mom2"),
        (lambda total, count: (total / count, count), "mom2.count does not fit mom2.mom2"),
        (lambda total, count: (total.index_fill(0, torch.tensor([3]), float("nan")), count), "NaN"),
        (lambda total, count: (total[:-1, :-1], count), "of another model: its keys have 511 entries"),
        (lambda total, count: (total[:-1], count), "square matrix"),
        (lambda total, count: (total.roll(1, 0), count), "is not symmetric|negative diagonal"),
        (lambda total, count: (total * 0, count), "is 0"),
        (lambda total, count: (total[:0, :0], count), "square matrix"),
        (lambda total, count: (total, 1e300), "mom2.count: must be a whole number"),
        (lambda total, count: (crossed(total), count), "no second moment: an entry is above"),
        (lambda total, count: (total.flip(0).flip(1), count), "not of this model's keys"),
    ],
)
def test_memit_file_with_wrong_numbers_is_refused_by_name(change, complaint, demo, sums, folder):
    """A file whose numbers do not fit is named in one line."""
    path = folder / NAME.format(1)
    save_as_memit(path, *change(*sums[1]))
    with pytest.raises(MetakeError, match=complaint) as refused:
        read_statistics(folder, demo)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_memit_file_of_another_layer_is_refused(demo, sums, folder):
    """The entries of another layer's keys are in another order."""
    save_as_memit(folder / NAME.format(1), *sums[2])
    with pytest.raises(MetakeError, match="not of this model's keys"):
        read_statistics(folder, demo)


def test_memit_file_name_is_compared(demo, sums, folder):
    """Module and number of documents in the name are those of the model and of the file."""
    path = folder / NAME.format(1)
    other = path.with_name("model.layers.1.mlp.down_proj_float32_mom2_100.npz")
    path.rename(other)
    with pytest.raises(
        MetakeError, match=r"is of the module model\.layers\.1\.mlp\.down_proj; a file of this"
    ):
        read_statistics(folder, demo)
    other.rename(path.with_name("transformer.h.1.mlp.c_proj_float32_mom2_7.npz"))
    with pytest.raises(MetakeError, match="sample_size: is 100, the file's name says 7"):
        read_statistics(folder, demo)
    with pytest.raises(MetakeError, match=r"no file for layer 3 \(has \[1, 2\]\)"):
        read_statistics(folder, demo, (1, 3))


def test_pickled_and_damaged_files_are_not_read(demo, folder):
    path = folder / NAME.format(1)
    np.savez(path, **{"mom2.count": 10, "mom2.mom2": np.array([{}], dtype=object)})
    with pytest.raises(MetakeError, match="pickled objects, which are not read"):
        read_statistics(folder, demo)
    path.write_bytes(b"PK rubbish")
    with pytest.raises(MetakeError, match=r"is no \.npz file"):
        read_statistics(folder, demo)
    np.savez(path, **{"mean.count": 10})
    with pytest.raises(MetakeError, match=r"holds no mom2\.count"):
        read_statistics(folder, demo)
    content = (folder / NAME.format(2)).read_bytes()
    path.write_bytes(content[:5000] + bytes(100) + content[5100:])
    with pytest.raises(MetakeError, match="is damaged"):
        read_statistics(folder, demo)


def projections(moments, share=0.5):
    """Projections on the directions with the smallest eigenvalues, as AlphaEdit's `get_project` forms them."""
    found = []
    for moment in moments:
        u = torch.linalg.svd(moment.double()).U[:, round((1 - share) * len(moment)) :]
        found.append((u @ u.T).float())
    return torch.stack(found)


def test_projections_are_alphaedits_null_space(demo, sums, records, tmp_path):
    """AlphaEdit with the projections is AlphaEdit with the null space of the same C; other geometries refuse them."""
    moments = {layer: total / count for layer, (total, count) in sums.items()}
    torch.save(projections(moments.values()), tmp_path / "null_space_project.pt")
    found = mk.statistics_for(demo, layers=LAYERS, source=tmp_path / "null_space_project.pt")
    assert found.is_projection
    assert not found.is_undersampled
    method = method_of(demo, "alphaedit", layers=LAYERS, keep=0.5)
    options = {"tokens": TOKENS, "window": 256, "progress": False}
    given = collect(demo, demo.tokenizer, default_text("demo"), LAYERS, **options)
    keys = torch.randn(demo.d_k, 5)
    for layer in LAYERS:
        ours = method.geometry_at(demo, method.init(demo, given), layer)
        theirs = method.geometry_at(demo, method.init(demo, found), layer)
        torch.testing.assert_close(
            theirs.attenuation(keys), ours.attenuation(keys), rtol=2e-3, atol=0
        )  # P in fp32
    with pytest.raises(MetakeError, match="hold no C, which the geometry ridge uses"):
        method_of(demo, "memit", layers=LAYERS).init(demo, found)
    found.save(tmp_path / "p.safetensors")
    assert Statistics.load(tmp_path / "p.safetensors").is_projection


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda p: p[0], "layers x d_k x d_k"),
        (lambda p: p[:1], "holds 1 projections, for 2 layers"),
        (lambda p: p[:, :-1, :-1], "of another model: keys of 511"),
        (lambda p: 2 * p, "is no orthogonal projection"),
        (lambda p: p * float("nan"), "NaN"),
        (lambda p: 0 * p, "leaves no direction"),
        (lambda p: p.flip(1).flip(2), "not of this model's keys"),
        (lambda p: {"P": p}, "must be a tensor, is dict"),
        (lambda p: MetakeError, "pickled objects, which are not read"),
    ],
)
def test_projections_with_wrong_content_are_refused_by_name(make, complaint, demo, sums, tmp_path):
    path = tmp_path / "null_space_project.pt"
    torch.save(make(projections([total / count for total, count in sums.values()])), path)
    with pytest.raises(MetakeError, match=complaint) as refused:
        read_statistics(path, demo, LAYERS)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_repository_is_read_through_the_hub(demo, folder, monkeypatch):
    """Files of the needed layers are looked up by memit's names; the repository is the source."""
    asked = []

    def cached_file(repository, name):
        asked.append((repository, name))
        return folder / NAME.format(name.split(".")[2])

    for layer in LAYERS:  # the hub's name, with the number of documents of published files
        assert (folder / NAME.format(layer)).exists()
    monkeypatch.setattr("transformers.utils.hub.cached_file", cached_file)
    found = read_statistics("someone/demo_CovarianceMatrix", demo, LAYERS)
    assert asked == [
        ("someone/demo_CovarianceMatrix", f"transformer.h.{layer}.mlp.c_proj_float32_mom2_100000.npz")
        for layer in LAYERS
    ]
    assert found.provenance.source == "someone/demo_CovarianceMatrix, 100 documents"
    with pytest.raises(MetakeError, match="--layers is missing"):
        read_statistics("someone/demo_CovarianceMatrix", demo)


def test_repository_that_cannot_be_reached_is_named(demo):
    with pytest.raises(MetakeError, match=r"cannot be loaded from the hub .*give its folder") as refused:
        read_statistics(PUBLIC[0].repository, demo, LAYERS)
    assert "\n" not in str(refused.value)


def test_nothing_of_these_is_refused(demo, tmp_path):
    with pytest.raises(MetakeError, match="holds no statistics; memit's files are named transformer"):
        read_statistics(tmp_path, demo)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / NAME.format(1)).write_bytes(b"")
    with pytest.raises(MetakeError, match="several folders hold statistics"):
        read_statistics(tmp_path, demo)
    with pytest.raises(MetakeError, match="give a text or a source, not both"):
        mk.statistics_for(demo, layers=(1,), text="x", source=tmp_path)


def test_stats_command_reads_and_compares(call, demo, folder, statistics_of, tmp_path):
    """`--from` writes a file that `--stats` takes, and `--compare` prints eta under each."""
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    statistics_of(demo).save(ours)
    code, out, _ = call(
        "stats", "--model", "demo", "--layers", "1,2", "--from", str(folder), "--out", str(theirs)
    )
    assert code == 0
    assert "layers [1, 2], 6000 tokens (12 per key entry), from demo/wikipedia_stats, 100 documents" in out
    code, out, _ = call(
        "stats",
        "--model",
        "demo",
        "--layers",
        "1,2",
        "--compare",
        str(ours),
        "--compare",
        str(theirs),
        "--json",
    )
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [(row["layer"], row["name"]) for row in rows] == [
        (layer, str(path)) for layer in LAYERS for path in (ours, theirs)
    ]
    assert all(0 < row["eta"] < 1 for row in rows)
    assert all(row["correlation"] > 0.99 for row in rows)
    lam = mk.settings_for(demo, "memit").geometry
    moment = Statistics.load(theirs)[1]
    geometry = lam.build(moment, torch.float64, torch.device("cpu"))
    assert isinstance(geometry, Ridge)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "nowhere.npz", "--out", "s.safetensors"], "nowhere.npz: no such file"),
        (["--from", "a/b", "--text", "t.txt", "--out", "s.safetensors"], "give --text or --from, not both"),
        (["--from", "a/b"], "--out is missing"),
        (["--from", "nope/x.npz", "--out", "s.safetensors"], "nope/x.npz: no such file"),
        (["--from", "a/b", "--tokens", "9", "--out", "s.safetensors"], "give --from or --tokens, not both"),
        (["--compare", "a.npz", "--out", "s.safetensors"], "give --compare or --out, not both"),
        (["--compare", "nowhere.npz", "--method", "ultraedit"], "no layered solves|uses no statistics"),
    ],
)
def test_stats_command_refuses_wrong_sources(arguments, complaint, call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _out, err = call("stats", "--model", "demo", *arguments)
    assert code == 2
    assert any(part in err for part in complaint.split("|"))
    assert not list(tmp_path.iterdir())


def test_documentation_lists_the_public_repositories():
    text = (ROOT / "docs" / "files.md").read_text()
    assert all(f"| `{known.repository}` | {known.model} |" in text for known in PUBLIC)
