"""Norms before the activation (G17)."""

import torch
from torch import Tensor, nn

from proofs.drive import prepared, train
from proofs.table import Measured, proof, within


def before_activation(norm: str, train: bool) -> tuple[Tensor, nn.Module]:
    """What reaches the first activation of a network, [B, D],
    for a batch far from mean 0 and variance 1.
    """
    parts = prepared("data=digits", "model=deep", "model.width=40", f"model.norm={norm}")
    network, seen = parts.module.network.train(train), []
    activation = next(layer for layer in network.modules() if isinstance(layer, nn.ReLU))
    activation.register_forward_pre_hook(
        lambda layer, inputs: seen.append(inputs[0].detach().double())
    )
    network(5 + 3 * parts.data.tensors["train"][0][:256])
    return seen[0], network


@proof(
    "model.norm=none",
    "G17",
    "nothing between a layer and its activation",
    "standard deviation before the activation",
)
def none() -> Measured:
    values, network = before_activation("none", train=True)
    kinds = sum(isinstance(layer, nn.BatchNorm1d | nn.LayerNorm) for layer in network.modules())
    return f"{values.std():.1f}; {kinds} norms", values.std().item() > 3 and kinds == 0


@proof(
    "model.norm=batch",
    "G17",
    "each unit has mean 0, variance 1 over the batch; in evaluation by running numbers of the"
    " training",
    "units before the activation; once trained: evaluation minus (x - running mean) / deviation;"
    " that mean",
)
def batch() -> Measured:
    values, network = before_activation("batch", train=True)
    mean, spread = (
        values.mean(0).abs().max().item(),
        (values.std(0, correction=0) - 1).abs().max().item(),
    )
    biases = sum(
        layer.bias is not None for layer in network.modules() if isinstance(layer, nn.Linear)
    )
    fit = train("data=digits", "model=shallow", "model.norm=batch", "trainer.max_epochs=3")
    norm = next(layer for layer in fit.network.modules() if isinstance(layer, nn.BatchNorm1d))
    kept: list[tuple[Tensor, Tensor]] = []
    norm.register_forward_hook(lambda layer, inputs, output: kept.append((inputs[0], output)))
    fit.network.eval()(fit.parts.data.tensors["train"][0])
    given, found = (tensor.detach().double() for tensor in kept[0])
    running, variance = (
        buffer.double() for name, buffer in norm.named_buffers() if name.startswith("running")
    )
    deviation = (variance + 1e-5).sqrt()
    error = (found - ((given - running) / deviation * norm.weight + norm.bias)).abs().max().item()
    off = ((given.mean(0) - running).abs() / deviation).mean().item()
    return (
        f"mean {within(mean, 1e-4)}, spread off 1 by {within(spread, 1e-3)};"
        f" {within(error, 1e-4)}; {off:.2f}"
        " deviations from all rows'",
        mean < 1e-4
        and spread < 1e-3
        and error < 1e-4
        and off < 0.3
        and biases == 1,  # the output's
    )


@proof(
    "model.norm=layer",
    "G17",
    "each row has mean 0, variance 1 over its units, in evaluation too",
    "rows before the activation",
)
def layer() -> Measured:
    found = [before_activation("layer", train=mode)[0] for mode in (True, False)]
    mean, spread = (
        found[0].mean(1).abs().max().item(),
        (found[0].std(1, correction=0) - 1).abs().max().item(),
    )
    same = torch.equal(*found)
    return (
        f"mean {within(mean, 1e-4)}, spread off 1 by {within(spread, 1e-3)};"
        f" evaluation {'the same' if same else 'another'}",
        mean < 1e-4 and spread < 1e-3 and same,
    )
