"""Muon for the hidden matrices of a network and AdamW for the rest, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

Beta = Annotated[float, Field(ge=0, lt=1)]


class MuonWithAdamW(Optimizer):
    """torch's Muon on hidden matrices, torch's AdamW on everything else:
    output layer, biases, norms, kernels.

    Muon (Jordan et al. 2024) makes a matrix's momentum orthogonal before it is added, so that every
    direction moves by the same length. With `match_rms_adamw` (Liu et al. 2025, arXiv 2502.16982)
    an update is scaled to the size of AdamW's, and one rate and one decay serve both.

    Args:
        params: Groups; those with `muon: True` are Muon's.
        lr: Rate of both.
        weight_decay: Decoupled, of both.
        momentum: Muon's.
        nesterov: Whether Muon looks ahead.
        ns_steps: Newton-Schulz iterations that make the momentum orthogonal.
        adjust_lr_fn: How Muon's rate follows from a matrix's shape: `match_rms_adamw`, 0.2 *
            sqrt(max(rows, columns)), or `original`, sqrt(max(1, rows / columns)), which wants rates
            of about 0.02.
        betas: AdamW's.
        eps: AdamW's.
        fused: Whether AdamW's step is one kernel.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Annotated[float, Field(ge=0)] = 1e-3,
        weight_decay: Annotated[float, Field(ge=0)] = 0.01,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        ns_steps: Annotated[int, Field(ge=1, lt=100)] = 5,
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: Annotated[float, Field(ge=0)] = 1e-8,
        fused: bool | None = None,
    ) -> None:
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        super().__init__(params, {**shared, "betas": betas})
        self.parts: list[Optimizer] = []
        if hidden := [group for group in self.param_groups if group.get("muon")]:
            for group in hidden:  # a schedule finds the momentum of all groups in one place
                group["betas"] = (momentum, 0.0)
            own: dict[str, Any] = {
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            }
            self.parts.append(torch.optim.Muon(hidden, **shared, **own))
        if rest := [group for group in self.param_groups if not group.get("muon")]:
            self.parts.append(torch.optim.AdamW(rest, **shared, betas=betas, eps=eps, fused=fused))
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @staticmethod
    def group_keys(network: nn.Module) -> dict[nn.Parameter, dict[str, Any]]:
        """The parameters whose groups are Muon's:
        every matrix but the output layer's, the last one, and embeddings.
        """
        embedded = {
            id(p)
            for layer in network.modules()
            if isinstance(layer, nn.Embedding)
            for p in layer.parameters()
        }
        matrices = [p for p in network.parameters() if p.ndim == 2 and id(p) not in embedded]
        return {matrix: {"muon": True} for matrix in matrices[:-1]}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:  # groups and state are ours: loading a checkpoint replaces them
            is_muon = isinstance(part, torch.optim.Muon)
            part.state = self.state
            part.param_groups = [
                group for group in self.param_groups if bool(group.get("muon")) == is_muon
            ]
            if is_muon:
                for group in part.param_groups:
                    group["momentum"] = group["betas"][0]
            part.step()
        return loss
