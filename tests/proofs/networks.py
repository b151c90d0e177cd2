"""Networks of other families, against their formulas."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from goldilocks.models.realmlp import Scaling
from goldilocks.models.tabm import BatchEnsembleLinear
from proofs.drive import hidden_layers, prepared, probabilities, train, train_batches, weights
from proofs.table import Measured, proof, within

WINE = ("data=wine", "data.batch_size=106")  # 13 features, all 106 rows in every step
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def numbers(network: nn.Module) -> dict[str, np.ndarray]:
    """Parameters by name."""
    return {name: value.detach().double().numpy() for name, value in network.named_parameters()}


def output_of(*words: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A network, rows of the wines and what it makes of them in evaluation."""
    parts = prepared(*WINE, *words)
    network, x = parts.module.network.eval(), parts.data.tensors["train"][0]
    return network, x.double().numpy(), network(x).detach().double().numpy()


def scaled_down(option: str) -> float:
    """Spread of the untrained network's outputs with an output_scale of 0.01 over that with 1."""
    small, full = (output_of(option, f"model.output_scale={scale}")[2].std() for scale in (0.01, 1))
    return float(small / full)


def zeroed(*words: str) -> list[float]:
    """Share of units that each dropout layer sets to zero in training."""
    parts = prepared("data=digits", *words)
    found: dict[nn.Module, list[float]] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if layer.training:
            given = inputs[0] != 0
            found.setdefault(layer, []).append((output[given] == 0).double().mean().item())

    for layer in parts.module.network.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(look)
    train(parts=parts)
    return [float(np.mean(shares)) for shares in found.values()]


# --- selfnorm -------------------------------------------------------------------------------------


@proof(
    "model=selfnorm",
    "G14 G16 G21",
    "SELU and LeCun's weights keep mean 0 and variance 1 through many layers",
    "mean and standard deviation after the 1st and the 20th layer of the untrained network; with"
    " relu in its place",
)
def selfnorm() -> Measured:
    ends = {
        name: signals("model=selfnorm", "model.depth=20", f"model.activation={name}")
        for name in ("selu", "relu")
    }
    shown = "; ".join(
        ", ".join(f"{mean:.2f} {spread:.2f}" for mean, spread in pair) for pair in ends.values()
    )
    return shown, all(abs(m) < 0.2 and 0.7 < s < 1.3 for m, s in ends["selu"]) and ends["relu"][1][
        1
    ] < 0.1


