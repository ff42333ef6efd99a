"""Lightning's ways to train one model by several processes: DDP, and FSDP with everything gathered for files."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..._torchvision import mend
from ...adapters import Adapted
from ..settings import Settings
from .processes import cluster, size

mend()
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402


def arrangement(settings: Settings) -> dict[str, Any]:
    """Lightning's Trainer's arguments for training by the processes that have met."""
    environment = cluster(settings)
    kind = Sharded if settings.is_sharded else Replicated
    return {
        "devices": settings.devices,
        "num_nodes": settings.nodes,
        "strategy": kind(cluster_environment=environment),
    }


class Replicated(DDPStrategy):
    """DDP in which parameters may join later, and be left out of a loss.

    DDP knows the parameters that want a gradient when it is made: here all that ever do. Where some of them are frozen
    for now, or a head has no targets, it looks for them by a walk over the graph at each step. Buffers are not sent
    around: they are equal, since norms take their statistics over all processes.
    """

    def __init__(self, **options: Any):
        super().__init__(broadcast_buffers=False, **options)

    def _setup_model(self, model: Any) -> Any:
        idle = set(model.model.resolved.heads) - set(model.wiring.heads)
        self._ddp_kwargs["find_unused_parameters"] = bool(idle or model.frozen.tune.later)
        with model.frozen.ever():
            return super()._setup_model(model)


class Sharded(DDPStrategy):
    """FSDP: every process holds a part of each parameter, of its gradient and of the optimiser's state.

    By torch's `fully_shard`, which `sharded` applies before the optimiser is laid out. Lightning's own FSDPStrategy is
    of the form before that, which torch is about to drop: it has no CPU, and no parameters that join later.
    Checkpoints hold whole tensors, as one process writes them, and are read by any number of processes.
    """

    def configure_ddp(self) -> None:
        """Nothing to wrap: the model's own nodes gather parameters and spread gradients."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return gathered(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return gathered(super().optimizer_state(optimizer))

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: spread(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        states = []
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            own = {
                number: {key: spread(value, parameters[number]) for key, value in values.items()}
                for number, values in whole["state"].items()
            }
            states.append({**whole, "state": own})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def sharded(model: nn.Module, settings: Settings, copies: int = 1) -> list[nn.Module]:
    """Copies of a model, spread over the processes that have met, node by node; the model stays whole.

    What a parameter wants (`requires_grad`) goes over; the parameters are others.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    kind = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (size(),))
    made = [deepcopy(model) for _ in range(copies)]
    for copy in made:
        base: Any = copy.base if isinstance(copy, Adapted) else copy
        for name in base.resolved.nodes:
            node = base.get_submodule(name)
            if any(True for _ in node.parameters()):
                fully_shard(node, mesh=mesh, reshard_after_forward=True)
        fully_shard(copy, mesh=mesh, reshard_after_forward=True)
    return made


def gathered(state: Any) -> Any:
    """The same with whole tensors on the CPU where a process holds parts. Every process has to call it."""
    return tree_map(_whole, state)


def _whole(value: Any) -> Any:
    return value.full_tensor().cpu() if hasattr(value, "full_tensor") else value


def spread(value: Any, like: Any) -> Any:
    """A whole tensor in parts, as `like` is spread; anything else as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
