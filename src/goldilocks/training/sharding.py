"""Fully sharded networks: each device holds a share of every weight,
gathered when a layer is needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from goldilocks.training.checkpoints import load_weights as put_weights

GATHERED_ALONE = (
    1_000_000  # weights of a layer from which it is gathered by itself, not with the whole network
)


def shard(network: nn.Module, mesh: Any) -> None:
    """Shards a network in place, over a mesh of devices of one dimension (torch's FSDP2).

    Weights are given up again after every pass. torch would keep those of the outermost module
    until a backward pass, which a mean of weights never has: it would be evaluated as it once was.
    """
    for layer in network.modules():
        if (
            layer is not network
            and sum(p.numel() for p in layer.parameters(recurse=False)) >= GATHERED_ALONE
        ):
            fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def is_sharded(module: nn.Module) -> bool:
    """Whether any network in a module is sharded, so that no process alone can use it."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, in one piece. All processes must come here."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_weights(module: nn.Module, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Loads a checkpoint's weights into a module that may be sharded.

    Raises:
        Refused: if it holds the weights of another network.
    """
    if is_sharded(module):
        set_model_state_dict(
            module, dict(checkpoint["state_dict"]), options=StateDictOptions(full_state_dict=True)
        )
    else:
        put_weights(module, checkpoint, path)
