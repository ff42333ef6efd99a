"""Features from the store are those of a plain forward pass, each row computed once."""

import numpy as np
import pytest
import torch
from features_helpers import NET, net, sequences

import agblocks
from agblocks import InputError
from agblocks.data import Construct, DataError, one_hot
from agblocks.data.sequence import reverse_complement
from agblocks.studies.errors import WorkError
from agblocks.studies.features import Memory, Store, Tap, Variant, Variants, extract
from agblocks.studies.features.pool import pooled

TAPS = {"one": Tap("stem"), "two": Tap("down", "max"), "three": Tap("deep", "mean_max"), "whole": Tap("down", "none")}


class Counting:
    """Counts rows and calls of the model."""

    def __init__(self, model):
        self.rows = self.calls = 0
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module, args, kwargs):
        self.calls += 1
        self.rows += len(next(iter(kwargs.values())))


def plain(model, edge, texts):
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(dna=one_hot(text), outputs=[edge])[edge] for text in texts])


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return Store(tmp_path / "features") if request.param == "disk" else Memory()


def test_every_tap_is_what_the_model_gives(store):
    model, texts = net(), sequences(20)
    seen = Counting(model)
    found = extract(model, TAPS, texts, store=store, batch_size=8)
    assert (seen.rows, seen.calls) == (20, 3), "one pass feeds every tap"
    for name, tap in TAPS.items():
        wanted = pooled(plain(model, tap.edge, texts), tap.pool)
        torch.testing.assert_close(found[name].tensor(), wanted, rtol=1e-6, atol=1e-6)
        assert len(found[name]) == 20
    assert found["three"].array.shape == (20, 32) and found["three"].array.dtype == np.float32
    np.testing.assert_array_equal(found["one"].array, found["one"].tensor().numpy())


def test_nothing_is_computed_twice(store):
    model, texts = net(), sequences(20)
    first = extract(model, TAPS, texts, store=store)
    seen = Counting(model)
    again = extract(model, TAPS, texts, store=store)
    assert seen.rows == 0
    for name in TAPS:
        assert torch.equal(first[name].tensor(), again[name].tensor())
    extract(model, TAPS, texts + sequences(5, seed=9), store=store)
    assert seen.rows == 5, "only rows that are missing"
    extract(model, {"new": Tap("stem", "sum")}, texts[:7], store=store)
    assert seen.rows == 12, "only taps that are missing"


def test_only_missing_rows_run_and_only_up_to_the_missing_tap(store):
    model, texts = net(), sequences(12)
    extract(model, {"deep": Tap("deep")}, texts[:6], store=store)
    nodes = []
    for node in model.resolved.nodes:
        model.get_submodule(node).register_forward_hook(lambda m, a, o, node=node: nodes.append((node, len(o))))
    with pytest.raises(WorkError, match="stem has forward hooks"):
        extract(model, {"deep": Tap("deep")}, texts, store=store)
    model = net()  # the same weights
    ran = []
    deep = type(model.deep).forward

    def counted(self, x):
        ran.append(len(x))
        return deep(self, x)

    model.deep.forward = counted.__get__(model.deep)
    extract(model, {"down": Tap("down")}, texts, store=store)
    assert ran == []
    extract(model, {"down": Tap("down"), "deep": Tap("deep")}, texts, store=store)
    assert ran == [6]


def test_equal_sequences_are_one(store):
    model, texts = net(), sequences(4)
    seen = Counting(model)
    found = extract(model, {"one": Tap("stem"), "same": Tap("stem")}, [*texts, *texts, texts[0]], store=store)
    assert seen.rows == 4
    assert torch.equal(found["one"].tensor([0, 4, 8]), found["same"].tensor([0, 0, 0]))


def test_sequences_of_several_lengths(store):
    model, texts = net(), sequences(15, lengths=(20, 33, 41))
    found = extract(model, TAPS, texts, store=store, batch_size=4)
    for row, text in enumerate(texts):
        for name, tap in TAPS.items():
            wanted = pooled(plain(model, tap.edge, [text]), tap.pool)
            torch.testing.assert_close(found[name].tensor([row]), wanted, rtol=1e-5, atol=1e-6)
    assert found["one"].array.shape == (15, 8)
    if isinstance(store, Store):
        with pytest.raises(WorkError, match="ask by length"):
            found["whole"].tensor()


