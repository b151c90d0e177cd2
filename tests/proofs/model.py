"""Models: depth, width, output layer."""

import torch
from torch import Tensor, nn

from proofs.drive import hidden_layers, prepared
from proofs.table import Measured, proof, within

DIGITS = ("data=digits", "data.batch_size=256")


def widths_of(*words: str) -> list[int]:
    """Units of the hidden layers of the network that a command line builds."""
    return [layer.out_features for layer in hidden_layers(prepared(*DIGITS, *words).module.network)]


def widths_row(option: str, guide: str, claim: str, expected: list[int]) -> None:
    @proof(option, guide, claim, "units of its hidden layers, on digits")
    def widths() -> Measured:
        found = widths_of(option)
        return " ".join(map(str, found)), found == expected


@proof(
    "model=linear",
    "G3",
    "no hidden layer: a linear model",
    "f(a + b) - f(a) - f(b) + f(0) on rows of digits",
)
def linear() -> Measured:
    parts = prepared(*DIGITS, "model=linear", "model.output_scale=1")
    f, x = parts.module.network.double(), parts.data.tensors["train"][0].double()
    a, b = x[:100], x[100:200]
    error = (f(a + b) - f(a) - f(b) + f(torch.zeros_like(a))).abs().max().item()
    return f"{within(error, 1e-9)}; outputs up to {f(a).abs().max():.0f}", error < 1e-9 < 1 < f(
        a
    ).abs().max()


widths_row("model=shallow", "G3", "one hidden layer", [100])
widths_row("model=deep", "G3 G4", "three hidden layers of one width", [100, 100, 100])
widths_row("model=wide", "G4", "two hidden layers of 512 units", [512, 512])
widths_row("model=pyramid", "G4", "a wide first layer, narrowing", [256, 128, 64])


@proof("model.depth", "G3 G5", "so many hidden layers", "hidden layers with 0, 1, 5, 20")
def depth() -> Measured:
    found = [len(widths_of("model=deep", f"model.depth={number}")) for number in (0, 1, 5, 20)]
    return " ".join(map(str, found)), found == [0, 1, 5, 20]


@proof("model.width", "G4 G5", "one width for all, or a list", "units with 7, and with [9,5]")
def width() -> Measured:
    found = (
        widths_of("model=deep", "model.width=7"),
        widths_of("model=deep", "model.depth=null", "model.width=[9,5]"),
    )
    return "; ".join(" ".join(map(str, units)) for units in found), found == ([7, 7, 7], [9, 5])


@proof(
    "model.output_scale",
    "G16",
    "the untrained network starts near the mean",
    "spread of the raw outputs, 1 : 0.01",
)
def output_scale() -> Measured:
    spread = {
        scale: raw_outputs(f"model.output_scale={scale}").std().item() for scale in (1.0, 0.01)
    }
    ratio = spread[1.0] / spread[0.01]
    return f"{spread[1.0]:.2f} : {spread[0.01]:.4f}, a ratio of {ratio:.1f}", abs(ratio - 100) < 0.1


def raw_outputs(*words: str) -> Tensor:
    parts = prepared(*DIGITS, "model=deep", *words)
    return parts.module.network(parts.data.tensors["train"][0]).detach()


@proof(
    "model.dropout",
    "G20",
    "the network takes regularization.dropout",
    "rates of its dropout layers",
)
def dropout() -> Measured:
    found = [
        drops("model=deep", "regularization.dropout=0.3"),
        drops("model=deep", "model.dropout=[0.1,0,0.2]"),
    ]
    return "; ".join(" ".join(map(str, rates)) for rates in found), found == [
        [0.3, 0.3, 0.3],
        [0.1, 0.2],
    ]


def drops(*words: str) -> list[float]:
    return [
        layer.p
        for layer in prepared(*words).module.network.modules()
        if isinstance(layer, nn.Dropout)
    ]
