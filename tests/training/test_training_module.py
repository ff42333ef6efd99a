from __future__ import annotations

import math

import pytest
import torch
from training_helpers import SMALL

from agblocks import build
from agblocks.training import Settings


def module_under_test():
    from agblocks.training import module

    return module


def test_norms_and_biases_do_not_decay():
    from agblocks.training.tuning.groups import parameter_groups

    model = build(SMALL, seed=0)
    decays, spared = parameter_groups(model, 0.1)
    assert decays["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0
    names = {id(p): n for n, p in model.named_parameters()}
    assert sorted(names[id(p)] for g in (decays, spared) for p in g["params"]) == sorted(names.values())
    for p in spared["params"]:
        assert p.numel() == max(p.shape), names[id(p)]
    for p in decays["params"]:
        assert names[id(p)].endswith("weight"), names[id(p)]
        assert p.ndim > 1


@pytest.mark.parametrize("kind", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 7, 200])
def test_schedules_stay_within_bounds_and_end_low(kind, steps):
    settings = Settings(schedule=kind, lr=0.5, warmup=0.2, final_lr=0.01)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=settings.lr)
    made = module_under_test().schedule(optimizer, settings, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    last = optimizer.param_groups[0]["lr"]
    assert all(0 < r <= 0.5 + 1e-9 for r in rates)
    if kind == "constant":
        assert set(rates) == {0.5}
    elif steps > 1:
        assert last == pytest.approx(0.005, rel=1e-6)
    if steps == 200:
        assert max(rates) == pytest.approx(0.5, rel=1e-2)


def test_the_moving_average_is_the_naive_one():
    from agblocks.training.average import _warmed

    decay = 0.9
    average = _warmed(decay)
    held = torch.tensor([0.0, 1.0])
    naive = held.clone()
    for n in range(1, 30):
        now = torch.tensor([math.sin(n), math.cos(n)])
        average([held], [now], torch.tensor(n))
        d = min(decay, (1 + n) / (10 + n))
        naive = d * naive + (1 - d) * now
        torch.testing.assert_close(held, naive)
