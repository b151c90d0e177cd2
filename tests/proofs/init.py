"""Initial weights by activation (G16)."""

import numpy as np
import torch

from proofs.drive import hidden_layers, prepared
from proofs.table import Measured, proof, within

NETWORK = ("data=digits", "model=deep", "model.depth=null", "model.width=[300,500]")
FAN_IN, FAN_OUT = 300, 500
VARIANCES = {"he": 2 / FAN_IN, "lecun": 1 / FAN_IN, "glorot": 2 / (FAN_IN + FAN_OUT)}
SAID = {"he": "2 / fan_in", "lecun": "1 / fan_in", "glorot": "2 / (fan_in + fan_out)"}
KURTOSIS = {"normal": 3.0, "uniform": 1.8}  # of the two distributions


def weight_of(*words: str) -> np.ndarray:
    """The weight of the layer from 300 to 500 units."""
    layer = hidden_layers(prepared(*NETWORK, *words).module.network)[1]
    assert layer.weight.shape == (FAN_OUT, FAN_IN)
    return layer.weight.detach().double().numpy()


def variance_row(family: str, shape: str) -> None:
    claim = f"variance {SAID[family]}, {shape}"
    covered = "150,000 weights from 300 to 500 units: variance over the claimed one; kurtosis"

    @proof(f"model.init={family}_{shape}", "G16", claim, covered)
    def variance() -> Measured:
        weight = weight_of(f"model.init={family}_{shape}")
        ratio = weight.var() / VARIANCES[family]
        kurtosis = ((weight - weight.mean()) ** 4).mean() / weight.var() ** 2
        holds = abs(ratio - 1) < 0.02 and abs(kurtosis - KURTOSIS[shape]) < 0.1
        return f"{ratio:.2f}; kurtosis {kurtosis:.1f}, {KURTOSIS[shape]} for {shape}", holds


for one in VARIANCES:
    for kind in KURTOSIS:
        variance_row(one, kind)


@proof(
    "model.init=orthogonal",
    "G16",
    "orthonormal rows or columns",
    "W'W - 1 of 500 x 300 weights, largest element",
)
def orthogonal() -> Measured:
    weight = weight_of("model.init=orthogonal")
    error = np.abs(weight.T @ weight - np.eye(FAN_IN)).max()
    return within(error, 1e-5), error < 1e-5


@proof(
    "model.init=normal",
    "G16",
    "variance 1 at any size: why the others exist",
    "variance of 500 x 300 weights; kurtosis",
)
def normal() -> Measured:
    weight = weight_of("model.init=normal")
    kurtosis = ((weight - weight.mean()) ** 4).mean() / weight.var() ** 2
    return f"{weight.var():.2f}; {kurtosis:.1f}", abs(weight.var() - 1) < 0.02 and abs(
        kurtosis - 3
    ) < 0.1


@proof(
    "model.init=auto",
    "G16",
    "He for ReLU and its kind, LeCun for SELU and ELU, Glorot for tanh, logistic and outputs",
    "variance over the paper's, by activation",
)
def auto() -> Measured:
    families = {
        "relu": "he",
        "leaky_relu": "he",
        "selu": "lecun",
        "elu": "lecun",
        "tanh": "glorot",
        "sigmoid": "glorot",
    }
    found = {
        name: weight_of(f"model.activation={name}").var() / VARIANCES[family]
        for name, family in families.items()
    }
    network = prepared(*NETWORK, "model.output_scale=1").module.network
    output = [p for p in network.parameters() if p.ndim == 2][-1].detach()
    found["the output"] = torch.var(output).item() / (2 / sum(output.shape))
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items()), all(
        abs(ratio - 1) < 0.05 for ratio in found.values()
    )