def signals(*words: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and spread of what leaves the first and the last hidden layer."""
    parts = prepared("data=digits", *words)
    found: list[Tensor] = []
    for layer in parts.module.network.modules():
        if isinstance(layer, nn.SELU | nn.ReLU):
            layer.register_forward_hook(lambda layer, inputs, output: found.append(output.detach()))
    parts.module.network(parts.data.tensors["train"][0])
    first, last = ((values.mean().item(), values.std().item()) for values in (found[0], found[-1]))
    return first, last


@proof(
    "model.depth=20 model.activation=sigmoid",
    "G14 G16 G28",
    "gradients vanish from layer to layer with the logistic function, not with tanh or ReLU and"
    " their initial weights",
    "norm of a step's gradient of the first hidden layer over that of the last: sigmoid, tanh,"
    " relu",
)
def gradients_by_layer() -> Measured:
    found = []
    for activation in ("sigmoid", "tanh", "relu"):
        words = (
            "model=deep",
            "model.depth=20",
            f"model.activation={activation}",
            "model.output_scale=1",
        )
        step = train("data=digits", "optimizer=sgd", "trainer.max_steps=1", *words).steps[0]
        norms = [
            gradient.norm().item() for gradient in step.gradient.values() if gradient.ndim == 2
        ]
        found.append(norms[0] / norms[-2])
    return (
        f"{found[0]:.0e}, {found[1]:.1f}, {found[2]:.1f}",
        found[0] < 1e-6 and all(0.2 < ratio < 5 for ratio in found[1:]),
    )


# --- resnet ---------------------------------------------------------------------------------------


def layer_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * scale + bias


@proof(
    "model=resnet",
    "G4",
    "blocks that add W2 f(W1 norm(x)) to x, then norm, f and the output layer",
    "outputs minus the formula, 3 blocks of 16 and 24 units, tanh, LayerNorm; units zeroed in and"
    " after a block",
    covers=(
        "model.blocks model.width model.hidden_factor model.dropout model.residual_dropout"
        " model.output_scale"
    ),
)
def resnet() -> Measured:
    words = ("model.blocks=3", "model.width=16", "model.hidden_factor=1.5", "model.norm=layer")
    network, x, found = output_of(
        "model=resnet", *words, "model.activation=tanh", "model.output_scale=1"
    )
    shapes = [tuple(layer.weight.shape) for layer in [*hidden_layers(network)]]
    p = list(numbers(network).values())
    h = x @ p[0].T + p[1]
    for block in range(3):
        scale, bias, first, first_bias, second, second_bias = p[2 + 6 * block : 8 + 6 * block]
        h = h + np.tanh(layer_norm(h, scale, bias) @ first.T + first_bias) @ second.T + second_bias
    expected = np.tanh(layer_norm(h, p[20], p[21])) @ p[22].T + p[23]
    error = np.abs(found - expected).max()
    drops = zeroed("model=resnet", "regularization.dropout=0.3", "model.residual_dropout=0.15")
    small = scaled_down("model=resnet")
    return (
        f"{within(error, 1e-4)}; {' '.join(f'{share:.2f}' for share in drops[:2])}",
        bool(
            error < 1e-4
            and np.abs(found).max() > 0.1
            and np.allclose(drops, [0.3, 0.15] * 2, atol=0.01)
        )
        and shapes == [(16, 13), *[(24, 16), (16, 24)] * 3]
        and abs(small - 0.01) < 1e-4,
    )


# --- realmlp --------------------------------------------------------------------------------------


@proof(
    "model.activation=auto",
    "G14",
    "the paper's of model=realmlp: selu for classes, mish for a regression",
    "activations of wine and of diabetes",
)
def activation_by_task() -> Measured:
    found = [
        type(list(prepared("model=realmlp", words).module.network.children())[2]).__name__
        for words in ("data=wine", "data=diabetes")
    ]
    return " ".join(found), found == ["SELU", "Mish"]


@proof(
    "model=realmlp",
    "G11",
    "a scaling layer, W x / sqrt(fan_in) + b, an output that starts at 0; a rate for each kind of"
    " parameter",
    "outputs minus the formula, 2 layers of 24 mish units; at first; Adam's first step over lr;"
    " with other factors",
    covers=(
        "model.depth model.width model.dropout model.lr_factor_weight model.lr_factor_scale"
        " model.lr_factor_bias"
    ),
)
def realmlp() -> Measured:
    words = (
        "model=realmlp",
        "model.depth=2",
        "model.width=24",
        "optimizer=adam",
        "model.activation=mish",
        *WINE,
    )
    fit = train(*words, "trainer.max_epochs=3")
    x = fit.parts.data.tensors["val"][0]
    found, first = fit.network.eval()(x).detach().double().numpy(), output_of(*words)[2]
    (scale, w1, b1, w2, b2, w3, b3), h = numbers(fit.network).values(), x.double().numpy()
    h = h * scale
    for w, b in ((w1, b1), (w2, b2)):
        h = h @ w.T / np.sqrt(w.shape[1]) + b
        h = h * np.tanh(np.log1p(np.exp(h)))
    error = np.abs(found - (h @ w3.T / np.sqrt(24) + b3)).max()
    steps = [lengths(*words, *more) for more in ((), FACTORS)]
    drops = zeroed("model=realmlp", "regularization.dropout=0.3", "model.activation=tanh")
    return (
        f"{within(error, 1e-4)}; {np.abs(first).max():g}; "
        + "; ".join(" ".join(f"{s:.0f}" for s in three) for three in steps),
        bool(error < 1e-4 and first.any() == 0 and np.allclose(drops, 0.3, atol=0.02))
        and w1.shape == (24, 13)
        and np.allclose(steps, [[84.0, 14.0, 1.4], [30.0, 40.0, 10.0]], rtol=0.01),
    )


FACTORS = ("model.lr_factor_scale=30", "model.lr_factor_weight=40", "model.lr_factor_bias=10")


def lengths(*words: str) -> list[float]:
    """How far a first step of Adam with a gradient of 1 moves the scaling layer, weights,
    biases, over the rate.
    """
    module = prepared(*words).module
    optimizer, before = module.make_optimizer(module.network), weights(module.network)
    for parameter in module.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {
        name: (before[name] - value).abs().max().item() / 1e-3
        for name, value in weights(module.network).items()
    }
    return [list(moved.values())[place] for place in (0, 1, 2)]


# --- tabm -----------------------------------------------------------------------------------------


@proof(
    "model=tabm",
    "",
    "k networks that share weights: s_k (W (r_k x)) + b_k; the mean of their losses is trained",
    "outputs of 5 members minus the formula; train/loss minus the mean of theirs; predictions"
    " minus mean softmax",
    covers="model.k model.depth model.width model.dropout model.output_scale",
)
def tabm() -> Measured:
    sizes = ("model.k=5", "model.width=12", "model.depth=2", "model.output_scale=1")
    words = (*WINE, "model=tabm", *sizes, "model.activation=tanh")
    fit, (batch, *_) = train_batches(*words)
    y = batch.y.astype(int)
    losses = [
        -np.log(probabilities(batch.output[:, k])[np.arange(len(y)), y]).mean() for k in range(5)
    ]
    loss = abs(fit.metrics[0]["train/loss"] - np.mean(losses))
    network, x = fit.network.eval(), fit.parts.data.tensors["val"][0]
    found, said = (
        network(x).detach().double().numpy(),
        fit.parts.module.eval()(x).detach().double().numpy(),
    )
    error = max(
        np.abs(found[:, k] - member(numbers(network), x.double().numpy(), k)).max()
        for k in range(5)
    )
    mean = np.abs(said - np.mean([probabilities(found[:, k]) for k in range(5)], axis=0)).max()
    apart = np.abs(found - found.mean(1, keepdims=True)).mean()
    drops = zeroed("model=tabm", "model.k=4", "regularization.dropout=0.3", "model.activation=tanh")
    small = scaled_down("model=tabm")
    return (
        f"{within(error, 1e-5)}; {within(loss, 1e-5)}; {within(mean, 1e-6)}",
        bool(
            max(error, loss, mean) < 1e-5
            and apart > 0.1
            and np.allclose(drops, [0.3, 0.3], atol=0.01)
        )
        and abs(small - 0.01) < 1e-4,
    )


def member(p: dict[str, Any], x: np.ndarray, k: int) -> np.ndarray:
    """One of five networks in one."""
    w1, r1, s1, b1, w2, r2, s2, b2, w3, b3 = p.values()
    for w, r, s, b in ((w1, r1, s1, b1), (w2, r2, s2, b2)):
        x = np.tanh(np.split(s, 5)[k] * ((x * np.split(r, 5)[k]) @ w.T) + np.split(b, 5)[k])
    return x @ w3[k] + np.split(b3, 5)[k]


# --- numbers as vectors ---------------------------------------------------------------------------


def embedding_row(kind: str, claim: str, entries: int) -> None:
    @proof(
        f"model.embedding={kind}",
        "",
        claim,
        "largest difference to the formula; features that reach the first layer of each kind of"
        " network, of 13",
    )
    def embedding() -> Measured:
        error = 0.0 if kind == "none" else embedding_error(kind)
        if kind == "auto":
            pixels = prepared("data=digits", "model=deep", "model.embedding=auto").module.network
            error += (
                next(m for m in pixels.children() if isinstance(m, nn.Linear)).in_features != 64
            )
        found = [
            embedded_features(f"model={name}", kind)
            for name in ("deep", "resnet", "realmlp", "tabm")
        ]
        return f"{within(error, 1e-5)}; {' '.join(map(str, found))}", error < 1e-5 and found == [
            13 * entries
        ] * 4


embedding_row("none", "numbers as they are", 1)
embedding_row("auto", "pbld; numbers as they are where an image has none", 4)
embedding_row("pbld", "a vector in place of each number: itself, and a linear layer of cosines", 4)
embedding_row(
    "periodic", "a vector in place of each number: ReLU of a linear layer of cosines and sines", 24
)


def embedded_features(model: str, kind: str) -> int:
    """Features after the embedding, by what the layer after it gets."""
    network = prepared(*WINE, model, f"model.embedding={kind}").module.network
    layer = next(
        module
        for module in network.modules()
        if isinstance(module, nn.Linear | Scaling | BatchEnsembleLinear)
    )
    got: list[int] = []
    layer.register_forward_hook(lambda _, inputs, output: got.append(inputs[0].shape[-1]))
    network(torch.zeros(2, 13))
    return got[0]


def embedding_error(kind: str) -> float:
    """Largest difference of the embedded wines to cosines, sines and a linear layer by NumPy."""
    parts = prepared(*WINE, "model=deep", f"model.embedding={kind}")
    layer, rows = next(parts.module.network.children()), parts.data.tensors["train"][0]
    own, x = numbers(layer), rows.double().numpy()
    angles = 2 * np.pi * x[:, :, None] * own["frequency"]
    pbld = kind != "periodic"
    waves = (
        np.cos(angles + own["phase"])
        if pbld
        else np.concatenate([np.cos(angles), np.sin(angles)], axis=2)
    )
    linear = np.einsum("bnk,nke->bne", waves, own["weight"]) + own["bias"]
    expected = np.concatenate([x[:, :, None], linear], axis=2) if pbld else np.maximum(linear, 0)
    found = layer(rows).detach().double().numpy()
    return float(np.abs(found - expected.reshape(len(x), -1)).max())
