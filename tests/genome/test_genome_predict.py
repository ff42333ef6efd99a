"""Chromosomes predicted in windows: read back from bigWigs, against one long window of the same model."""

import json
import math

import numpy as np
import pybigtools
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agblocks import build, resolve
from agblocks.data import DataError, one_hot
from agblocks.training import RunError
from agblocks.training.genome import Tiling, TilingError, predict_genome, reads, tile
from agblocks.training.write import alone

UNET = """
recipe: 1
name: unet
inputs: {dna: B 4 L}
nodes:
  encoder: {block: encoder.alphagenome, in: dna, args: {channels: 6, growth: 2, stages: 3}}
  decoder: {block: decoder.unet, in: {x: encoder, skips: encoder}}
heads:
  fine: {block: head.coverage, in: decoder, args: {tracks: 2}}
  coarse: {block: head.coverage, in: encoder, args: {tracks: 3}}
"""
SEEING = """
recipe: 1
name: seeing
inputs: {dna: B 4 L}
nodes:
  encoder: {block: encoder.alphagenome, in: dna, args: {channels: 8, growth: 0, stages: 2}}
  tower: {block: tower.enformer, in: encoder, args: {depth: 1, heads: 2, key_dim: 4, train_length: 64}}
heads:
  out: {block: head.coverage, in: tower, args: {tracks: 2}}
"""
CHROMOSOMES = {"chrB": 1337, "chrA": 801, "chrS": 37}


def letters(length, seed=0, alphabet="ACGT"):
    return "".join(np.random.default_rng(seed).choice(list(alphabet), length))


@pytest.fixture(scope="module")
def sequences():
    made = {name: letters(length, i) for i, (name, length) in enumerate(CHROMOSOMES.items())}
    made["chrB"] = made["chrB"][:300] + "N" * 100 + made["chrB"][400:700].lower() + "RYKM" + made["chrB"][704:]
    return made


@pytest.fixture(scope="module")
def fasta(sequences, tmp_path_factory):
    file = tmp_path_factory.mktemp("genome") / "small.fa"
    file.write_text("".join(f">{n} x\n" + "\n".join(s[i : i + 60] for i in range(0, len(s), 60)) + "\n"
                            for n, s in sequences.items()))  # fmt: skip
    return file


def built(recipe=UNET, seed=3):
    return build(recipe, seed=seed).double().eval()


def values(file, chromosome, start=0, end=None):
    opened = pybigtools.open(str(file))
    return np.array(opened.values(chromosome, start, opened.chroms()[chromosome] if end is None else end, fillna=None))


def one_window(model, sequence, output, **inputs):
    with torch.no_grad():
        return model(dna=one_hot(sequence, dtype=torch.float64), outputs=[output], **inputs)[output][0].numpy()


def by_base(bins, stride, length):
    return bins.repeat(stride, axis=-1)[..., :length]


@pytest.mark.parametrize("window", [200, 512, 4096])
def test_as_one_long_window(fasta, sequences, tmp_path, window):
    model = built()
    made = predict_genome(model, fasta, tmp_path, window=window, batch_size=3)
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(
        [*(f"fine.{i}.bw" for i in range(2)), *(f"coarse.{i}.bw" for i in range(3)), "prediction.json"]
    )
    for name, sequence in sequences.items():
        padded = sequence + "N" * (-len(sequence) % 8)  # the decoder's skips want multiples of 8
        for output, stride in (("fine", 1), ("coarse", 8)):
            expected = by_base(one_window(model, padded, output), stride, len(sequence))
            for track, row in enumerate(expected):
                found = values(made.files[output, str(track)], name)
                np.testing.assert_allclose(found, row, rtol=1e-6)  # bigWigs hold float32
    assert pybigtools.open(str(tmp_path / "fine.0.bw")).chroms() == CHROMOSOMES
    report = json.loads((tmp_path / "prediction.json").read_text())
    assert report == made.report
    assert report["exact"]
    assert report["agreement"]["fine"][0]["max"] is None or report["agreement"]["fine"][0]["max"] < 1e-6


