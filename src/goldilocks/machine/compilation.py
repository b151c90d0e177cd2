"""What makes the same training faster:
the precision of matrix products, the layout of images, torch.compile.
"""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from goldilocks.errors import Refused

Matmul = Literal["highest", "high", "medium"]
COMPILERS = ("g++", "clang++", "c++", "cl")


def set_matmul(precision: Matmul) -> None:
    """Precision of products of 32-bit matrices:
    `highest` 32 bits, `high` TF32 on a GPU that has it, `medium` bf16.

    Convolutions on a GPU follow: TF32 unless `highest`.
    """
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"


def check_compiler(kind: str) -> None:
    """Refuses torch.compile where what it needs is not there.

    Args:
        kind: Of the device.
    """
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        raise Refused(
            "trainer.compile=true: needs the package triton, which comes with torch for CUDA;"
            " leave it out"
        )
    if kind != "cuda" and not any(map(shutil.which, (os.environ.get("CXX") or "g++", *COMPILERS))):
        raise Refused(
            "trainer.compile=true: needs a C++ compiler, such as g++; install one, or leave it out"
        )


class Compiled:
    """A network's training pass, compiled, once for each size of a batch;
    the network itself stays as it is.

    On a GPU the pass is recorded as one CUDA graph (`reduce-overhead`), whose outputs live until
    the next step. Gradients that are accumulated would not outlive it, so then it is not recorded.

    Args:
        network: To be compiled. Checkpoints, copies and evaluation use it uncompiled.
        device: It is on.
        accumulates: Whether gradients of several batches are summed.
    """

    def __init__(self, network: nn.Module, device: torch.device, accumulates: bool) -> None:
        torch.compiler.reset()  # it gives up silently after a few networks in one process
        self.recorded = device.type == "cuda" and not accumulates
        mode = "reduce-overhead" if self.recorded else None
        self.call: Callable[[Tensor], Tensor] = torch.compile(network, mode=mode, dynamic=False)
        self.device = device
        self.known: set[Any] = set()
        self.seconds = 0.0  # that batches of a new size have taken, compiling included

    def __call__(self, x: Tensor) -> Tensor:
        """As the network's own."""
        if self.recorded:
            torch.compiler.cudagraph_mark_step_begin()
        self.new = tuple(x.shape) not in self.known
        if self.new:
            self.known.add(tuple(x.shape))
            self.began = time.perf_counter()
        return self.call(x)

    def output_to_keep(self, output: Tensor) -> Tensor:
        """An output that is looked at after the next step."""
        return output.detach().clone() if self.recorded else output.detach()

    def after_backward(self) -> None:
        """Called after the backward pass, which is compiled too."""
        if self.new:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds += time.perf_counter() - self.began
