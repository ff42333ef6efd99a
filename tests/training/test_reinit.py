"""Parts drawn anew after loading: what a fresh model of the seed has, and nothing else touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import QUICK, table_and_splits
from tune_helpers import LAYERED, block, made, stack, state, stem

from agblocks import build, reset_parameters, resolve
from agblocks.data import Construct
from agblocks.training import RunError, Settings, fit, load_run, predict, save_run, wire
from agblocks.training.run import Run
from agblocks.training.tuning.initial import DRAWN, REDRAWN, Initial
from agblocks.training.tuning.loads import Load
from agblocks.training.tuning.reinit import redrawn_names

NORMS = stack(stem(norm="batch"), block(channels=6, norm="rms_batch"), block(norm="rms_batch", statistics="ema"))
RECIPES = (
    pytest.param("alphagenome_small", marks=pytest.mark.slow), "borzoi_small", "enformer_small", "flashzoi_small",
    "mpra_small", "mpra_attention", "deepstarr_small", "dream_cnn_small", "dream_rnn_small", "dream_attn_small",
    "mpralegnet_small",
)  # fmt: skip


def moved(recipe):
    """A state in which every tensor differs from any that is drawn."""
    held = state(build(recipe, seed=99))
    return {n: v + 1.5 if v.is_floating_point() else v + 7 for n, v in held.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_each_block_is_what_a_fresh_model_has(name):
    """Every node of every architecture by itself, after everything was loaded."""
    resolved = resolve(name)
    loaded = moved(name)
    fresh = state(build(name, seed=3))
    initial = Initial(resolved, [Load(loaded)])
    whole = state(initial.model(Settings(seed=3)))
    for key, value in whole.items():
        assert torch.equal(value, loaded[key]), key
    nodes = [n for n in resolved.nodes if any(k.startswith(f"{n}.") for k in fresh)]
    kinds = {resolved.nodes[n].entry.name: n for n in nodes}
    for node in kinds.values():
        if not list(build(name, device="meta").get_submodule(node).parameters()):
            continue
        model = initial.model(Settings(seed=3, reinit=node))
        for key, value in state(model).items():
            inside = key.startswith(f"{node}.")
            assert torch.equal(value, (fresh if inside else loaded)[key]), key
            assert initial.origins[key] == (REDRAWN if inside else "a state dict"), key
        # By the block's own initialisation: a meta model's node, drawn anew by itself, has the same distribution.
        other = build(name, seed=3)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            reset_parameters(other.get_submodule(node))
        for key, value in other.get_submodule(node).state_dict().items():
            own = fresh[f"{node}.{key}"]
            if own.is_floating_point() and own.numel() >= 200 and bool((own != own.flatten()[0]).any()):
                assert float(value.std() / own.std()) == pytest.approx(1, abs=0.4), (node, key)
            elif own.numel() > 1 and bool((own == own.flatten()[0]).all()):
                assert torch.equal(value, own), (node, key)


MODEL = made(NORMS)
LOADED = moved(NORMS)
FRESH = {seed: state(build(NORMS, seed=seed)) for seed in (0, 5)}


@settings(max_examples=30)
@given(
    st.lists(
        st.sampled_from(
            ["head", "from:encoder.stage2", "to:encoder.stage2", "encoder.stage3", "encoder.*.norm", "**.bias",
             "encoder.stage2.norm.weight", "full", "not:encoder.stage1", "last:1", "encoder.stage1.conv"]
        ),
        min_size=1, max_size=3, unique=True,
    ).filter(lambda terms: "full" not in terms or len(terms) == 1),
    st.sampled_from([0, 5]),
)  # fmt: skip
def test_any_terms(terms, seed):
    """What is drawn anew is of the seed, whatever else is; statistics go with all the parameters of their norm."""
    text = "+".join(terms)
    names = set(redrawn_names(MODEL, terms))
    initial = Initial(resolve(NORMS), [Load(LOADED)])
    model = initial.model(Settings(seed=seed, reinit=text))
    for key, value in state(model).items():
        assert torch.equal(value, (FRESH[seed] if key in names else LOADED)[key]), key
    parameters = {n for n, _ in MODEL.named_parameters()}
    for stage in ("stage1", "stage2", "stage3"):
        norm = f"encoder.{stage}.norm."
        own = {n for n in parameters if n.startswith(norm)}
        kept = {n for n in FRESH[0] if n.startswith(norm)} - own
        assert kept and (kept <= names) == (own <= names) and (kept & names in (set(), kept))


def test_terms_add_no_heads_of_their_own():
    model = made(LAYERED)
    early = {n for n in model.state_dict() if n.startswith("early.")}
    assert not early & set(redrawn_names(model, ["from:tower.layer2"]))
    assert not {n for n in redrawn_names(model, ["last:1"]) if not n.startswith("tower.layer3.")}
    assert early <= set(redrawn_names(model, ["from:encoder.stage1"])), "it reads stage 1"
    with pytest.raises(RunError, match="reinit from:encoder.stag1: .*did you mean encoder.stage1"):
        redrawn_names(model, ["from:encoder.stag1"])
    assert redrawn_names(model, []) == ()


def test_without_weights_all_is_drawn():
    initial = Initial(resolve(NORMS))
    found = state(initial.model(Settings(seed=5, reinit="encoder")))
    assert all(torch.equal(v, FRESH[5][n]) for n, v in found.items())
    assert set(initial.origins.values()) == {DRAWN} and initial.sha256 is None and not initial.record


def test_members_draw_their_own_and_frozen_ones_stay(tmp_path):
    """Through fit: every member's part is that of its own seed, and where it is frozen training leaves it so."""
    table, splits = table_and_splits()
    wiring = wire(resolve(NORMS), table.target_names)
    base = build(NORMS, seed=99)
    base.load_state_dict(LOADED)
    save_run(tmp_path / "base.safetensors", Run((base.eval(),), Construct(), wiring, QUICK))
    chosen = replace(QUICK, epochs=1, ensemble=2, seed=5)
    run = fit(NORMS, table, splits, tmp_path / "run", chosen,
              transfer={"weights": str(tmp_path / "base.safetensors"), "reinit": "from:encoder.stage3", "tune": "head"})  # fmt: skip
    for seed, model in zip((5, 6), run.models, strict=True):
        fresh = state(build(NORMS, seed=seed))
        for key, value in state(model).items():
            if key.startswith("encoder."):
                assert torch.equal(value, (fresh if "stage3" in key else LOADED)[key]), key
    assert run.data["transfer"]["reinit"] == ["from:encoder.stage3"]
    assert predict(load_run(tmp_path / "run"), table, splits.test).shape == (len(splits.test), 1)
