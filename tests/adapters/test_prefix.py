"""Prefix tuning against the formula, query by query; gates, bottleneck and ejecting; in whole towers."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from torch.utils.checkpoint import checkpoint

import agblocks
from agblocks.adapters import AdapterError, AdapterSpec, Average, adapt, eject
from agblocks.adapters.errors import CompositionError, UnsupportedModule
from agblocks.adapters.files.store import load
from agblocks.layers import MultiQueryAttention, SelfAttention, streaming
from agblocks.layers.distances import distance_features
from agblocks.layers.grouped import GroupedAttention
from agblocks.layers.relative import RelativeAttention

C = 12


def drawn(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module


def rows(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed(logits_of, values, prefix_logits_of, prefix_values, gate):
    """One query: softmax over both, or over each by itself with a gate. Lists of scalars and of vectors."""
    own = [torch.exp(x) for x in logits_of]
    extra = [torch.exp(x) for x in prefix_logits_of]
    if gate is None:
        weights, everything = [*extra, *own], [*prefix_values, *values]
        return sum(w * v for w, v in zip(weights, everything, strict=True)) / sum(weights)
    y = sum(w * v for w, v in zip(own, values, strict=True)) / sum(own)
    z = sum(w * v for w, v in zip(extra, prefix_values, strict=True)) / sum(extra)
    return y + torch.tanh(gate) * z


def attended(q, k, v, keys, values, gate, logit, prefix_logit):
    """Loops over examples, queries and heads; q (B, n, H, d), k and v (B, n, G, .), keys and values (P, G, .)."""
    out = []
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            for h in range(q.shape[2]):
                g = h * k.shape[2] // q.shape[2]
                own = [logit(b, i, j, h, q[b, i, h], k[b, j, g]) for j in range(k.shape[1])]
                extra = [prefix_logit(h, q[b, i, h], keys[p, g]) for p in range(len(keys))]
                mine = [v[b, j, g] for j in range(k.shape[1])], extra, [values[p, g] for p in range(len(keys))]
                out.append(mixed(own, *mine, None if gate is None else gate[h]))
    return torch.stack(out).view(*q.shape[:3], -1)


def multi_query(length, heads):
    m = drawn(MultiQueryAttention(C, heads=heads, key_dim=4, value_dim=3, repeat=2, cap=2.0))
    x, bias = rows(2, length * 2, C), rows(2, heads, length, length, seed=2)

    def naive(keys, values, gate):
        h = m.norm(x)
        q = m.rope(m.norm_q(m.q(h).unflatten(-1, (heads, -1))))
        k, v = m.rope(m.norm_k(m.k(h)))[:, :, None], m.norm_v(m.v(h))[:, :, None]
        y = attended(
            q, k, v, keys[:, None], values[:, None], gate,
            lambda b, i, j, h, q, k: 2 * torch.tanh((q @ k / 2 + bias[b, h, i // 2, j // 2]) / 2),
            lambda h, q, k: 2 * torch.tanh(q @ k / 2 / 2),
        )  # fmt: skip
        return m.norm_out(m.out(y.flatten(2)))

    return m, (x, bias), naive


def relative(length, heads):
    m = drawn(RelativeAttention(12, heads=heads, key_dim=4, features=6, train_length=16))
    x = rows(2, length, 12)

    def naive(keys, values, gate):
        h = m.norm(x)
        q, k, v = (linear(h).unflatten(-1, (heads, -1)) for linear in (m.q, m.k, m.v))
        r = m.positions(distance_features("enformer", length, 6, 16)).unflatten(-1, (heads, -1))
        y = attended(
            q / 2, k, v, keys, values, gate,
            lambda b, i, j, h, q, k: (
                (q + m.content_bias[h]) @ k + (q + m.position_bias[h]) @ r[j - i + length - 1, h]),
            lambda h, q, k: (q + m.content_bias[h]) @ k,
        )  # fmt: skip
        return m.out(y.flatten(2))

    return m, (x,), naive


def grouped(length, heads):
    m = drawn(GroupedAttention(C, heads=2 * heads, kv_heads=heads, rotary_dim=2))
    x = rows(2, length, C)
    scale = (C // (2 * heads)) ** -0.5

    def naive(keys, values, gate):
        h = m.norm(x)
        q = m.rope(m.q(h).unflatten(-1, (2 * heads, -1)))
        k, v = m.rope(m.k(h).unflatten(-1, (heads, -1))), m.v(h).unflatten(-1, (heads, -1))
        y = attended(q, k, v, keys, values, gate, lambda b, i, j, h, q, k: q @ k * scale, lambda h, q, k: q @ k * scale)
        return m.out(y.flatten(2))

    return m, (x,), naive


def plain(length, heads):
    m = drawn(SelfAttention(C, heads=heads))
    x = rows(2, length, C)
    scale = (C // heads) ** -0.5

    def naive(keys, values, gate):
        q, k, v = (linear(x).unflatten(-1, (heads, -1)) for linear in (m.q, m.k, m.v))
        y = attended(q, k, v, keys, values, gate, lambda b, i, j, h, q, k: q @ k * scale, lambda h, q, k: q @ k * scale)
        return m.out(y.flatten(2))

    return m, (x,), naive


@settings(max_examples=8)
@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from(["none", "zero"]),
    st.sampled_from([9, 10**6]),
)
@pytest.mark.parametrize("make", [multi_query, relative, grouped, plain])
def test_attention_with_a_prefix_is_the_formula(make, length, heads, positions, gate, held):
    module, inputs, naive = make(length, heads)
    adapted = adapt(module, [AdapterSpec("prefix", length=positions, gate=gate)])
    (adapter,) = adapted.bank.adapters("default")
    if gate == "zero":
        with torch.no_grad():
            adapter.gate.copy_(rows(len(adapter.gate), seed=5))
    parameters = list(adapted.bank.parameters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(streaming.HELD, "cpu", held)
        found = adapted(*inputs)
        weight = rows(*found.shape, seed=4)
        gradients = torch.autograd.grad((found * weight).sum(), parameters)
        again = torch.autograd.grad((checkpoint(adapted, *inputs, use_reentrant=False) * weight).sum(), parameters)
    with adapted.bank.disabled():
        wanted = naive(adapter.keys, adapter.values, adapter.gate)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)
    for one, two, other in zip(gradients, again, torch.autograd.grad((wanted * weight).sum(), parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(two, other, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("make", [multi_query, relative, grouped, plain])
def test_a_gate_of_0_changes_no_bit_and_learns_first(make):
    module, inputs, _ = make(3, 2)
    before = module(*inputs)
    adapted = adapt(module, ["prefix:gate=zero,length=4"], probe=inputs)
    after = adapted(*inputs)
    assert torch.equal(before, after)
    after.square().sum().backward()
    (adapter,) = adapted.bank.adapters("default")
    assert (adapter.gate.grad != 0).all()
    assert (adapter.keys.grad == 0).all()
    with torch.no_grad():
        adapter.gate.fill_(0.3)
    assert not torch.allclose(adapted(*inputs), before)


def test_two_prefixes_stand_side_by_side():
    module, inputs, naive = plain(3, 2)
    adapted = adapt(module, ["prefix:length=2"], name="one").add("two", ["prefix:length=3"], seed=7)
    (one,), (two,) = adapted.bank.adapters("one"), adapted.bank.adapters("two")
    found = adapted(*inputs)
    with adapted.bank.disabled():
        wanted = naive(torch.cat((two.keys, one.keys)), torch.cat((two.values, one.values)), None)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)


def test_a_prefix_has_no_half():
    module, inputs, _ = plain(3, 2)
    adapted = adapt(module, ["prefix:length=2,gate=zero"], name="one").add("two", ["prefix:length=2,gate=zero"])
    adapted.bank.weigh("one", 0.5)
    with pytest.raises(CompositionError, match=r"'prefix' at 'kv' adds positions"):
        adapted(*inputs)
    adapted.bank.weigh("one", 1.0)
    with adapted.bank.using(Average("one", "two")), pytest.raises(CompositionError, match="adds positions"):
        adapted(*inputs)


# Counts


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        ("alphagenome", 9 * 30 * (128 + 192)),  # 86,400
        ("enformer", 11 * 30 * (8 * 64 + 1536)),
        ("borzoi", 8 * 30 * (8 * 64 + 1536)),
        ("flashzoi", 8 * 30 * 2 * 4 * 192),
    ],
)
def test_counts_of_the_published_models(recipe, count):
    model = agblocks.build(recipe, device="meta")
    assert adapt(model, ["prefix"]).bank.count() == count
    if recipe == "alphagenome":
        assert count == 86_400


def test_counts_of_the_bottleneck_and_the_gates():
    model = agblocks.build("alphagenome", device="meta")
    bank = adapt(model, ["prefix:hidden=512,width=64,gate=zero"]).bank
    assert bank.count() == 30 * 64 + 65 * 512 + 513 * 9 * (128 + 192) + 9 * 8


# The bottleneck


def small_tower(**more):
    recipe = {
        "recipe": 1, "name": "t", "inputs": {"x": "B 8 L"}, "keep": ["tower"],
        "nodes": {"tower": {"block": "tower.alphagenome", "in": "x", "args": {
            "depth": 2, "heads": 2, "key_dim": 4, "value_dim": 4, "pair_channels": 4, "pair_heads": 2,
            "pair_key_dim": 4, "pool": 2, **more}}},
    }  # fmt: skip
    torch.manual_seed(0)
    return agblocks.build(recipe).eval()


def test_the_bottleneck_is_the_formula_and_ejecting_keeps_what_it_gives():
    model, x = small_tower().double(), rows(2, 8, 6)
    adapted = adapt(model, ["prefix:length=3,hidden=5,width=4,gate=zero,std=0.7"])
    for adapter in adapted.bank.adapters("default"):
        nn.init.constant_(adapter.gate, 0.4)
    (net,) = adapted.bank.shared.values()
    adapter = adapted.bank.adapters("default")[1]
    keys, values = adapter.made()
    for position in range(3):
        hidden = [torch.tanh(net.weight[i] @ net.embedding[position] + net.bias[i]) for i in range(5)]
        up, offset = net.up["tower/layer2/attention/kv"], net.offset["tower/layer2/attention/kv"]
        for channel in range(8):
            value = sum(up[channel, i] * hidden[i] for i in range(5)) + offset[channel]
            torch.testing.assert_close((keys if channel < 4 else values)[position, channel % 4], value)

    with torch.no_grad():
        before = adapted(x)["tower"]
    large = adapted.bank.count()
    saved = eject(adapted)
    flat = 2 * (3 * (4 + 4) + 2)
    assert (adapted.bank.count(), saved) == (flat, large - flat)
    assert not adapted.bank.shared
    with torch.no_grad():
        assert torch.equal(adapted(x)["tower"], before)
    (spec,) = adapted.bank.names["default"].specs
    assert spec.args["hidden"] is None
    assert (spec.args["length"], spec.args["gate"], spec.args["std"]) == (3, "zero", 0.7)
    fresh = adapt(small_tower().double(), [spec])
    fresh.bank.load_state_dict(adapted.bank.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(x)["tower"], before)
    assert all(p.requires_grad for p in adapted.bank.parameters())
    adapted(x)["tower"].sum().backward()
    assert all(p.grad is not None for p in adapted.bank.parameters())
    with pytest.raises(AdapterError, match="nothing to eject"):
        eject(adapted)


def test_a_file_holds_the_bottleneck_or_what_it_gives(tmp_path):
    adapted, x = adapt(small_tower(), ["prefix:length=2,hidden=3,width=3"]), rows(1, 8, 6).float()
    with torch.no_grad():
        wanted = adapted(x)["tower"]
        for name, parts in (("large", {"shared"}), ("flat", {"sites"})):
            path = tmp_path / f"{name}.safetensors"
            if name == "flat":
                eject(adapted)
            adapted.save(path)
            assert {key.partition("/")[0] for key in safe_open(path, "pt").keys()} == parts  # noqa: SIM118
            assert torch.equal(load(small_tower(), path)(x)["tower"], wanted)


def test_ejecting_leaves_other_names_alone():
    model, x = small_tower(), rows(1, 8, 4).float()
    adapted = adapt(model, ["prefix:length=2,hidden=3,width=3", "lora:rank=2"], name="one")
    adapted.add("two", ["prefix:length=2,hidden=3,width=3"])
    with torch.no_grad():
        before = adapted(x)["tower"]
        eject(adapted, "two")
        assert torch.equal(before, adapted(x)["tower"])
    assert [*adapted.bank.shared] == ["one:0"]
    with torch.no_grad():
        eject(adapted, "one")
        assert torch.equal(before, adapted(x)["tower"])
    adapted.bank.remove("one")
    assert {row["name"] for row in adapted.bank.report()} == {"two"}


# In towers


def prefixed_tower():
    model, x = small_tower(depth=1), rows(2, 8, 6).float()
    adapted = adapt(model, ["prefix:length=3,hidden=4,width=4"]).add("gated", ["prefix:length=2,gate=zero"])
    for adapter in adapted.bank.adapters("gated"):
        nn.init.constant_(adapter.gate, 0.5)
    return adapted, x


@pytest.mark.slow  # 20 s
def test_a_tower_with_a_prefix_compiles_and_checkpoints():
    adapted, x = prefixed_tower()

    def gradients(call):
        adapted.zero_grad(set_to_none=True)
        call(x)["tower"].square().sum().backward()
        return [p.grad.clone() for p in adapted.bank.parameters()]

    wanted, out = gradients(adapted), adapted(x)["tower"]
    torch._dynamo.reset()
    quick = torch.compile(adapted, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(quick(x)["tower"], out, atol=1e-5, rtol=1e-4)
    for found in (gradients(quick), gradients(lambda x: checkpoint(adapted, x, use_reentrant=False))):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)
    torch._dynamo.reset()


def test_a_tower_with_a_prefix_is_exported():
    adapted, x = prefixed_tower()
    out = adapted(x)["tower"]
    program = torch.export.export(adapted, (x,), strict=False)
    torch.testing.assert_close(program.module()(x)["tower"], out, atol=1e-5, rtol=1e-4)


def test_conformers_have_a_point_too():
    recipe = {"recipe": 1, "name": "t", "inputs": {"x": "B 8 L"}, "keep": ["tower"],
              "nodes": {"tower": {"block": "tower.conformer", "in": "x", "args": {"depth": 2}}}}  # fmt: skip
    adapted = adapt(agblocks.build(recipe), ["prefix:length=5"], probe=rows(1, 8, 6).float())
    assert adapted.bank.count() == 2 * 5 * (8 + 8)


@pytest.mark.parametrize(("one", "flash"), [(False, False), (True, True)])
def test_x_transformers_takes_a_prefix_as_its_own_memory(one, flash):
    recipe = {"recipe": 1, "name": "t", "inputs": {"x": "B 8 L"}, "keep": ["tower"],
              "nodes": {"tower": {"block": "tower.transformer", "in": "x", "args": {
                  "depth": 2, "heads": 2, "head_dim": 32, "one_kv_head": one, "flash": flash}}}}  # fmt: skip
    from x_transformers.x_transformers import Encoder

    model, x = agblocks.build(recipe).double().eval(), rows(2, 8, 5)
    tower = model.get_submodule("tower")
    twin = Encoder(**tower._settings, attn_num_mem_kv=3).double().eval()  # learnt keys and values of its own, in front
    adapted = adapt(model, ["prefix:role=block.attn,length=3"])
    state = twin.state_dict()
    state.update(tower.layers.state_dict())
    memories = iter(adapted.bank.adapters("default"))
    for key in list(state):
        if key.endswith("mem_k"):
            adapter = next(memories)
            state[key] = adapter.keys.detach().movedim(0, 1)
            state[key.replace("mem_k", "mem_v")] = adapter.values.detach().movedim(0, 1)
    twin.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x)["tower"], twin(x.transpose(1, 2)).transpose(1, 2))
    with pytest.raises(UnsupportedModule, match="x-transformers has one softmax"):
        adapt(copy.deepcopy(adapted.detach()), ["prefix:role=block.attn,gate=zero"])


def test_refusals():
    module, _, _ = plain(3, 2)
    with pytest.raises(UnsupportedModule, match="no point at keys and values; role=kv"):
        adapt(module, ["prefix:glob=q"])
    with pytest.raises(AdapterError, match="merge"):
        adapt(module, ["prefix"]).merged()
