"""A running mean of a network's weights, which is evaluated in its place."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn

from goldilocks.machine import devices


class WeightAverage(nn.Module):
    """A copy of a network that holds the mean of its weights over time.

    `decay` given: an exponential moving average over the steps (Polyak and Juditsky 1992). It warms
    up, as timm's and TensorFlow's do: after n steps the decay is at most n / (9 + n), so that a
    short run is not held back by its initial weights. `decay` None: the plain mean of what it is
    shown, for stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407).

    Statistics of BatchNorm are averaged too, which suits the exponential average; after a plain
    mean they must be taken again (`torch.optim.swa_utils.update_bn`).

    Args:
        network: To be copied.
        decay: From 0 to below 1, or None.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        super().__init__()
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def begin(self, network: nn.Module) -> None:
        """Looks up once what every update needs."""
        self._count = int(self.updates)
        self._current = moving_tensors(network)
        self._mean = moving_tensors(self.network)

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's weights of now into the mean."""
        self._count += 1
        weight = 1 / self._count
        if self.decay is not None:
            weight = 1 - min(self.decay, self._count / (9 + self._count))
        for mean, current in zip(self._mean, self._current, strict=True):
            if mean:
                torch._foreach_lerp_(mean, current, weight)
        self.updates.fill_(self._count)


def moving_tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights, and buffers of floating point: where weights are sharded, buffers are not."""
    return list(network.parameters()), [
        buffer for buffer in network.buffers() if buffer.is_floating_point()
    ]


@torch.no_grad()
def share_statistics(networks: Sequence[nn.Module]) -> None:
    """Makes BatchNorm's statistics the mean over the devices, each of which has seen its own rows.

    Otherwise each would validate its rows by its own,
    and the checkpoint would hold those of the first.
    """
    if devices.size() == 1:
        return
    for network in networks:
        for buffer in moving_tensors(network)[1]:
            distributed.all_reduce(buffer)
            buffer /= devices.size()
