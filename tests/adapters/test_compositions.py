"""Several named adapters at once, against what each gives by itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from agblocks.adapters import AdapterSpec, Average, BatchSplit, Fuse, Parallel, Split, Stack, adapt
from agblocks.adapters.errors import CompositionError, UnknownAdapter
from agblocks.testing.adapter_trial import gradients, outputs

C, L, B = 6, 12, 4
LORA = AdapterSpec("lora", glob="1", rank=2)
IA3 = AdapterSpec("ia3", glob="1")


def made(*names, spec=LORA, norm=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(C, C, 1), nn.Conv1d(C, C, 3, padding=1), nn.Conv1d(C, 2, 1))
        if norm:
            model.append(nn.BatchNorm1d(2))
    adapted = adapt(model.double().eval(), [], name="none", train=["0"])
    adapted.bank.remove("none")
    for index, name in enumerate(names):
        adapted.add(name, [spec], seed=index)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5 + 1)
    return adapted


def batch(rows=B):
    return torch.randn(rows, C, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def alone(adapted, *parts, x=None):
    with adapted.bank.using(*parts):
        return outputs(adapted, batch() if x is None else x)


def test_names_alone_are_a_stack_in_order_of_phases():
    adapted = made("a", "b")
    scaled = made("a")
    scaled.add("s", [IA3])
    with torch.no_grad():
        for adapter in scaled.bank.adapters("s"):
            adapter.l.mul_(3)
    x = batch()
    both = outputs(adapted, x)
    assert torch.equal(both, alone(adapted, Stack("a", "b"))) and torch.allclose(both, alone(adapted, "b", "a"))
    delta = (alone(adapted, "a") - alone(adapted)) + (alone(adapted, "b") - alone(adapted))
    assert torch.allclose(both, alone(adapted) + delta, atol=1e-10)  # at a linear site with a linear end, changes add
    assert torch.equal(alone(scaled, "s", "a"), alone(scaled, "a", "s"))  # a scale comes after what is added


def test_nested_stacks_act_one_on_the_other():
    adapted = made("a")
    adapted.add("s", [IA3])
    with torch.no_grad():
        adapted.bank.adapters("s")[0].l.mul_(3)
    inside = alone(adapted, Stack(Stack("s"), "a"))
    assert not torch.allclose(inside, alone(adapted, "s", "a"))  # here the scale is first
    site = adapted.base[1]
    with torch.no_grad():
        h = adapted.base[0](batch())
        with adapted.bank.using("s"):
            first = site(h)
        with adapted.bank.using("a"):
            change = site(h)
        with adapted.bank.disabled():
            bare = site(h)
    with torch.no_grad():
        assert torch.allclose(inside, adapted.base[2](first + change - bare), atol=1e-10)


@given(st.lists(st.floats(0.1, 3), min_size=2, max_size=3), st.booleans())
def test_average_is_the_mean_of_what_each_gives(weights, normalize):
    names = "abc"[: len(weights)]
    adapted = made(*names)
    mean = alone(adapted, Average(*names, weights=weights, normalize=normalize))
    total = sum(weights) if normalize else 1.0
    with torch.no_grad():
        end, bias = adapted.base[2], adapted.base[2].bias
        wanted = sum(w / total * (alone(adapted, n) - bias.view(1, -1, 1)) for w, n in zip(weights, names, strict=True))
        assert end is not None and torch.allclose(mean, wanted + bias.view(1, -1, 1), atol=1e-9)


@given(st.lists(st.floats(0.1, 3), min_size=2, max_size=3))
def test_an_average_merges(weights):
    names = "abc"[: len(weights)]
    adapted = made(*names)
    adapted.bank.activate(Average(*names, weights=weights))
    wanted = outputs(adapted, batch())
    assert torch.allclose(outputs(adapted.merged(), batch()), wanted, atol=1e-10)


def test_batch_split_gives_rows_to_each():
    adapted = made("a", "b")
    made_ = alone(adapted, BatchSplit("a", "b", sizes=[1, 3]))
    assert torch.allclose(made_[:1], alone(adapted, "a")[:1]) and torch.allclose(made_[1:], alone(adapted, "b")[1:])
    with pytest.raises(CompositionError, match="the batch has 4 rows"):
        alone(adapted, BatchSplit("a", "b", sizes=[1, 2]))
    with pytest.raises(CompositionError, match="rows for each"):
        BatchSplit("a", "b", sizes=[4])


def test_split_gives_parts_of_the_length_to_each():
    adapted = made("a", "b")
    parted = alone(adapted, Split("a", "b", fractions=[0.25, 0.75]))
    assert torch.allclose(parted[..., :3], alone(adapted, "a")[..., :3])
    assert torch.allclose(parted[..., 3:], alone(adapted, "b")[..., 3:])
    with pytest.raises(CompositionError, match="no whole number"):
        alone(adapted, Split("a", "b", fractions=[0.3, 0.7]))
    with pytest.raises(CompositionError, match="add up to 1"):
        Split("a", "b", fractions=[0.3, 0.3])


def test_parallel_gives_all_rows_to_each():
    adapted = made("a", "b")
    with adapted.bank.using(Parallel("a", Stack("a", "b"))):
        both = outputs(adapted, batch())
    assert both.shape[0] == 2 * B
    assert torch.allclose(both[:B], alone(adapted, "a")) and torch.allclose(both[B:], alone(adapted, "a", "b"))


def test_parallel_is_refused_where_a_norm_would_count_rows_twice():
    adapted = made("a", "b", norm=True)
    with adapted.bank.using(Parallel("a", "b")):
        adapted(batch())
        adapted.bank.norms = "track"
        adapted.train()
        with pytest.raises(CompositionError, match="'3' would count in"):
            adapted(batch())


def test_compositions_with_what_changes_inputs():
    adapted = made("a", "b", spec=AdapterSpec("ia3_ff", glob="1"))
    halves = alone(adapted, Average("a", "b"))
    with torch.no_grad():
        bias = adapted.base[2](adapted.base[1].bias.view(1, -1, 1))
        h = (alone(adapted, "a") + alone(adapted, "b")) / 2
    assert (
        torch.allclose(halves, h, atol=1e-9) and bias is not None
    )  # a linear site: the mean of inputs is that of outputs
    rows = alone(adapted, BatchSplit("a", "b", sizes=[2, 2]))
    assert torch.allclose(rows[:2], alone(adapted, "a")[:2]) and torch.allclose(rows[2:], alone(adapted, "b")[2:])


def test_nesting_is_checked():
    Stack("a", Average("b", "c"))
    Split("a", Stack("b", "c"), fractions=[0.5, 0.5])
    with pytest.raises(CompositionError, match="Fuse cannot stand inside Average"):
        Average("a", Fuse("b", "c"))
    with pytest.raises(CompositionError, match="Parallel cannot stand inside Stack"):
        Stack(Parallel("a", "b"), "c")
    with pytest.raises(UnknownAdapter, match="there is no adapter 'z'"):
        alone(made("a"), "z")


def test_fusion_chooses_by_attention():
    adapted = made("a", "b")
    state = torch.random.get_rng_state()
    fuse = adapted.bank.add_fusion("a", "b")
    assert torch.equal(state, torch.random.get_rng_state())
    x, fusion = batch(), adapted.bank.sites["1"]._modules["fusion:Fuse(a, b)"]
    assert sum(p.numel() for p in fusion.parameters()) == 3 * C**2 + 2 * C
    adapted.bank.activate(fuse)
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all("fusion:Fuse(a, b)" in n for n in trained)
    assert set(gradients(adapted, x)) == trained
    with torch.no_grad():
        fusion.value.weight.add_(0.1)
        h = adapted.base[0](x)
        with adapted.bank.disabled():
            bare = adapted.base[1](h)
        made_ = []
        for name in "ab":
            with adapted.bank.using(name):
                made_.append(adapted.base[1](h))
        wanted = torch.empty_like(bare)
        for b in range(B):
            for t in range(L):
                q = fusion.query.weight @ bare[b, :, t] + fusion.query.bias
                scores = torch.stack([q @ (fusion.key.weight @ z[b, :, t] + fusion.key.bias) for z in made_])
                weights = scores.softmax(0)
                wanted[b, :, t] = sum(
                    w * (fusion.value.weight @ z[b, :, t]) for w, z in zip(weights, made_, strict=True)
                )
    assert torch.allclose(adapted.base[1](h), wanted, atol=1e-9)
    assert fusion.penalty().item() == pytest.approx(((fusion.value.weight - torch.eye(C)) ** 2).sum().item())
    adapted.bank.activate("b")
    adapted.bank.remove("a")
    assert "fusion:Fuse(a, b)" not in adapted.bank.sites["1"]._modules


def test_a_fusion_of_equals_passes_them_on():
    adapted = made("a", "b")
    with torch.no_grad():
        for p, q in zip(*(adapted.bank.adapters(n)[0].parameters() for n in "ab"), strict=True):
            q.copy_(p)
    fuse = adapted.bank.add_fusion("a", "b")
    assert torch.allclose(alone(adapted, fuse), alone(adapted, "a"), rtol=1e-4)


def test_a_weight_goes_part_of_the_way():
    adapted = made("a", "b")
    x = batch()
    full, half = alone(adapted, "a"), None
    adapted.bank.weigh("a", 0.5)
    half = alone(adapted, "a")
    assert torch.allclose(half, (full + alone(adapted)) / 2, atol=1e-10)
    adapted.bank.activate("a")
    assert torch.allclose(outputs(adapted.merged(), x), half, atol=1e-10)
    adapted.bank.weigh("a", 0)
    assert torch.allclose(alone(adapted, "a"), alone(adapted), atol=1e-12)


def test_what_is_not_active_does_not_train():
    adapted = made("a", "b")
    assert all(p.requires_grad for p in adapted.bank.parameters())
    adapted.bank.activate("a")
    assert {n for n, p in adapted.bank.named_parameters() if p.requires_grad} == {
        "sites.1.a:lora.A",
        "sites.1.a:lora.B",
    }
    adapted.bank.activate("a", "b")
    adapted.bank.train_only("b")
    assert {n for n, p in adapted.bank.named_parameters() if p.requires_grad} == {
        "sites.1.b:lora.A",
        "sites.1.b:lora.B",
    }
    with adapted.bank.using("a"):
        assert {n for n, p in adapted.bank.named_parameters() if p.requires_grad} == {
            "sites.1.b:lora.A", "sites.1.b:lora.B"
        }  # fmt: skip
