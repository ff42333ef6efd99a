"""What a model costs: counted (parameters, multiply-adds) and measured (latency, peak memory)."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...graph.build import build
from ...graph.cost import cost, typical_lengths, zeros
from ...graph.model import GraphModel
from ...graph.resolve import resolve
from ...graph.resolved import Resolved
from ...training.tuning.choose import graph_of
from .process import peak_of

BATCHES = (1, 32)
LEAST, MOST = 5, 25  # rounds of the latency's measurement
SECONDS = 10.0  # after which no further round begins
Recipe = str | Path | Mapping[str, Any] | Resolved


def measure(
    model: Recipe | nn.Module,
    outputs: Sequence[str] | None = None,
    *,
    lengths: int | Mapping[str, int] | None = None,
    device: str = "cpu",
    threads: int = 1,
    seconds: float = SECONDS,
    memory: bool = True,
) -> dict[str, Any]:
    """The costs of a forward pass in evaluation, in the form of a study's out/costs/<key>.json.

    model: a recipe, or a built model, bare or with adapters, which is left as it is but for its device.
    outputs: the heads (default), or edges such as the tap that a probe reads: only what they need is counted and run.
    lengths: of the sequences, by the inputs' symbols (one number: of all symbols); default: the shortest from 256 on.
    device: "cpu" or "cuda"; where there is no GPU, the CPU, and `notes` say so.

    * parameters: of all that the outputs need, adapters too; macs_per_base: multiply-adds (of convolutions, matrix
      products and attention) for one sequence, by `bases`.
    * latency_1_ms, latency_32_ms: of one sequence, at a batch of 1 and of 32: the median of rounds in which the two
      take turns, until `seconds` are over (5 to 25 rounds); `quartiles` holds the first and third of each. Of so many
      `threads` on the CPU; one, because that hangs least on the machine. What else runs there is measured too.
    * peak_mb: weights, and what a batch of 32 takes beside them: by how much the memory of a process grows that does
      nothing else, or on a GPU the most that torch allocated.

    A number that cannot be had is None, and `notes` say why: nothing that happens while measuring is raised.
    Errors: as resolving a recipe, or `InputError` for unknown outputs.
    Costs: seconds; a fresh process takes some to start.
    """
    graph = None if not isinstance(model, nn.Module) else graph_of(model)
    resolved = graph.resolved if graph is not None else model if isinstance(model, Resolved) else resolve(model)  # type: ignore[arg-type]
    asked = list(outputs) if outputs is not None else list(resolved.heads) or list(resolved.keep)
    needed = resolved.needed(asked)
    notes: list[str] = []
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "cpu"
        notes.append("device: there is no GPU, measured on the CPU")
    values = _lengths(resolved, lengths)
    whole: nn.Module = model if isinstance(model, nn.Module) else build(resolved, seed=0)
    made: dict[str, Any] = {
        "parameters": _parameters(whole, [node.name for node in needed]), "macs_per_base": None, "bases": None,
        "lengths": values, "outputs": asked, "latency_1_ms": None, "latency_32_ms": None, "peak_mb": None,
        "quartiles": {}, "rounds": 0, "threads": threads, "device": device,
        "machine": _machine(device), "torch": torch.__version__,
    }  # fmt: skip
    with _Noted(notes, "multiply-adds"):
        counted = cost(resolved, values, asked)
        made["bases"] = counted.bases
        extra = 0 if isinstance(whole, GraphModel) else _added(whole, graph_of(whole), values, asked)
        made["macs_per_base"] = (counted.total + extra) / counted.bases
    with _Noted(notes, "latency"), _Threads(threads):
        made |= _latencies(whole, resolved, values, asked, device, seconds)
    if memory:
        with _Noted(notes, "memory"), _Threads(threads):
            first, given = (zeros(resolved, {**values, "B": batch}, device) for batch in BATCHES)
            on_gpu = device.startswith("cuda")
            made["peak_mb"] = _peak_cuda(whole, given, asked) if on_gpu else _peak_apart(whole, first, given, asked)
    return {**made, "notes": notes}


def _lengths(resolved: Resolved, lengths: int | Mapping[str, int] | None) -> dict[str, int]:
    typical = typical_lengths(resolved)
    if lengths is None:
        return typical
    return dict.fromkeys(typical, lengths) if isinstance(lengths, int) else {**typical, **lengths}


def _parameters(model: nn.Module, nodes: Sequence[str]) -> int:
    """Parameters of these nodes, and of what is no part of the recipe's model: adapters."""
    graph = graph_of(model)
    inside = {id(p) for p in graph.parameters()}
    held = {id(p): p.numel() for node in nodes for p in graph.get_submodule(node).parameters()}
    held |= {id(p): p.numel() for p in model.parameters() if id(p) not in inside}
    return sum(held.values())


