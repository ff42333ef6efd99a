"""Ways in which hooks are passed over in silence, or their gradients are wrong, and what is done about each."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from .errors import AdapterError, AlreadyAttached, CompiledModelError, ReentrantCheckpointError, WrappedBaseError


def notice_hooks(base: nn.Module, on_compiled: str) -> None:
    """See to it that compiled code notices hooks that come and go; see `guard_hooks`.

    Raises `CompiledModelError` where a part of the model was compiled in place, unless everything is to be reset.
    """
    own = [
        name or "the model" for name, m in base.named_modules() if getattr(m, "_compiled_call_impl", None) is not None
    ]
    if on_compiled not in ("refuse", "reset"):
        raise AdapterError(f"on_compiled should be 'refuse' or 'reset', not {on_compiled!r}")
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
    optimiser's first parameter group imports it too), and about a microsecond a module in each compiled call.
    """
    import torch._dynamo.config as config

    if not config.skip_nnmodule_hook_guards:
        return False
    config.skip_nnmodule_hook_guards = False
    # What is set holds in this thread alone; what others read is the default.
    entry: Any = getattr(config, "_config", {}).get("skip_nnmodule_hook_guards")
    if hasattr(entry, "default"):
        entry.default = False
    torch._dynamo.reset()
    return True


def refuse_reentrant(site: Any) -> None:
    """Raise where a training pass without gradients is the first half of reentrant checkpointing of a frozen stem.

    Its second half starts from inputs of which none wants a gradient, so adapters inside would never train.
    """
    if torch.compiler.is_compiling():
        return
    checkpoint = sys.modules.get("torch.utils.checkpoint")
    if checkpoint is None:
        return
    code = checkpoint.CheckpointFunction.forward.__code__
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            given = frame.f_locals.get("args", ())
            wanted = any(isinstance(t, torch.Tensor) and t.requires_grad for t in given)
            if not wanted and any(p.requires_grad for p in site.parameters()):
                raise ReentrantCheckpointError(
                    f"reentrant checkpointing around {site.path!r}: nothing that goes in wants a gradient, as the "
                    "layers before it are frozen, so adapters would never train; checkpoint with use_reentrant=False"
                )
            return
        frame = frame.f_back


def refuse_second(base: nn.Module) -> None:
    """Raise where a model, or a part of it, has adapters already, from another call of `adapt`."""
    for name, module in base.named_modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if type(getattr(hook, "__self__", None)).__name__ in ("Site", "AdapterBank"):
                where = name or "the model"
                raise AlreadyAttached(f"{where} has adapters from another adapt(); attach more by adapted.add(...)")


def refuse_sharded(base: nn.Module) -> None:
    """Raise where a model is sharded already: adapters would not be, and their gradients not be shared."""
    tensor = sys.modules.get("torch.distributed.tensor")
    if tensor is None:
        return
    for name, parameter in base.named_parameters():
        if isinstance(parameter, tensor.DTensor):
            raise WrappedBaseError(
                f"{name!r} is sharded already; attach adapters first, then shard what adapt() returned"
            )


def refuse_bare_wrapping(bank: nn.Module) -> None:
    """Raise in a forward pass of the base where it is wrapped for several processes without its adapters."""
    if torch.compiler.is_compiling() or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    parallel = sys.modules.get("torch.nn.parallel.distributed")
    wrapper = parallel.DistributedDataParallel._get_active_ddp_module() if parallel is not None else None
    if wrapper is not None and all(module is not bank for module in wrapper.modules()):
        raise WrappedBaseError(_bare("DistributedDataParallel wraps"))
    sharding = sys.modules.get("torch.distributed.fsdp")
    if sharding is not None and (kept := _kept(bank.base, sharding.FSDPModule)) is not None:
        own = [module for module in bank.modules() if any(p.requires_grad for p in module.parameters(recurse=False))]
        if any(id(module) not in kept for module in own):
            raise WrappedBaseError(_bare("fully_shard has"))


def _bare(how: str) -> str:
    return (
        f"{how} the base alone, so its adapters' gradients would differ between processes; give it what adapt() "
        "returned (parts of the base may be sharded before that)"
    )


def _kept(base: Any, sharded: Any) -> set[int] | None:
    """Which modules' parameters FSDP keeps in the run that the base is part of; None where it keeps none of it."""
    states = [module._get_fsdp_state() for module in base.modules() if isinstance(module, sharded)]
    if not states:
        return None
    states += [other for state in states for other in state._state_ctx.all_states]
    groups = [group for state in states for group in _groups(state)]
    infos = [parameter._module_info for group in groups for parameter in group.fsdp_params]
    return {id(module) for info in infos for module in (info.module, *info.shared_modules)}


def _groups(state: Any) -> list[Any]:
    """The groups of parameters of one of FSDP's states; older torch keeps at most one."""
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]