def test_windows_that_do_not_crop_are_caught(fasta, tmp_path, monkeypatch):
    """Were the borders taken for good, the result would differ: what the test above would see."""
    from agblocks.training.genome import shape

    honest = shape.borders

    def careless(*arguments):
        return {n: type(b)(b.stride, b.offset, b.count, 0, b.count) for n, b in honest(*arguments).items()}

    model = built()
    right = predict_genome(model, fasta, tmp_path / "a", window=200, outputs=["fine"])
    monkeypatch.setattr(shape, "borders", careless)
    wrong = predict_genome(model, fasta, tmp_path / "b", window=200, outputs=["fine"])
    apart = np.abs(values(right.files["fine", "0"], "chrB") - values(wrong.files["fine", "0"], "chrB"))
    assert apart.max() > 1e-3


@pytest.mark.parametrize("blend", ["crop", "linear"])
def test_both_strands(fasta, sequences, tmp_path, blend):
    """The other strand is read in windows too, its bins on the grid of the first; pairs of tracks are swapped."""
    from agblocks.data import reverse_complement

    model = built()
    made = predict_genome(
        model, fasta, tmp_path, window=320, strands="both", pairs={"fine": [(0, 1)]}, overlap=40, blend=blend
    )
    for name, sequence in sequences.items():
        padded = sequence + "N" * (-len(sequence) % 8)
        for output, stride, swapped in (("fine", 1, [1, 0]), ("coarse", 8, [0, 1, 2])):
            turned = one_window(model, reverse_complement(padded), output)[:, ::-1][swapped]
            expected = by_base((one_window(model, padded, output) + turned) / 2, stride, len(sequence))
            for track, row in enumerate(expected):
                np.testing.assert_allclose(values(made.files[output, str(track)], name), row, rtol=2e-6)
    only = predict_genome(model, fasta, tmp_path / "reverse", window=320, strands="reverse", outputs=["coarse"])
    padded = sequences["chrA"] + "N" * (-801 % 8)
    turned = by_base(one_window(model, reverse_complement(padded), "coarse")[:, ::-1], 8, 801)
    np.testing.assert_allclose(values(only.files["coarse", "2"], "chrA"), turned[2], rtol=1e-6)


def test_regions_are_what_the_chromosome_has_there(fasta, tmp_path):
    """Also for a recipe that sees everything, where a window of its own would say something else."""
    model = built(SEEING)
    whole = predict_genome(model, fasta, tmp_path / "whole", window=256, strands="both", blend="linear")
    bed = tmp_path / "regions.bed"
    bed.write_text("# made\ntrack name=x\nB\t200\t230\nchrB\t225\t401\nchrA\t13\t14\n")
    part = predict_genome(model, fasta, tmp_path / "part", window=256, strands="both", blend="linear", regions=bed)
    file = part.files["out", "1"]
    for name, stretches in (("chrB", [(200, 401)]), ("chrA", [(13, 14)])):
        found, expected = values(file, name), values(whole.files["out", "1"], name)
        there = np.zeros(len(found), bool)
        for start, end in stretches:
            there[start:end] = True
        assert np.isnan(found[~there]).all()
        np.testing.assert_allclose(found[there], expected[there], rtol=1e-6)
    assert part.report["bases_read"] < whole.report["bases_read"]
    assert "chrS" not in pybigtools.open(str(file)).chroms()


def test_disagreement_is_measured(fasta, sequences, tmp_path):
    """The numbers of the report, by the definition, from windows predicted one by one."""
    model = built(SEEING)
    made = predict_genome(model, fasta, tmp_path, window=256, overlap=64, chromosomes=["chrB"])
    shape = reads(model.resolved, ["out"], "dna").shape
    tiling = tile(1337, 256, shape, 64)
    before, after, cut = [], [], []
    sequence = sequences["chrB"] + "N" * 8
    for one, two in zip(tiling.windows, tiling.windows[1:], strict=False):
        a, b = (one_window(model, sequence[w.start : min(w.end, 1337)], "out") for w in (one, two))
        low, high = two.parts["out"].start, one.parts["out"].end
        assert (high - low) * 4 >= 64
        before.append(a[:, low - one.parts["out"].at : high - one.parts["out"].at])
        after.append(b[:, low - two.parts["out"].at : high - two.parts["out"].at])
        cut.append(np.abs(before[-1] - after[-1])[:, two.parts["out"].keep_start - low])
    x, y = np.concatenate(before, 1), np.concatenate(after, 1)
    for track, told in enumerate(made.report["agreement"]["out"]):
        assert told["bins"] == x.shape[1]
        assert math.isclose(told["mean"], np.abs(x - y)[track].mean(), rel_tol=1e-4)
        assert math.isclose(told["max"], np.abs(x - y)[track].max(), rel_tol=1e-4)
        assert math.isclose(told["at_cut"], np.mean([c[track] for c in cut]), rel_tol=1e-4)
        assert math.isclose(told["pearson"], np.corrcoef(x[track], y[track])[0, 1], rel_tol=1e-4)
        assert told["mean"] > 0
    assert not made.report["exact"]


