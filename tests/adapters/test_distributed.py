"""Two gloo processes: what adapters learn is what one process learns from the whole batch, or the wrapping is refused."""

import contextlib
import traceback
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from agblocks.adapters import adapt
from agblocks.adapters.errors import WrappedBaseError

ROWS = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
MINUTE = timedelta(seconds=60)
LORA, DORA = "lora:type=Linear,rank=2", "dora:type=Linear,rank=2"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.v = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.v(torch.relu(self.q(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.Sequential(Block(), Block()), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.blocks(x))


class Holder(nn.Module):
    """A training module that holds a model, as Lightning's do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def net():
    torch.manual_seed(0)
    return Net().double()


def move(adapted):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return adapted


def made(spec, **options):
    return move(adapt(net(), [spec], **options))


def gradients(model):
    found = {name.replace("module.", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in found.items()}


def learnt(model, x):
    model.zero_grad(set_to_none=True)
    model(x).square().mean().backward()
    return gradients(model)


def agree(got, wanted):
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-10, atol=1e-10)


def outputs_agree(model, mine, rank, adapted):
    with torch.no_grad():
        torch.testing.assert_close(model(mine), adapted(ROWS)[2 * rank : 2 * rank + 2], rtol=1e-12, atol=1e-12)


def refused(work):
    with pytest.raises(WrappedBaseError, match="adapt"):
        work()


def equal_to_one_process(rank, mine):
    for spec in (LORA, DORA, "ia3:type=Linear"):
        whole = made(spec)
        wanted = learnt(whole, ROWS)
        wrapped = DistributedDataParallel(made(spec))
        agree(learnt(wrapped, mine), wanted)
        outputs_agree(wrapped, mine, rank, whole)


def wrapping_the_base_alone(rank, mine):
    # Only with something of the base training can DDP be given the base; without, DDP itself refuses.
    with pytest.raises(RuntimeError, match="requires a gradient"):
        DistributedDataParallel(made(LORA).base)
    refused(lambda: DistributedDataParallel(made(LORA, train=["head"]).base)(mine))
    refused(lambda: DistributedDataParallel(Holder(made(LORA, train=["head"]).base))(mine))
    good = DistributedDataParallel(Holder(made(LORA, train=["head"])))
    whole = made(LORA, train=["head"])
    wanted = {f"model.{name}": gradient for name, gradient in learnt(whole, ROWS).items()}
    assert "model.base.head.weight" in wanted
    agree(learnt(good, mine), wanted)


def inactive_adapters(rank, mine):
    adapted = made(LORA)
    adapted.add("second", ["lora:glob=head,rank=2"])
    adapted.bank.activate("default")
    wrapped = DistributedDataParallel(adapted)
    for _ in range(3):
        learnt(wrapped, mine)
    if rank == 0:  # the same with the flag left on shows what the care is for
        assert not any(p.requires_grad for a in adapted.bank.adapters("second") for p in a.parameters())
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        adapted = made(LORA)
        adapted.add("second", ["lora:glob=head,rank=2"])
        adapted.bank.activate("default")
        adapted.bank.requires_grad_(True)
        wrapped = DistributedDataParallel(adapted)
        for _ in range(2):
            learnt(wrapped, mine)


def sharded(rank, mine):
    for spec in (LORA, DORA):
        whole = made(spec)
        wanted = learnt(whole, ROWS)
        for parts in ((), ("blocks.0", "blocks.1"), ("",)):
            adapted = made(spec)
            for part in parts:
                fully_shard(adapted.base.get_submodule(part))
            fully_shard(adapted)
            assert all(hasattr(p, "full_tensor") for p in adapted.bank.parameters())
            agree(learnt(adapted, mine), wanted)
            agree(learnt(adapted, mine), wanted)
            outputs_agree(adapted, mine, rank, whole)


def sharded_wrongly(rank, mine):
    for parts in (("",), ("blocks.0", "blocks.1")):
        adapted = made(LORA)
        for part in parts:
            fully_shard(adapted.base.get_submodule(part))
        refused(lambda: adapted(mine))  # noqa: B023
        late = net()
        for part in parts:
            fully_shard(late.get_submodule(part))
        refused(lambda: adapt(late, [LORA]))  # noqa: B023
        assert not any(m._forward_hooks for m in (late.head, late.blocks[0].q))


CASES = {f.__name__: f for f in (
    equal_to_one_process, sharded, sharded_wrongly, wrapping_the_base_alone, inactive_adapters)}  # fmt: skip


def work(rank, folder):
    """Every case in turn, and what came of each; after a failure the two may be out of step, so it ends there."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=MINUTE)
    for name, case in CASES.items():
        try:
            case(rank, ROWS[2 * rank : 2 * rank + 2])
        except BaseException:
            (folder / f"{name}.{rank}").write_text(traceback.format_exc())
            raise
        (folder / f"{name}.{rank}").write_text("")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """One pair of processes for all, as starting one takes longer than what it does."""
    folder = tmp_path_factory.mktemp("processes")
    with contextlib.suppress(mp.ProcessRaisedException, mp.ProcessExitedException):
        mp.spawn(work, (folder,), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes(outcomes, case):
    for rank in range(2):
        file = outcomes / f"{case}.{rank}"
        assert file.exists(), "it was not reached"
        assert not file.read_text(), file.read_text()
