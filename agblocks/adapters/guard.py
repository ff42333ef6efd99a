"""Three ways in which hooks are passed over in silence, and what is done about each."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from .errors import CompiledModelError, ReentrantCheckpointError, WrappedBaseError


def notice_hooks(base: nn.Module, on_compiled: str) -> None:
    """See to it that compiled code notices hooks that come and go; see `guard_hooks`.

    Raises `CompiledModelError` where a part of the model was compiled in place, unless everything is to be reset.
    """
    own = [
        name or "the model" for name, m in base.named_modules() if getattr(m, "_compiled_call_impl", None) is not None
    ]
    if own and on_compiled == "refuse":
        raise CompiledModelError(
            f"{own[0]} was compiled before adapters are attached; attach first, then adapted.compile(), or say "
            "on_compiled='reset' to have everything compiled anew"
        )
    if not guard_hooks() and own:
        torch._dynamo.reset()


def guard_hooks() -> bool:
    """Have compiled code guard empty hook dictionaries, from now on and in every thread; whether it did not before.

    By default torch guards none, and then runs a graph compiled from a bare model also for one with hooks. What was
    compiled before is compiled anew at its next call. Costs 1.3 s once where torch._dynamo was not imported yet (an
    optimiser's first parameter group imports it too), and some 0.3 microseconds a module in each compiled call.
    """
    import torch._dynamo.config as config

    if not config.skip_nnmodule_hook_guards:
        return False
    config.skip_nnmodule_hook_guards = False
    # What is set holds in this thread alone; what others read is the default.
    entry = getattr(config, "_config", {}).get("skip_nnmodule_hook_guards")
    if hasattr(entry, "default"):
        entry.default = False
    torch._dynamo.reset()
    return True


def refuse_reentrant(site: Any) -> None:
    """Raise where a training pass without gradients is the first half of reentrant checkpointing of a frozen stem.

    Its second half starts from inputs of which none wants a gradient, so adapters inside would never train.
    """
    if torch.compiler.is_compiling() or not any(p.requires_grad for p in site.parameters()):
        return
    checkpoint = sys.modules.get("torch.utils.checkpoint")
    if checkpoint is None:
        return
    code = checkpoint.CheckpointFunction.forward.__code__
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            given = frame.f_locals.get("args", ())
            if not any(isinstance(t, torch.Tensor) and t.requires_grad for t in given):
                raise ReentrantCheckpointError(
                    f"reentrant checkpointing around {site.path!r}: nothing that goes in wants a gradient, as the "
                    "layers before it are frozen, so adapters would never train; checkpoint with use_reentrant=False"
                )
            return
        frame = frame.f_back


def refuse_bare_wrapping(base: nn.Module, args: Any) -> None:
    """A pre-hook of the base: raise where DistributedDataParallel wraps it without its adapters."""
    if torch.compiler.is_compiling() or not torch.distributed.is_available():
        return
    parallel = sys.modules.get("torch.nn.parallel.distributed")
    wrapper = parallel.DistributedDataParallel._get_active_ddp_module() if parallel is not None else None
    if wrapper is not None and wrapper.module is base:
        raise WrappedBaseError(
            "DistributedDataParallel wraps the base alone, so its adapters' gradients would differ between processes; "
            "wrap what adapt() returned"
        )
