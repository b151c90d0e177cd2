"""Checkpoints of a run among many: the best ones wait in memory for the next that is written."""

from collections.abc import Mapping
from typing import Any

from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor


class PostponedCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint of weights only before the next whole one, or when training has ended.

    A run improves every second epoch, and each time it would write a file that the next replaces:
    with many small networks that takes longer than training them. A run that is killed goes on from
    its whole checkpoint, than which no best one that is written is older.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, dict[str, Any]] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        own = with_own_tensors(checkpoint)
        if "optimizer_states" in checkpoint:
            self.write()
            super().save_checkpoint(own, path, storage_options)
        else:
            self.waiting[str(path)] = own

    def write(self) -> None:
        """Writes what waits."""
        while self.waiting:
            path, checkpoint = self.waiting.popitem()
            super().save_checkpoint(checkpoint, path)


def with_own_tensors(value: Any) -> Any:
    """A copy whose tensors are no views: torch would save all of what they are views into."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {key: with_own_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_own_tensors(item) for item in value]
    return value