def _added(model: nn.Module, graph: GraphModel, values: Mapping[str, int], outputs: Sequence[str]) -> int:
    """Multiply-adds that adapters add: those of the model with them, less those without."""
    from torch.utils.flop_counter import FlopCounterMode

    given = zeros(graph.resolved, {**values, "B": 1}, next(graph.parameters()).device)
    with _Evaluated(model), FlopCounterMode(display=False) as counter:
        model(**given, outputs=list(outputs))
    with_them = counter.get_total_flops() // 2
    # The same count for the bare recipe, so that what the counter does not know cancels.
    bare = build(graph.resolved, device="meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bare(**zeros(graph.resolved, {**values, "B": 1}, "meta"), outputs=list(outputs))
    return max(0, with_them - counter.get_total_flops() // 2)


def _latencies(
    model: nn.Module, resolved: Resolved, values: Mapping[str, int], outputs: Sequence[str], device: str, seconds: float
) -> dict[str, Any]:
    model.to(device)
    given = {batch: zeros(resolved, {**values, "B": batch}, device) for batch in BATCHES}
    times: dict[int, list[float]] = {batch: [] for batch in BATCHES}

    def once(batch: int) -> float:
        return _timed(lambda: model(**given[batch], outputs=list(outputs)), device)

    with _Evaluated(model):
        for batch in BATCHES * 2:  # warm up
            once(batch)
        start = time.perf_counter()
        for turn in range(MOST):
            if turn >= LEAST and time.perf_counter() - start > seconds:
                break
            for batch in BATCHES[:: 1 if turn % 2 else -1]:
                times[batch].append(1000 * once(batch) / batch)
    found: dict[str, Any] = {"quartiles": {}, "rounds": len(times[BATCHES[0]])}
    for batch, spent_ms in times.items():
        low, middle, high = statistics.quantiles(spent_ms, n=4, method="inclusive")
        found[f"latency_{batch}_ms"] = middle
        found["quartiles"][f"latency_{batch}_ms"] = [low, high]
    return found


def _timed(work: Callable[[], Any], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _peak_apart(
    model: nn.Module, first: Mapping[str, Tensor], given: Mapping[str, Tensor], outputs: Sequence[str]
) -> float:
    """In a process of its own, from a copy of the model without its weights: what they hold takes no part."""
    empty: dict[int, Any] = {}
    for value in (*model.parameters(), *model.buffers()):
        bare: Tensor = torch.empty_like(value, device="meta")
        empty[id(value)] = nn.Parameter(bare, value.requires_grad) if isinstance(value, nn.Parameter) else bare
    bare_model = copy.deepcopy(model, empty).eval()
    small, large = ({name: (tuple(v.shape), v.dtype) for name, v in some.items()} for some in (first, given))
    return peak_of(bare_model, small, large, list(outputs))


def _peak_cuda(model: nn.Module, given: Mapping[str, Tensor], outputs: Sequence[str]) -> float:
    device = next(iter(given.values())).device
    held = sum(v.numel() * v.element_size() for v in (*model.parameters(), *model.buffers()))
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with _Evaluated(model):
        model(**given, outputs=list(outputs))
    return (torch.cuda.max_memory_allocated(device) - before + held) / 2**20


def _machine(device: str) -> str:
    import platform

    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return f"{platform.system()} {platform.machine()}, {platform.node()}"


class _Evaluated:
    """A model in evaluation, nothing wanting a gradient (which torch heeds even in inference), and back again."""

    def __init__(self, model: nn.Module):
        self.model, self.inference = model, torch.inference_mode()

    def __enter__(self) -> None:
        self.was = {module: module.training for module in self.model.modules()}
        self.wanted = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self.wanted:
            parameter.requires_grad_(False)
        self.model.eval()
        self.inference.__enter__()

    def __exit__(self, *details: Any) -> None:
        self.inference.__exit__(*details)
        for module, training in self.was.items():
            module.training = training
        for parameter in self.wanted:
            parameter.requires_grad_(True)


class _Threads:
    """So many threads of torch's, and again as many as there were."""

    def __init__(self, threads: int):
        self.threads = threads

    def __enter__(self) -> None:
        self.was = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def __exit__(self, *details: Any) -> None:
        torch.set_num_threads(self.was)


class _Noted:
    """What goes wrong while measuring is noted, not raised."""

    def __init__(self, notes: list[str], what: str):
        self.notes, self.what = notes, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        first = str(error).strip().splitlines()[:1]
        self.notes.append(f"{self.what}: not measured: {first[0] if first else type(error).__name__}")
        return True