def test_linear_blending_by_its_definition(fasta, sequences, tmp_path):
    model = built(SEEING)
    made = predict_genome(model, fasta, tmp_path, window=256, overlap=64, chromosomes=["chrA"], blend="linear")
    tiling: Tiling = tile(801, 256, reads(model.resolved, ["out"], "dna").shape, 64)
    total, weight = np.zeros(tiling.bins["out"].count), np.zeros(tiling.bins["out"].count)
    for k, w in enumerate(tiling.windows):
        part = w.parts["out"]
        made_here = one_window(model, sequences["chrA"][w.start : w.end], "out")[0]
        for i in range(part.start, part.end):
            left = (i - part.start + 0.5) / 16 if k else 1
            right = (part.end - i - 0.5) / 16 if k + 1 < len(tiling.windows) else 1
            share = min(1, left, right)
            total[i] += share * made_here[i - part.at]
            weight[i] += share
    expected = by_base(total / weight, tiling.bins["out"].stride, 801)
    np.testing.assert_allclose(values(made.files["out", "0"], "chrA"), expected, rtol=1e-5)


def test_goes_on_where_it_was_killed(fasta, tmp_path):
    """Chromosomes that are done are not read again; a changed window starts anew."""
    model, read = built(), []

    def killed(chromosome, bases):
        read.append(chromosome)
        if chromosome == "chrA":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_genome(model, fasta, tmp_path, window=512, told=killed)
    assert not list(tmp_path.glob("*.bw"))
    assert set(read) == {"chrB", "chrA"}
    read.clear()
    made = predict_genome(model, fasta, tmp_path, window=512, told=lambda chromosome, bases: read.append(chromosome))
    assert set(read) == {"chrA", "chrS"}
    assert not (tmp_path / ".parts").exists()
    fresh = predict_genome(model, fasta, tmp_path / "fresh", window=512)
    for key, file in made.files.items():
        assert file.read_bytes() == fresh.files[key].read_bytes()
    assert {**made.report, "seconds": 0} == {**fresh.report, "seconds": 0}


PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining traces torch, line by line
LAYERS = st.sampled_from(["conv", "conv", "max", "floor", "mean", "up", "sides", "center"])


@st.composite
def recipes(draw):
    """A random convolutional recipe with pools, dilations, ups and crops, and how many bins a crop to a number keeps."""
    nodes, stride, before, center = {}, 1, "dna", False
    for index in range(draw(st.integers(1, 5))):
        kind, name = draw(LAYERS), f"n{index}"
        if kind == "conv" or (kind == "up" and stride == 1) or (kind in ("max", "floor", "mean") and stride > 8):
            kernel, dilation = draw(st.sampled_from([1, 3, 5, 9])), draw(st.integers(1, 3))
            node = {"block": "conv.block", "args": {"channels": 3, "kernel": kernel, "dilation": dilation}}
        elif kind in ("max", "floor", "mean"):
            size = draw(st.sampled_from([2, 3, 4]))
            stride *= size
            node = {"block": {"max": "pool.max", "floor": "pool.max_floor", "mean": "pool.mean"}[kind],
                    "args": {"pool": size}}  # fmt: skip
        elif kind == "up":
            factor = next(f for f in (2, 3, 4) if stride % f == 0)
            stride //= factor
            node = {"block": "conv.up_plain", "args": {"channels": 3, "kernel": 3, "factor": factor}}
        elif kind == "sides":
            node = {"block": "crop.sides", "args": {"crop": draw(st.integers(1, 4))}}
        elif not center:
            center = True
            node = {"block": "crop.center", "args": {"target_length": draw(st.integers(30, 60))}}
        else:
            continue
        nodes[name], before = {**node, "in": before}, name
    head = {"block": "head.coverage", "in": before, "args": {"tracks": 1}}
    return {"recipe": 1, "name": "random", "inputs": {"dna": "B 4 L"}, "nodes": nodes, "heads": {"out": head}}


