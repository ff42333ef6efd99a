"""Learning rates of parts in a whole training, beside AdamW written by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from training_helpers import table_and_splits
from tune_helpers import LAYERED, block, changed, made, stack, state, stem

from agblocks import resolve
from agblocks.data import Construct
from agblocks.training import RunError, Settings, wire
from agblocks.training.tuning.groups import groups_of, parameter_groups
from agblocks.training.tuning.plan import plan
from agblocks.training.tuning.rates import as_rates

DEEPER = stack(stem(), block(channels=6, norm="rms_batch"), block(channels=8, norm="rms_batch", statistics="ema"))
CHOSEN = Settings(
    epochs=3, batch_size=32, lr=1e-2, weight_decay=0.1, tune="from:encoder.stage2", unfreeze="1=encoder.stage1.conv",
    rates="encoder.**=0.1,encoder.stage3=2,head=0.5,**.bias=4", layer_decay=0.5, head_lr=3.0, clip=0.0, ema=0.0,
    warmup=0.2, patience=0, keep="last", device="cpu",
)  # fmt: skip


def factors(model):
    """Factor of each parameter by hand: layer decay or head_lr, times the narrowest of the rates.

    The head and stage 3 have 4 parameters each, there are 7 biases, and the encoder has 11: so biases of stages 1 and 2
    alone go by `**.bias`.
    """
    sizes = [sum(inside(n) for n, _ in model.named_parameters()) for inside in (
        lambda n: n.startswith("activity"), lambda n: ".stage3." in n, lambda n: n.endswith("bias"),
        lambda n: n.startswith("encoder"),
    )]  # fmt: skip
    assert sizes == [4, 4, 7, 11]
    found = {}
    for name, _ in model.named_parameters():
        if name.startswith("activity"):
            depth, part = 3.0, 0.5
        else:
            stage = int(name.split(".")[1][-1])
            depth, part = 0.5 ** (3 - stage), 2.0 if stage == 3 else 4.0 if name.endswith("bias") else 0.1
        found[name] = depth * part
    return found


def test_a_training_is_adamw_by_hand(tmp_path):
    from agblocks.training import train
    from agblocks.training.data import Batches

    table, splits = table_and_splits()
    wiring = wire(resolve(DEEPER), table.target_names).scaled(table.targets[splits.train])
    model, other = made(DEEPER), made(DEEPER)
    start = state(model)
    keeper = train.train(model, table, splits, Construct(), wiring, CHOSEN, tmp_path / "0.ckpt", tmp_path / "logs")
    wanted, trained = by_hand(other, table, splits, wiring, Batches)
    for name, value in wanted.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert changed(start, model) & set(dict(model.named_parameters())) == trained
    assert keeper.history[-1]["lr"] == pytest.approx(CHOSEN.lr * CHOSEN.final_lr)


def by_hand(model, table, splits, wiring, batches_of):
    batches = batches_of(table, splits, Construct(), wiring, CHOSEN, CHOSEN.seed).train
    parameters, scale = dict(model.named_parameters()), factors(model)
    steps = CHOSEN.epochs * len(batches)
    warm, step = round(CHOSEN.warmup * steps), 0
    moments = {n: [torch.zeros_like(p), torch.zeros_like(p), 0] for n, p in parameters.items()}
    trained = {n for n in parameters if ".stage1." not in n}
    model.encoder.stage1.norm.eval()
    for epoch in range(CHOSEN.epochs):
        if epoch == 1:
            trained |= {n for n in parameters if n.startswith("encoder.stage1.conv")}
        batches.start(epoch)
        for batch in batches:
            loss = model.loss(model(**wiring.inputs(batch["inputs"])), batch["targets"])
            names = sorted(trained)
            gradients = torch.autograd.grad(loss, [parameters[n] for n in names])
            if step < warm:
                rate = (step + 1) / (warm + 1)
            else:
                wave = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
                rate = CHOSEN.final_lr + (1 - CHOSEN.final_lr) * wave
            with torch.no_grad():
                for n, g in zip(names, gradients, strict=True):
                    lr, p, own = CHOSEN.lr * rate * scale[n], parameters[n], moments[n]
                    own[2] += 1
                    if p.ndim > 1:
                        p.mul_(1 - lr * CHOSEN.weight_decay)
                    own[0].mul_(0.9).add_(0.1 * g)
                    own[1].mul_(0.999).add_(0.001 * g * g)
                    mean, square = own[0] / (1 - 0.9 ** own[2]), own[1] / (1 - 0.999 ** own[2])
                    p.sub_(lr * mean / (square.sqrt() + 1e-8))
            step += 1
    return state(model), trained


def test_rates_of_a_plan_and_of_groups_are_the_same():
    model = made(DEEPER)
    table = plan(model, CHOSEN)
    scale = factors(model)
    for part in table.parts:
        if part.after is not None:
            assert part.lr_scale in {f for n, f in scale.items() if n.startswith(part.name)}
    names = {id(p): n for n, p in model.named_parameters()}
    found = {names[id(p)]: g["lr_scale"] for g in groups_of(model, CHOSEN) for p in g["params"]}
    assert found == pytest.approx(scale)


def test_rates_that_are_wrong():
    model = made(LAYERED)
    with pytest.raises(RunError, match="rates encoder.stage9: no name fits; did you mean encoder.stage"):
        parameter_groups(model, 0.1, rates=as_rates("encoder.stage9=2"))
    with pytest.raises(RunError, match=r"rates: .* both name tower.layer1.*, and as many parameters; which is it"):
        parameter_groups(model, 0.1, rates=as_rates("tower.layer1=2,tower.layer1.**=3"))
    same = parameter_groups(model, 0.1, rates=as_rates("tower.layer1=2,tower.layer1.**=2,tower=1"))
    assert {g["lr_scale"] for g in same} == {1.0, 2.0}
    for text, message in (
        ("encoder=0", "0.0; wanted a factor"),
        ("=2", "rates: ''"),
        ("encoder=x", "wanted what=factor"),
    ):
        with pytest.raises(RunError, match=f"settings: .*{message}"):
            Settings(rates=text)
    with pytest.raises(RunError, match=r"settings: reinit: 'a b'; wanted full, head.*"):
        Settings(reinit="a b")


def test_a_rate_of_one_changes_nothing():
    model = made(LAYERED)
    plain = replace(CHOSEN, tune="full", unfreeze="", rates="")
    one = replace(plain, rates="encoder=1,head=1")
    assert plan(model, plain).parts == plan(model, one).parts
