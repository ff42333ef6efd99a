"""Compiled code notices adapters that come, go and change, whatever was compiled before."""

import subprocess
import sys
import threading

import pytest
import torch
import torch._dynamo.config as dynamo
from torch import nn

from agblocks.adapters import adapt
from agblocks.adapters.errors import CompiledModelError

X = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(3))
SPEC = "lora:type=Linear,rank=2"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.v = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.v(torch.relu(self.q(x)))


class Net(nn.Module):
    """Frozen, as an adapted one is: else torch would compile anew for its flags, and the hooks with it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.head = nn.Sequential(Block(), Block()), nn.Linear(8, 2)
        self.requires_grad_(False)

    def forward(self, x):
        return self.head(self.blocks(x))


def move(adapted):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapted


def quick(model):
    return torch.compile(model, backend="aot_eager", fullgraph=True)


def same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def differ(a, b):
    assert not torch.allclose(a, b, atol=1e-2)


@pytest.fixture(autouse=True)
def _as_at_the_start():
    """torch's own settings, as in a process in which nothing was attached yet."""
    torch._dynamo.reset()
    entry = dynamo._config["skip_nnmodule_hook_guards"]
    entry.default = True
    dynamo.skip_nnmodule_hook_guards = True
    assert dynamo.skip_nnmodule_hook_guards
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("wrap", [quick, lambda m: m], ids=["outside", "in place"])
def test_adapters_attached_to_a_compiled_model(wrap):
    net = Net()
    compiled = quick(net)
    bare = compiled(X)
    if wrap is quick:  # compiled outside and then attached to
        adapted = move(adapt(net, [SPEC]))
    else:
        net.compile(backend="aot_eager", fullgraph=True)
        bare = net(X)
        with pytest.raises(CompiledModelError, match="reset"):
            adapt(net, [SPEC])
        adapted = move(adapt(net, [SPEC], on_compiled="reset"))
        compiled = net
    got = compiled(X)
    net._compiled_call_impl = None
    differ(got, bare)
    same(got, adapted(X))


def test_an_adapted_twin_compiled_after_a_bare_model():
    bare = quick(Net())(X)
    adapted = move(adapt(Net(), [SPEC]))
    differ(adapted(X), bare)
    same(quick(adapted.base)(X), adapted(X))
    same(quick(adapted)(X), adapted(X))


def test_an_adapted_twin_compiled_after_an_empty_bank():
    empty = adapt(Net(), [SPEC])
    empty.detach()
    dynamo._config["skip_nnmodule_hook_guards"].default = dynamo.skip_nnmodule_hook_guards = True
    bare = quick(empty)(X)
    adapted = move(adapt(Net(), [SPEC]))
    differ(adapted(X), bare)
    same(quick(adapted)(X), adapted(X))


def test_other_threads_notice_too():
    first = adapt(Net(), [SPEC])  # sets what has to be set, in this thread
    first.detach()
    net, found = Net(), []
    compiled = quick(net)

    def run():
        found.append(compiled(X))

    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if len(found) == 1:
            adapted = move(adapt(net, [SPEC]))
    bare, hooked = found
    differ(bare, hooked)
    same(hooked, adapted(X))


FRESH = """
import io, pickle, sys, torch
sys.path.insert(0, {folder!r})
from test_compiled import Net, X, adapt, move, quick
import torch._dynamo.config as dynamo
assert dynamo.skip_nnmodule_hook_guards
bare = quick(Net())(X)
if {file!r}:
    adapted = torch.load({file!r}, weights_only=False)
else:
    adapted = move(adapt(Net(), ["lora:type=Linear,rank=2"]))
wanted = adapted(X)
assert not torch.allclose(wanted, bare, atol=1e-2)
assert torch.allclose(quick(adapted.base)(X), wanted, atol=1e-5), "the base"
assert torch.allclose(quick(adapted)(X), wanted, atol=1e-5), "the wrapper"
"""