@settings(
    deadline=None,
    max_examples=25,
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(recipes(), st.integers(20, 900), st.integers(60, 500), st.integers(0, 30), st.booleans(), st.data())
def test_random_recipes(tmp_path_factory, recipe, length, bases, overlap, turned, data):
    """Whatever the recipe of convolutions, the window, and a length divisible by nothing."""
    folder = tmp_path_factory.mktemp("random")
    sequence = letters(length, data.draw(st.integers(0, 3)), "ACGTN")
    (folder / "one.fa").write_text(f">one\n{sequence}\n")
    model = built(recipe, seed=1)
    how = reads(model.resolved, ["out"], "dna")
    assert how.exact
    window = how.shape.admitted(bases)
    arguments = {"window": window, "overlap": overlap, "strands": "reverse" if turned else "forward"}
    try:
        made = predict_genome(model, folder / "one.fa", folder / "out", **arguments)
    except (TilingError, RunError) as error:
        if "get on" not in str(error):
            # A sequence shorter than the rest that pools leave out; a crop that is no whole number of bins.
            assert "no value to write" in str(error) or "bins of both strands don't meet" in str(error)
            return
        if "nor do longer" in str(error):
            return
        arguments["window"] = int(str(error).rpartition("windows of ")[2].split()[0].replace(",", ""))
        made = predict_genome(model, folder / "one.fa", folder / "out", **arguments)
    padded = sequence
    if turned:
        padded = sequence + "N" * (-length % how.shape.grid)
        padded = padded.translate(str.maketrans("ACGT", "TGCA"))[::-1]
    tiling = tile(len(padded), arguments["window"], how.shape, overlap)
    long = "N" * -tiling.start + padded + "N" * (tiling.end - len(padded))
    whole = model
    center = next((n for n, node in recipe["nodes"].items() if node["block"] == "crop.center"), None)
    if center is not None:  # the long window's crop leaves out as many bins as each window's
        inner = resolve(recipe, keep=[recipe["nodes"][center]["in"]])
        axis = inner.info(recipe["nodes"][center]["in"]).axes[2]
        left_out = axis.at({"L": arguments["window"]}) - recipe["nodes"][center]["args"]["target_length"]
        whole = build(recipe, f"{center}.target_length={axis.at({'L': len(long)}) - left_out}").double().eval()
        whole.load_state_dict(model.state_dict())
    bins = one_window(whole, long, "out")[0]
    span = how.shape.spans(arguments["window"])["out"]
    expected = np.full(len(padded), np.nan)
    for i, value in enumerate(bins):
        low = tiling.start + span.offset + i * span.stride
        expected[max(0, low) : max(0, low + span.stride)] = value
    if turned:
        expected = expected[::-1][:length].copy()
        forward = tile(length, arguments["window"], how.shape, overlap).bins["out"]
        expected[forward.first + forward.stride * forward.count :] = np.nan  # bins are those of the forward strand
    found = values(made.files["out", ""], "one")
    np.testing.assert_allclose(found, expected, rtol=1e-5, equal_nan=True)


def test_what_cannot_be_is_told_with_what_would(fasta, tmp_path):
    model, seeing = built(), built(SEEING)
    with pytest.raises(TilingError, match="sees the whole window .* say which"):
        predict_genome(seeing, fasta, tmp_path)
    with pytest.raises(TilingError, match="takes no window of 100 bases; from there on the shortest is 104"):
        predict_genome(model, fasta, tmp_path, window=100)
    with pytest.raises(TilingError, match="nothing is left .* windows of [0-9,]+ bases get on"):
        predict_genome(model, fasta, tmp_path, window=48)
    with pytest.raises(TilingError, match="no track along the sequence"):
        predict_genome(build("tiny", seed=0), fasta, tmp_path, outputs=["activity"])
    with pytest.raises(TilingError, match=r"no head of 'tiny' is a track \[B tracks L\]: it has activity \[B 1\]"):
        predict_genome(build("tiny", seed=0), fasta, tmp_path)
    with pytest.raises(RunError, match="'nope' is no output that is asked for"):
        predict_genome(model, fasta, tmp_path, names={"nope": ["a"]})
    with pytest.raises(RunError, match="has tracks 0 to 1, each in one pair; found 0:2"):
        predict_genome(model, fasta, tmp_path, pairs={"fine": [(0, 2)]})
    with pytest.raises(DataError, match="there is no chromosome 'chrQ'"):
        predict_genome(model, fasta, tmp_path, chromosomes=["chrQ"])
    bed = tmp_path / "bad.bed"
    bed.write_text("chrA\t1\t5\nchrA\t700\t900\nchrA x\n")
    with pytest.raises(DataError, match=r"(?s)bad.bed: 2 regions .*line 2: chrA:700-900.*up to 801.*line 3: found"):
        predict_genome(model, fasta, tmp_path, regions=bed)
    broken = built()
    with torch.no_grad():
        broken.get_submodule("fine").conv.bias.fill_(float("nan"))
    with pytest.raises(RunError, match="chrB, output 'fine': a prediction that is not finite, at bin 0"):
        predict_genome(broken, fasta, tmp_path, window=512)
    assert not list(tmp_path.glob("*.bw"))


def test_names_tracks_and_inputs(fasta, tmp_path):
    """A recipe of several organisms writes the tracks that this one has."""
    model = build("alphagenome_small", seed=0).eval()
    made = predict_genome(
        model, fasta, tmp_path, chromosomes=["A"], window=2048, inputs={"organism": 1},
        outputs=["atac_128bp", "atac_1bp"], names={"atac_128bp": ["liver", "brain a", "x"]},
    )  # fmt: skip
    assert sorted(f.name for f in made.files.values()) == ["atac_128bp.liver.bw", "atac_1bp.0.bw"]
    few = predict_genome(
        model, fasta, tmp_path / "few", chromosomes=["A"], window=2048, inputs={"organism": 0},
        outputs=["atac_128bp"], names={"atac_128bp": ["liver", "brain a", "x"]}, tracks={"atac_128bp": ["brain a", 0]},
    )  # fmt: skip
    assert [f.name for f in few.files.values()] == ["atac_128bp.brain_a.bw", "atac_128bp.liver.bw"]
    with torch.no_grad():
        dna = one_hot((fasta.read_text().split(">chrA x\n")[1].split(">")[0].replace("\n", "")) + "N" * 1247)
        expected = model(dna=dna, organism=torch.tensor([0]), outputs=["atac_128bp"])["atac_128bp"][0]
    found = values(few.files["atac_128bp", "brain a"], "chrA")
    np.testing.assert_allclose(found, by_base(expected[1].numpy(), 128, 801), rtol=1e-5)


def test_short_chromosomes_and_rests(tmp_path):
    """What is shorter than the model's shortest length is filled with N; a rest that pools leave out has no value."""
    (tmp_path / "two.fa").write_text(f">tiny\nACGTA\n>long\n{letters(100)}\n>none\n")
    recipe = {
        "recipe": 1, "name": "floor", "inputs": {"dna": "B 4 L"},
        "nodes": {"x": {"block": "conv.stem", "in": "dna", "args": {"channels": 2, "kernel": 3}},
                  "y": {"block": "pool.max_floor", "in": "x", "args": {"pool": 8}}},
        "heads": {"fine": {"block": "head.coverage", "in": "x", "args": {"tracks": 1}},
                  "coarse": {"block": "head.coverage", "in": "y", "args": {"tracks": 1}}},
    }  # fmt: skip
    model = built(recipe)
    made = predict_genome(model, tmp_path / "two.fa", tmp_path / "out", window=40)
    assert pybigtools.open(str(made.files["fine", ""])).chroms() == {"tiny": 5, "long": 100}
    found = values(made.files["coarse", ""], "tiny")
    np.testing.assert_allclose(found, one_window(model, "ACGTANNN", "coarse")[0].repeat(5), rtol=1e-6)
    assert np.isnan(values(made.files["coarse", ""], "long")).tolist() == [False] * 96 + [True] * 4


def test_two_predictions_into_one_folder(fasta, tmp_path):
    """Whatever they predict: the report tells of one."""
    with alone(tmp_path / "out", "predicting"), pytest.raises(RunError, match="another process is predicting into it"):
        predict_genome(built(), fasta, tmp_path / "out", window=256)
    assert not list((tmp_path / "out").iterdir())