def test_variants_are_shifts_and_strands(store):
    model, texts = net(), sequences(6)
    variants = Variants(shifts=(0, -2, 3), both_strands=True)
    found = extract(model, {"one": Tap("stem")}, texts, store=store, variants=variants)["one"]
    assert len(found.keys) == 6 and next(iter(found.keys)) == Variant()

    def moved(text, shift):
        return "N" * shift + text[: len(text) - shift] if shift >= 0 else text[-shift:] + "N" * -shift

    for variant in variants.each:
        seen = [moved(text, variant.shift) for text in texts]
        seen = [reverse_complement(text) for text in seen] if variant.turned else seen
        torch.testing.assert_close(
            found.tensor(variant=variant), plain(model, "stem", seen).mean(-1), rtol=1e-6, atol=1e-6
        )
    both = found.averaged([Variant(), Variant(0, True)])
    wanted = (found.tensor() + found.tensor(variant=Variant(0, True))) / 2
    np.testing.assert_allclose(both, wanted.numpy(), rtol=1e-6)
    seen = Counting(model)
    extract(model, {"one": Tap("stem")}, texts, store=store, variants=Variants(both_strands=True))
    assert seen.rows == 0
    with pytest.raises(WorkError, match="there are no features shifted by 1; there are: in place"):
        found.tensor(variant=Variant(1))