@pytest.mark.parametrize("unpickled", [False, True])
def test_a_fresh_process(unpickled, tmp_path):
    """With torch's defaults: attached there, or brought there as a pickle, where nothing was ever attached."""
    file = ""
    if unpickled:
        file = str(tmp_path / "adapted.pt")
        torch.save(move(adapt(Net(), [SPEC])), file)
    from pathlib import Path

    code = FRESH.format(folder=str(Path(__file__).parent), file=file)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_that_changes_later():
    """Switches, weights, further adapters, detaching: each noticed by the same compiled callable."""
    adapted = move(adapt(Net(), [SPEC]))
    compiled, bare = quick(adapted), Net()(X)
    first = compiled(X)
    same(first, adapted(X))
    differ(first, bare)
    with adapted.bank.disabled():
        same(compiled(X), bare)
    same(compiled(X), first)
    adapted.bank.weigh("default", 0.5)
    differ(compiled(X), first)
    same(compiled(X), adapted(X))
    adapted.bank.weigh("default", 1)
    with torch.no_grad():  # in place, by data, by another parameter, of adapter and base
        next(adapted.bank.parameters()).mul_(2)
        adapted.base.head.weight.data = adapted.base.head.weight.data * 1.5
    adapted.base.head.bias = nn.Parameter(torch.ones(2), requires_grad=False)
    differ(compiled(X), first)
    same(compiled(X), adapted(X))
    adapted.add("second", ["ia3:type=Linear", "lora:glob=head,rank=2"])
    same(compiled(X), adapted(X))
    move(adapted)
    second = compiled(X)
    same(second, adapted(X))
    with adapted.bank.using("second"):
        differ(compiled(X), second)
        same(compiled(X), adapted(X))
    adapted.bank.remove("default")
    same(compiled(X), adapted(X))
    adapted.bank.merge_()
    same(compiled(X), adapted(X))
    adapted.bank.unmerge_()
    same(compiled(X), adapted(X))
    base = adapted.detach()
    same(compiled(X), base(X))
    differ(compiled(X), second)


def test_gradients_and_one_graph():
    adapted = move(adapt(Net(), [SPEC, "ia3_ff:glob=head", "dora:glob=blocks.1.q,rank=2"]))
    adapted(X).square().sum().backward()
    wanted = {n: p.grad.clone() for n, p in adapted.named_parameters() if p.grad is not None}
    adapted.zero_grad()
    told = torch._dynamo.explain(adapted.forward)(X)
    assert (told.graph_count, told.graph_break_count) == (1, 0)
    torch._dynamo.reset()
    quick(adapted)(X).square().sum().backward()
    found = {n: p.grad for n, p in adapted.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys() and wanted
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def test_blocks_compiled_one_by_one():
    net = Net()
    for block in net.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    bare = net(X)
    with pytest.raises(CompiledModelError, match=r"blocks\.0"):
        adapt(net, [SPEC])
    adapted = move(adapt(net, [SPEC], on_compiled="reset"))
    got = adapted(X)
    adapted.add("second", ["ia3:glob=blocks.*"], on_compiled="reset", probe=X)
    move(adapted)
    more = adapted(X)
    for block in net.blocks:
        block._compiled_call_impl = None
    differ(got, bare)
    differ(more, got)
    same(more, adapted(X))


def test_the_wrapper_compiled_in_place_keeps_its_names():
    adapted = move(adapt(Net(), [SPEC]))
    keys, wanted = list(adapted.state_dict()), adapted(X)
    adapted.compile(backend="aot_eager", fullgraph=True)
    same(adapted(X), wanted)
    assert list(adapted.state_dict()) == keys
    with adapted.bank.disabled():
        same(adapted(X), Net()(X))


@pytest.mark.slow
def test_inductor():
    adapted = move(adapt(Net(), [SPEC]))
    compiled = torch.compile(adapted, fullgraph=True)
    same(compiled(X), adapted(X))
    compiled(X).square().sum().backward()
    found = [p.grad.clone() for p in adapted.bank.parameters()]
    adapted.zero_grad()
    adapted(X).square().sum().backward()
    for got, parameter in zip(found, adapted.bank.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-4)
    with adapted.bank.disabled():
        same(compiled(X), Net()(X))


@pytest.mark.parametrize("strict", [False, True])
def test_exported(strict):
    """The wrapper and the merged copy export; the program gives what eager gives, and names the adapters' parameters."""
    adapted = move(adapt(Net(), [SPEC, "ia3:glob=head"])).eval()
    with torch.no_grad():
        wanted = adapted(X)
        program = torch.export.export(adapted, (X,), strict=strict)
        same(program.module()(X), wanted)
        merged = torch.export.export(adapted.merged(), (X,), strict=strict)
        same(merged.module()(X), wanted)
    assert {n for n, _ in adapted.named_parameters()} <= set(program.state_dict)
    assert set(merged.state_dict) == set(Net().state_dict())
