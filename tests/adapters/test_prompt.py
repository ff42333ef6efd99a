"""Prompts of DNA: flanks base by base, on either strand; conditions; positions in front of towers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import agblocks
from agblocks.adapters import AdapterError, AdapterSpec, adapt
from agblocks.adapters.errors import NotMergeable, UnsupportedModule
from agblocks.data import reverse_complement, reverse_complement_tensor
from agblocks.errors import AgblocksError, RecipeError
from agblocks.layers import SelfAttention, role

LETTERS = st.text("ACGTN", min_size=1, max_size=12)


def one_hot(text, order="ACGT"):
    out = torch.zeros(4, len(text), dtype=torch.float64)
    for i, letter in enumerate(text):
        if letter != "N":
            out[order.index(letter), i] = 1
    return out


class Reader(nn.Module):
    """Hands on what its stem reads."""

    def __init__(self, channels=4):
        super().__init__()
        self.stem = role(nn.Conv1d(channels, channels, 1, bias=False), "stem")
        self.stem.weight.data = torch.eye(channels)[:, :, None]

    def forward(self, x):
        return self.stem(x)


def flanked(x, **args):
    adapted = adapt(Reader(x.shape[1]).double(), [AdapterSpec("flank", **args)], seed=3)
    (adapter,) = adapted.bank.adapters("default")
    return adapted(x), adapter.shared.logits, adapter


def naive(text, rows, where, order):
    """Column by column: lists of four numbers."""
    columns = [[float(letter == base) for base in order] for letter in text]
    p = len(rows)
    if where == "unknown":
        holes = [i for i, letter in enumerate(text) if letter == "N"][:p]
        for row, i in enumerate(holes):
            columns[i] = rows[row]
        return columns
    left = {"left": p, "right": 0, "both": math.ceil(p / 2)}[where]
    for i in range(left):
        columns[i] = rows[i]
    for i in range(p - left):
        columns[len(text) - (p - left) + i] = rows[left + i]
    return columns


def distributions(logits, tau):
    out = []
    for row in logits.tolist():
        powers = [math.exp(value / tau) for value in row]
        out.append([value / sum(powers) for value in powers])
    return out


@settings(max_examples=25)
@given(
    LETTERS, st.integers(1, 12), st.sampled_from(["left", "right", "both", "unknown"]),
    st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from(["ACGT", "AGCT", "TCAG"]),
)  # fmt: skip
def test_a_flank_overwrites_what_it_says(text, length, where, tau, order):
    x = one_hot(text, order)[None]
    if length > len(text):
        with pytest.raises(AdapterError, match=f"{length} positions, and the DNA only {len(text)}"):
            flanked(x, length=length, where=where)
        return
    found, logits, _ = flanked(x, length=length, where=where, tau=tau, order=order)
    assert logits.shape == (length, 4)
    assert logits.abs().max() <= 0.5
    wanted = naive(text, distributions(logits, tau), where, order)
    torch.testing.assert_close(found[0].T, torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(found.sum(1)[x.sum(1) > 0], torch.ones(int(x.sum()), dtype=torch.float64))


def test_unknown_bases_are_found_however_they_are_coded_and_row_by_row():
    texts = ["NACGTN", "ACNNNT"]
    for n in (0.0, 0.25):
        x = torch.stack([one_hot(t) for t in texts])
        x = x + (1 - x.sum(1, keepdim=True)) * n
        found, logits, _ = flanked(x, length=2, where="unknown")
        rows = torch.softmax(logits, -1)
        for b, places in ((0, (0, 5)), (1, (2, 3))):
            torch.testing.assert_close(found[b, :, list(places)].T, rows)
        torch.testing.assert_close(found[1, :, 4], torch.full((4,), n, dtype=torch.float64))
        assert torch.equal(found[0, :, 1:5], x[0, :, 1:5])


@settings(max_examples=25)
@given(
    st.text("ACGTN", min_size=4, max_size=10), st.integers(1, 4),
    st.sampled_from(["left", "right", "both", "unknown"]), st.sampled_from(["ACGT", "GATC"]),
)  # fmt: skip
def test_a_turned_example_shows_the_flank_turned(text, length, where, order):
    """What a reader of the other strand sees is the other strand of what a reader of this one sees."""

    def flagged(text, flag):
        return torch.cat((one_hot(text, order), torch.full((1, len(text)), flag, dtype=torch.float64)))

    x = torch.stack((flagged(text, 0.0), flagged(reverse_complement(text), 1.0)))
    found, logits, _ = flanked(x, length=length, where=where, strand="flag", order=order)
    wanted = torch.tensor(naive(text, distributions(logits, 1.0), where, order), dtype=torch.float64).T
    torch.testing.assert_close(found[0, :4], wanted)
    to_acgt = [order.index(base) for base in "ACGT"]
    torch.testing.assert_close(found[1, to_acgt], reverse_complement_tensor(wanted[to_acgt]))
    assert torch.equal(found[:, 4], x[:, 4])


def test_a_mirrored_flank_is_the_same_on_either_strand():
    text = "ACGTTTGACC"
    x = torch.stack((one_hot(text), one_hot(reverse_complement(text))))
    found, logits, _ = flanked(x, length=6, strand="mirror")
    assert logits.shape == (3, 4)
    torch.testing.assert_close(found[0, :, :3].T, torch.softmax(logits, -1))
    torch.testing.assert_close(found[1], reverse_complement_tensor(found[0]))


def test_a_flank_from_a_text():
    found, _, _ = flanked(one_hot("N" * 7)[None], length=5, where="left", text="ACGNT", order="AGCT", tau=0.7)
    wanted = one_hot("ACGNT", "AGCT").T * 0.96 + 0.01
    wanted[3] = 0.25
    torch.testing.assert_close(found[0, :, :5].T, wanted)
    _, _, adapter = flanked(one_hot("N" * 7)[None], length=4, strand="mirror", text="AC")
    torch.testing.assert_close(adapter.bases().argmax(0), torch.tensor([0, 1, 2, 3]))  # AC, and GT its other strand


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"strand": "mirror", "length": 5}, "even length"),
        ({"strand": "mirror", "where": "left"}, "where: both"),
        ({"text": "ACG"}, "text is 10 letters"),
        ({"text": "ACGTACGTAX"}, "text is 10 letters"),
        ({"order": "ACGG"}, "the four bases"),
    ],
)
def test_arguments_of_a_flank_that_do_not_go_together(args, message):
    with pytest.raises(RecipeError, match=message):
        AdapterSpec("flank", **args)


def test_flanks_sit_where_dna_is_read():
    with pytest.raises(UnsupportedModule, match="it reads 64 channels, not 4"):
        adapt(nn.Sequential(nn.Linear(64, 2)), ["flank:type=Linear"])
    with pytest.raises(UnsupportedModule, match="no flag of what is turned"):
        adapt(Reader(), ["flank:strand=flag"])
    for recipe, where in (("alphagenome", ""), ("enformer", ""), ("borzoi", ""), ("mpralegnet", ""),
                          ("deepstarr", ":glob=encoder.stage1")):  # fmt: skip
        assert adapt(agblocks.build(recipe, device="meta"), [f"flank{where}"]).bank.count() == 40  # 10 positions
    with pytest.raises(NotMergeable, match="flank"):
        adapt(Reader(), ["flank"]).merged()


def test_branches_that_read_the_same_dna_read_the_same_flank():
    model = agblocks.build("dream_rnn_small").eval()
    stems = [name for name, node in model.resolved.nodes.items() if node.entry.name == "conv.stem"]
    with pytest.raises(UnsupportedModule, match="say by glob what reads DNA"):
        adapt(model, ["flank"])  # the mixer is made of stems too, and reads no DNA
    dna = [name for name in stems if model.get_submodule(name).conv.in_channels in (4, 5)]
    seen = []
    adapted = adapt(model, [AdapterSpec("flank", glob=dna, length=4)])
    assert adapted.bank.count() == 16
    for name in dna:
        model.get_submodule(name).conv.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    adapted(*(torch.zeros([2, 4, 64][: len(i.axes)], dtype=torch.long if i.integer else None)
              for i in model.resolved.inputs.values()))  # fmt: skip
    assert len(seen) == len(dna) > 1
    assert all(torch.equal(x, seen[0]) for x in seen)
    assert seen[0][:, :4, 0].sum() > 1.9


# Conditions


def test_a_condition_is_a_vector_more_and_merges():
    model = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.Flatten(), nn.Linear(30, 2)).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bare = model(x)
    adapted = adapt(model, ["condition:glob=0", "condition:glob=2,at=input"], probe=x)
    assert torch.equal(adapted(x), bare)
    assert adapted.bank.count() == 6 + 30
    one, two = adapted.bank.adapters("default")
    nn.init.normal_(one.c)
    nn.init.normal_(two.c)
    wanted = model[2].weight @ (
        (nn.functional.conv1d(x, model[0].weight, model[0].bias, padding=1) + one.c[0][:, None]).flatten(1) + two.c[0]
    ).T + model[2].bias[:, None]  # fmt: skip
    torch.testing.assert_close(adapted(x), wanted.T)
    torch.testing.assert_close(adapted.merged()(x), wanted.T)


def test_a_table_of_conditions_by_the_label_a_module_is_called_with():
    class Labelled(nn.Module):
        def forward(self, x, scale, organism):
            return x * scale

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.part = nn.Linear(3, 3), Labelled()

        def forward(self, x, organism):
            return self.part(self.first(x), 2.0, organism)

    model, x, organism = Model(), torch.ones(4, 5, 3), torch.tensor([1, 0, 2, 1])
    bare = model(x, organism)
    spec = "condition:glob=part,count=3,label=organism"
    adapted = adapt(model, [spec], probe=(x, organism))
    (adapter,) = adapted.bank.adapters("default")
    adapter.c.data = torch.arange(9.0).view(3, 3)
    found = adapted(x, organism=organism)
    for row, label in enumerate(organism.tolist()):
        for channel in range(3):
            torch.testing.assert_close(found[row, :, channel], bare[row, :, channel] + 3 * label + channel)
    with pytest.raises(NotMergeable, match="the same for every label"):
        adapted.merged()
    adapted.detach()
    with pytest.raises(UnsupportedModule, match="called with x, scale, organism, and not with 'kind'"):
        adapt(model, ["condition:glob=part,count=3,label=kind"], probe=(x, organism))
    for wrong in ("condition:count=2", "condition:label=organism"):
        with pytest.raises(AgblocksError, match="label"):
            AdapterSpec.parse(wrong)


def test_a_condition_for_each_of_alphagenomes_organisms():
    model = agblocks.build("alphagenome_small").eval()
    inputs = {"dna": torch.zeros(2, 4, 2048), "organism": torch.tensor([0, 1])}
    adapted = adapt(model, ["condition:glob=trunk,count=2,label=organism"])
    (adapter,) = adapted.bank.adapters("default")
    with torch.no_grad():
        before = model(**inputs, outputs=["trunk"])["trunk"]
        adapter.c[1] = 3.0
        moved = model(**inputs, outputs=["trunk"])["trunk"] - before
    torch.testing.assert_close(moved, torch.tensor([0.0, 3.0])[:, None, None].expand_as(moved))


# Towers


def tower(block, channels=8, **args):
    torch.manual_seed(0)
    return agblocks.build({
        "recipe": 1, "name": "t", "inputs": {"x": f"B {channels} L"}, "keep": ["tower"],
        "nodes": {"tower": {"block": block, "in": "x", "args": args}},
    }).double().eval()  # fmt: skip


TOWERS = {
    "tower.alphagenome": {"depth": 2, "heads": 2, "key_dim": 4, "value_dim": 4, "pair": False},
    "tower.enformer": {"depth": 2, "heads": 1, "key_dim": 4, "train_length": 16},
    "tower.flashzoi": {"depth": 2, "heads": 2, "kv_heads": 1, "rotary_dim": 4},
    "tower.conformer": {"depth": 2},
}


def layer_by_layer(model, x, prompts):
    for layer, prompt in zip(model.get_submodule("tower").children(), prompts, strict=True):
        if prompt is not None:
            x = torch.cat([torch.stack([prompt.T] * len(x)), x], 2)
        x = layer(x)
        x = x[:, :, 3:] if prompt is not None else x
    return x


@pytest.mark.parametrize("block", TOWERS)
def test_positions_in_front_of_every_layer(block):
    model = tower(block, **TOWERS[block])
    x = torch.randn(2, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bare = model(x)["tower"]
    adapted = adapt(model, ["tower_prefix:glob=tower.layer*,length=3"], probe=x)
    prompts = [adapter.own for adapter in adapted.bank.adapters("default")]
    assert [tuple(p.shape) for p in prompts] == [(3, 8)] * 2
    assert max(p.abs().max() for p in prompts) <= 0.5
    found = adapted(x)["tower"]
    assert found.shape == bare.shape
    assert model(x, outputs=["tower.layer1"])["tower.layer1"].shape == bare.shape
    with adapted.bank.disabled():
        torch.testing.assert_close(found, layer_by_layer(model, x, prompts))
    if block not in ("tower.enformer", "tower.flashzoi"):  # whose attention starts at 0
        assert not torch.allclose(found, bare)


@pytest.mark.parametrize("block", TOWERS)
def test_positions_that_go_through_a_tower(block):
    model = tower(block, **TOWERS[block])
    x = torch.randn(2, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    adapted = adapt(model, ["tower_prefix:glob=tower.layer*,length=3,through=true"], probe=x)
    (prompt,) = adapted.bank.shared.values()
    assert adapted.bank.count() == 3 * 8
    found = adapted(x)["tower"]
    with adapted.bank.disabled():
        y = torch.cat([torch.stack([prompt.positions.T] * 2), x], 2)
        for layer in model.get_submodule("tower").children():
            y = layer(y)
    torch.testing.assert_close(found, y[:, :, 3:])


def test_towers_of_one_node():
    for block, args in (("tower.lstm", {"hidden": 3}), ("tower.transformer", {"depth": 2, "heads": 1, "head_dim": 32})):
        model = tower(block, **args)
        x = torch.randn(2, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        adapted = adapt(model, ["tower_prefix:glob=tower,length=2"], probe=x)
        (adapter,) = adapted.bank.adapters("default")
        found = adapted(x)["tower"]
        with adapted.bank.disabled():
            wanted = model(torch.cat([torch.stack([adapter.own.T] * 2), x], 2))["tower"][:, :, 2:]
            assert not torch.allclose(found, model(x)["tower"])
        torch.testing.assert_close(found, wanted)


def test_refusals_of_towers_say_why():
    small = agblocks.build("alphagenome_small", device="meta")
    with pytest.raises(UnsupportedModule, match=r"it reads 'pair' \[B .*\] too, whose positions belong"):
        adapt(small, ["tower_prefix:glob=tower.layer*"])
    with pytest.raises(UnsupportedModule, match="pair_update does not make one track|it makes "):
        adapt(small, ["tower_prefix:glob=tower.pair1"])
    with pytest.raises(UnsupportedModule, match="positions that are near"):
        adapt(small, ["tower_prefix:glob=encoder.stage1.**"])
    fixed = agblocks.build({
        "recipe": 1, "name": "t", "inputs": {"x": "B 8 6"}, "keep": ["tower"],
        "nodes": {"tower": {"block": "tower.conformer", "in": "x", "args": {"depth": 2, "length": 6}}},
    })  # fmt: skip
    with pytest.raises(UnsupportedModule, match="takes 6 positions and no others"):
        adapt(fixed, ["tower_prefix:glob=tower.layer1"])
    with pytest.raises(UnsupportedModule, match="a position alone"):
        adapt(nn.Sequential(nn.Linear(3, 3)), ["tower_prefix:type=Linear"])


def test_a_chain_that_others_read_from_is_refused():
    recipe = {
        "recipe": 1, "name": "t", "inputs": {"x": "B 8 L"}, "keep": ["tower"],
        "nodes": {"tower": {"block": "tower.enformer", "in": "x", "args": {"depth": 3, **{
            k: v for k, v in TOWERS["tower.enformer"].items() if k != "depth"}}}},
    }  # fmt: skip
    spec = "tower_prefix:glob=tower.layer*,through=true"
    assert adapt(agblocks.build(recipe), [spec]).bank.count() == 80
    with pytest.raises(UnsupportedModule, match=r"'tower.layer1' is read by the model's outputs too"):
        adapt(agblocks.build({**recipe, "keep": ["tower", "tower.layer1"]}), [spec])
    with pytest.raises(UnsupportedModule, match=r"'tower.layer3' does not read 'tower.layer1'"):
        adapt(agblocks.build(recipe), [spec + ",layers=1+3"])


def test_a_module_that_reads_two_tracks_is_refused_when_called():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = role(SelfAttention(4, heads=1), "block.attn", width=4)
            self.cross = role(Both(), "block.attn", width=4)

        def forward(self, x):
            return self.cross(self.attention(x), x)

    class Both(nn.Module):
        def forward(self, x, y):
            return x + y

    model = Crossed()
    adapt(model, ["tower_prefix:glob=attention,length=2"])(torch.zeros(1, 3, 4))
    model = Crossed()
    with pytest.raises(AdapterError, match="one track is wanted"):
        adapt(model, ["tower_prefix:glob=cross,length=2"])(torch.zeros(1, 3, 4))
