"""How a network is spread over processes: whole on each (DDP), or in shards of each block (FSDP2).

DDP (Li et al. 2020, 2006.15704) holds weights, averages and optimiser on every process and adds up
gradients. FSDP2 (PyTorch's `fully_shard`; ZeRO stage 3, Rajbhandari et al. 2020, 1910.02054) holds
a share of each, gathers a block's weights when it runs and scatters its gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from worldsim.models.dit import Block
from worldsim.nn.conv import ResBlock

from .distributed import world_size

Strategy = Literal["auto", "ddp", "fsdp2"]

SHARD_FROM = 30e6
"""Parameters from which `auto` shards: the preset `medium` and up."""

UNITS = (Block, ResBlock)
"""What is gathered, and computed again in the backward pass, as one."""

M = TypeVar("M", bound=nn.Module)


class Step(nn.Module):
    """A network and its loss as one module: one forward pass, whatever the loss calls of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, loss: Callable[..., Any], *args: Any) -> Any:
        """`loss(network, *args)`."""
        return loss(self.network, *args)


def chosen(strategy: Strategy, model: nn.Module) -> Strategy | None:
    """How a network of this size is spread; None for one process."""
    if world_size() == 1:
        return None
    if strategy != "auto":
        return strategy
    large = sum(p.numel() for p in model.parameters()) >= SHARD_FROM
    return "fsdp2" if large else "ddp"


def shard(model: M, *, bf16: bool, keep: bool = False) -> M:
    """Shard a network in place, block by block; its parameters become DTensors.

    bf16: gather bfloat16 where the device is fast at it; gradients are summed in float32.
    keep: hold what was gathered until `release`, for a network that runs many times a step.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(model.parameters()).device
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # autocast does so where it should
    )
    for p in model.parameters():  # shards of a channels_last weight are not supported
        p.data = p.data.contiguous()
    mesh = init_device_mesh(device.type, (world_size(),))
    shard_one = partial(fully_shard, mesh=mesh, mp_policy=policy)
    for unit in units(model):
        shard_one(unit, reshard_after_forward=not keep)
    shard_one(model)
    return model


def release(model: nn.Module) -> None:
    """Free what a network of `shard(keep=True)` holds, so that it sees its parameters change."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def spread(network: nn.Module, strategy: Strategy | None, *, bf16: bool) -> nn.Module:
    """The network's `Step`, whose gradients are the mean over all processes."""
    step, device = Step(network), next(network.parameters()).device
    if strategy is None:
        return step
    if strategy == "fsdp2":
        return shard(step, bf16=bf16)
    ids = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(step, device_ids=ids)


def recompute(model: nn.Module) -> None:
    """Keep no activations inside blocks: compute them again when gradients need them."""
    for unit in units(model):
        unit.forward = partial(checkpoint, unit.forward, use_reentrant=False)


def units(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated blocks of a network."""
    return (module for module in model.modules() if isinstance(module, UNITS))


def skeleton(model: M) -> M:
    """A copy without weights, for `whole`; buffers are kept."""
    meta = {id(p): nn.Parameter(p.detach().to("meta"), False) for p in model.parameters()}
    return copy.deepcopy(model, meta)  # what its memo knows already it does not copy


def whole(sharded: nn.Module, like: M) -> M:
    """The sharded network's weights, gathered on every process into a copy of `like`."""
    found = copy.deepcopy(like)
    tensors = {name: full(x) for name, x in sharded.state_dict().items()}
    found.load_state_dict(tensors, assign=True)
    return found.requires_grad_(False)


def full(x: Tensor) -> Tensor:
    """A tensor gathered from all processes; itself where it is whole."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def placed(x: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process has, sharded as `like` is."""
    if not is_sharded(like):
        return x
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(x.to(like.device), mesh, placements, src_data_rank=None)


def is_sharded(x: Tensor) -> bool:
    """Whether it is a DTensor; without importing what that is."""
    return hasattr(x, "full_tensor")