def test_constructs_stand_around_the_insert(store):
    model, texts = net(), sequences(5)
    construct = Construct(left="ACGT", right="GG", strip_left="", flank_left="TTTT", flank_right="CCCC")
    variants = Variants(shifts=(0, 2), fill="flanks")
    found = extract(model, {"one": Tap("stem")}, texts, construct, store, variants=variants)["one"]
    whole = [f"ACGT{text}GG" for text in texts]
    torch.testing.assert_close(found.tensor(), plain(model, "stem", whole).mean(-1), rtol=1e-6, atol=1e-6)
    shifted = [f"TT{text[:-2]}" for text in whole]
    torch.testing.assert_close(
        found.tensor(variant=Variant(2)), plain(model, "stem", shifted).mean(-1), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(DataError, match="a shift of 9 needs 9 bases"):
        extract(model, {"one": Tap("stem")}, texts, construct, store, variants=Variants((9,), fill="flanks"))
    turned = Variants(both_strands=True, scope="insert")
    found = extract(model, {"one": Tap("stem")}, texts, construct, store, variants=turned)["one"]
    inner = [f"ACGT{reverse_complement(text)}GG" for text in texts]
    torch.testing.assert_close(
        found.tensor(variant=Variant(0, True)), plain(model, "stem", inner).mean(-1), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_kept_as_such(store, dtype):
    model, texts = net(), sequences(5)
    found = extract(model, {"one": Tap("stem")}, texts, store=store, dtype=dtype)["one"]
    assert found.tensor().dtype == dtype
    assert torch.equal(found.tensor(), extract(model, {"one": Tap("stem")}, texts)["one"].tensor().to(dtype))
    assert found.array.dtype == np.float32


def test_computed_types_are_kept_where_asked(store):
    model, texts = net().double(), sequences(5)
    found = extract(model, {"one": Tap("stem", "none")}, texts, store=store, dtype=None)["one"]
    assert found.tensor().dtype == torch.float64
    model = net()
    found = extract(model, {"one": Tap("stem", "none")}, texts, store=store, dtype=None, autocast=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        wanted = model.eval()(dna=one_hot(texts), outputs=["stem"])["stem"]
    assert found["one"].tensor().dtype == wanted.dtype
    torch.testing.assert_close(found["one"].tensor(), wanted)


def test_values_that_do_not_fit_are_told():
    model = net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3000)
    with pytest.raises(WorkError, match=r"tap 'deep': values up to .* don't fit float16; keep it wider"):
        extract(model, {"x": Tap("deep")}, sequences(3), dtype=torch.float16)
    with torch.no_grad():
        next(model.stem.parameters()).fill_(float("nan"))
    with pytest.raises(WorkError, match="tap 'deep': the model gives values that are not finite"):
        extract(model, {"x": Tap("deep")}, sequences(3))


def test_the_model_is_left_as_it_was():
    model = net()
    model.train()
    model.down.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = extract(model, TAPS, sequences(6))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    torch.nn.Linear(8, 1)(found["one"].tensor()).sum().backward()  # features can be trained on


def test_inputs_other_than_dna_are_asked_for_only_where_a_tap_reads_them(store):
    model = agblocks.build("alphagenome_small", seed=0)
    texts = sequences(3, lengths=(130,))
    taps = {f"stage{i}": Tap(f"encoder.stage{i}") for i in range(1, 8)}
    found = extract(model, taps, texts, store=store)
    with torch.inference_mode():
        wanted = model.eval()(dna=one_hot(texts), outputs=["encoder.stage6"])["encoder.stage6"]
    torch.testing.assert_close(found["stage6"].tensor(), wanted.mean(-1), rtol=1e-5, atol=1e-6)
    with pytest.raises(WorkError, match="input 'organism' needs a value"):
        extract(model, {"x": Tap("trunk")}, texts, store=store)
    zero, one = (extract(model, {"x": Tap("trunk")}, texts, store=store, inputs={"organism": i})["x"] for i in (0, 1))
    assert zero.space != one.space and not torch.equal(zero.tensor(), one.tensor())
    again = extract(model, taps, texts, store=store, inputs={"organism": 1})
    assert again["stage6"].space == found["stage6"].space, "what no tap reads is not in the key"
    with pytest.raises(WorkError, match="there is no input 'organisms'"):
        extract(model, taps, texts, store=store, inputs={"organisms": 1})


def test_a_strand_flag_is_that_of_the_variant(store):
    model = agblocks.build("dream_cnn_small", seed=0)
    assert "reverse" in model.resolved.inputs
    name = next(iter(model.resolved.heads))
    edge = next(edge for edge, info in model.resolved.edges.items() if edge not in model.resolved.inputs)
    text = sequences(4, lengths=(110,))
    found = extract(model, {"x": Tap(edge, "none")}, text, store=store, variants=Variants(both_strands=True))["x"]
    turned = [reverse_complement(t) for t in text]
    with torch.inference_mode():
        for variant, dna, flag in ((Variant(), text, 0), (Variant(0, True), turned, 1)):
            wanted = model.eval()(dna=one_hot(dna), reverse=torch.full((4,), flag), outputs=[edge])[edge]
            torch.testing.assert_close(found.tensor(variant=variant), wanted)
    assert name


@pytest.mark.parametrize(
    ("taps", "texts", "error", "message"),
    [
        ({"x": Tap("steam")}, ["ACGT" * 9], InputError, "there is no output 'steam'; .*stem"),
        ({"x": Tap("stem", "median")}, ["ACGT" * 9], WorkError, "pool is 'median', wanted one of mean, max"),
        ({}, ["ACGT"], WorkError, "0 taps of 1 sequences"),
        ({"x": Tap("stem")}, [], WorkError, "1 taps of 0 sequences"),
        ({"x": Tap("stem")}, ["ACGTX"], DataError, "unknown letter 'X'"),
    ],
)
def test_what_cannot_be_extracted(taps, texts, error, message):
    with pytest.raises(error, match=message):
        extract(net(), taps, texts)


def test_lengths_that_the_model_does_not_take():
    fixed = agblocks.build({**NET, "inputs": {"dna": "B 4 48"}}, seed=0)
    with pytest.raises(DataError, match="wanted 48 bases"):
        extract(fixed, {"x": Tap("stem")}, sequences(3, lengths=(48, 40)))
    assert extract(fixed, {"x": Tap("stem")}, sequences(3, lengths=(48,)))["x"].array.shape == (3, 8)
    tracks = agblocks.build("alphagenome_small", seed=0)
    with pytest.raises(DataError, match="wanted a length where L must be a multiple of"):
        extract(tracks, {"x": Tap("rna_seq_1bp")}, sequences(2, lengths=(130,)), inputs={"organism": 0})


def test_a_damaged_or_pruned_row_is_computed_again(tmp_path):
    model, texts = net(), sequences(10)
    first = extract(model, {"one": Tap("stem")}, texts, store=Store(tmp_path))["one"].array
    (path,) = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[bytes(content).index(first[4].tobytes())] ^= 64
    path.write_bytes(content)
    seen = Counting(model)
    again = extract(model, {"one": Tap("stem")}, texts, store=Store(tmp_path))["one"].array
    assert seen.rows == 1
    np.testing.assert_allclose(again, first, rtol=1e-6, atol=1e-7)
    Store(tmp_path).prune(0)
    np.testing.assert_allclose(
        extract(model, {"one": Tap("stem")}, texts, store=Store(tmp_path))["one"].array, first, rtol=1e-6, atol=1e-7
    )
    assert seen.rows == 11


def test_room_is_asked_for_before_anything_runs(tmp_path):
    model = net()
    seen = Counting(model)
    with pytest.raises(WorkError, match=r"of features are to be kept, but the limit is 1e\+03 B|1 kB"):
        extract(model, {"whole": Tap("stem", "none")}, sequences(20), store=Store(tmp_path, limit=1000))
    assert seen.rows == 0 and not list(tmp_path.iterdir())


def test_the_room_asked_for_is_what_is_written(tmp_path):
    taps = {**TAPS, "flat": Tap("down", "flatten"), "middle": Tap("deep", "center")}
    asked = []
    store = Store(tmp_path)
    store.room = asked.append
    extract(net(), taps, sequences(300, lengths=(40, 51)), store=store)
    assert asked[0] <= store.size() <= asked[0] + 1500 * 2 * len(taps)  # headers


def test_weights_of_another_seed_share_nothing(tmp_path):
    one, two = (extract(net(seed), {"x": Tap("stem")}, sequences(5), store=Store(tmp_path))["x"] for seed in (0, 1))
    assert one.space != two.space and not np.array_equal(one.array, two.array)


def test_adapted_and_parametrised_models_are_refused():
    model = net()
    torch.nn.utils.parametrizations.weight_norm(
        next(m for m in model.down.modules() if getattr(getattr(m, "weight", None), "ndim", 0) == 3), "weight"
    )
    with pytest.raises(WorkError, match="features of 'net' can't be kept: down.* is parametrised"):
        extract(model, {"x": Tap("deep")}, sequences(3))
    assert extract(model, {"x": Tap("stem")}, sequences(3))["x"].array.shape == (3, 8)
    adapted = agblocks.adapt(net(), "lora:role=conv.main,rank=2")
    with pytest.raises(WorkError, match=r"has forward hooks \(adapters\?\)"):
        extract(adapted.base, {"x": Tap("deep")}, sequences(3))
    merged = adapted.merged()
    assert extract(merged, {"x": Tap("deep")}, sequences(3))["x"].array.shape == (3, 16)


@pytest.mark.parametrize("pool", ["mean", "max", "sum", "mean_max", "center", "flatten"])
def test_pools_are_those_of_the_scalar_head(pool):
    """A head without norm and with a layer that copies gives what it pooled."""
    from agblocks.heads.scalar import ScalarHead

    for length in (1, 5, 6):
        x = torch.randn(3, 4, length)
        width = 4 * {"mean_max": 2, "flatten": length}.get(pool, 1)
        head = ScalarHead(4, length, pool=pool, norm="none", targets=width)
        with torch.no_grad():
            head.layers[-1].weight.copy_(torch.eye(width))
            head.layers[-1].bias.zero_()
        torch.testing.assert_close(pooled(x, pool), head(x))


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"shifts": ()}, r"shifts are \[\]"),
        ({"shifts": (1, 1)}, r"shifts are \[1, 1\]"),
        ({"shifts": (0.5,)}, r"shifts are \[0.5\]"),
    ],
)
def test_variants_that_make_no_sense(variants, message):
    with pytest.raises(WorkError, match=message):
        Variants(**variants)
