"""Callbacks that explain the network in TensorBoard."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from goldilocks.training.checkpoints import load_checkpoint
from proofs.drive import finished, prepared
from proofs.table import Measured, proof, within

WORDS = (
    "callbacks=default",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "logger=tensorboard",
    "data=iris",
    "model=deep",
)
ALL = ("health", "histograms", "graph", "charts")


def events_of(*words: str) -> tuple[Any, dict[str, Tensor]]:
    """What TensorBoard reads of a run, and the network's parameters at its end."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with finished(*WORDS, *words) as (folder, _):
        state = load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
        events = EventAccumulator(
            str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0}
        ).Reload()
    network = "network."
    return events, {
        key.removeprefix(network): value for key, value in state.items() if key.startswith(network)
    }


def tags(events: Any, start: str, kind: str = "scalars") -> list[str]:
    return [tag for tag in events.Tags()[kind] if tag.startswith(start)]


def worst(found: Iterable[float], expected: Iterable[float]) -> float:
    """The largest relative difference."""
    return max(
        abs(one - other) / max(abs(other), 1e-9) for one, other in zip(found, expected, strict=True)
    )


@proof(
    "callbacks.health",
    "G28",
    "shows layer by layer whether gradients vanish and which units are dead or saturated",
    "last gradients/, dead_units/ and saturated/ over those of two passes by hand, minus 1, ReLU"
    " and tanh; scalars"
    " without it",
)
def health() -> Measured:
    errors = []
    for activation in ("relu", "tanh"):
        words = (f"model.activation={activation}", "trainer.max_epochs=3", "regularization=dropout")
        events, state = events_of(*words)
        x, y = prepared(*WORDS[3:], *words).data.tensors["train"]
        layers = sorted({int(key.split(".")[0]) for key in state})
        weights = [state[f"{layer}.weight"].requires_grad_() for layer in layers]
        h, shares = x, []
        for layer, weight in zip(layers, weights, strict=True):
            h = h @ weight.T + state[f"{layer}.bias"]
            if layer != layers[-1]:
                h = h.clamp(min=0) if activation == "relu" else h.tanh()
                flat = (h == 0).all(0) if activation == "relu" else 1 - h**2 < 0.05
                shares.append(flat.double().mean().item())
        F.cross_entropy(h, y).backward()
        norms = [weight.grad.norm().item() for weight in weights if weight.grad is not None]
        kind = "dead_units/" if activation == "relu" else "saturated/"
        for start, expected in (("gradients/", norms), (kind, shares)):
            errors.append(
                worst([events.Scalars(tag)[-1].value for tag in tags(events, start)], expected)
            )
    without, _ = events_of("callbacks.health=null", "trainer.max_epochs=3")
    left = sum(len(tags(without, start)) for start in ("gradients/", "dead_units/", "saturated/"))
    return f"{within(max(errors), 1e-4)}; {left}", max(errors) < 1e-4 and left == 0


def epochs_of(events: Any, kind: str) -> list[int]:
    """The epochs of the points of one tag, from 3 steps an epoch."""
    found = (
        events.Scalars("gradients/0") if kind == "health" else events.Histograms("weights/0.weight")
    )
    return [(event.step + 1) // 3 - 1 for event in found]


def spaced(kind: str, auto: list[int]) -> Measured:
    """Epochs that are looked at by default and with a distance of 5, of 20."""
    words = ("trainer.max_epochs=20", "callbacks.early_stopping=null")
    found = [
        epochs_of(events_of(*words, *more)[0], kind)
        for more in ((), (f"callbacks.{kind}.every_n_epochs=5",))
    ]
    return "; ".join(" ".join(map(str, epochs)) for epochs in found), found == [
        auto,
        [0, 5, 10, 15],
    ]


@proof(
    "callbacks.health.every_n_epochs",
    "G28",
    "epochs between two looks; by itself ever more",
    "epochs with points, of 20: auto; 5",
)
def health_every() -> Measured:
    return spaced("health", [0, 1, 2, 3, 4, 6, 8, 12, 16, 19])


@proof(
    "callbacks.histograms",
    "G28 G29",
    "shows how weights and activations are distributed",
    "count, sum and sum of squares of each parameter's last histogram beside last.ckpt's;"
    " histograms of activations;"
    " without it",
)
def histograms() -> Measured:
    events, state = events_of("trainer.max_epochs=3")
    errors = []
    for name, values in state.items():
        read = events.Histograms(f"weights/{name}")[-1].histogram_value
        counted = (sum(read.bucket), read.num, read.sum_squares)
        errors.append(
            worst(counted, (values.numel(), values.numel(), values.double().square().sum().item()))
        )
        errors.append(abs(read.sum - values.double().sum().item()))
    activations = len(tags(events, "activations/", "histograms"))
    left = len(
        events_of("callbacks.histograms=null", "trainer.max_epochs=3")[0].Tags()["histograms"]
    )
    right = max(errors) < 1e-4
    return f"{within(max(errors), 1e-4)}; {activations}; {left}", (right, activations, left) == (
        True,
        3,
        0,
    )


@proof(
    "callbacks.histograms.every_n_epochs",
    "",
    "epochs between two looks; by itself ever more",
    "epochs with histograms, of 20: auto; 5",
)
def histograms_every() -> Measured:
    return spaced("histograms", [0, 1, 2, 4, 8, 16, 19])


def in_trials(option: str, kind: str) -> list[int]:
    """How many tags of a kind a run has; a trial; a trial with the option's `trials=true`."""
    from unittest import mock

    from goldilocks.runs import assembly

    def count(*words: str) -> int:
        return len(events_of(*words, "trainer.max_epochs=1")[0].Tags()[kind] or [])

    with mock.patch.object(assembly, "is_trial", return_value=True):
        found = [count(), count(f"callbacks.{option}.trials=true")]
    return [count(), *found]


@proof(
    "callbacks.histograms.trials",
    "",
    "whether in the trials of a sweep too",
    "histograms of a run; of a trial; of a trial with true",
)
def histograms_of_trials() -> Measured:
    found = in_trials("histograms", "histograms")
    return " ".join(map(str, found)), found[0] == found[2] > found[1] == 0


@proof(
    "callbacks.graph.trials",
    "",
    "whether in the trials of a sweep too",
    "whether TensorBoard has the graph of a run; of a trial; of a trial with true",
)
def graph_of_trials() -> Measured:
    from unittest import mock

    from goldilocks.runs import assembly

    words = "trainer.max_epochs=1"
    found = [events_of(words)[0].Tags()["graph"]]
    with mock.patch.object(assembly, "is_trial", return_value=True):
        for own in ((), ("callbacks.graph.trials=true",)):
            found.append(events_of(*own, words)[0].Tags()["graph"])
    return " ".join("yes" if has else "no" for has in found), found == [True, False, True]


@proof(
    "callbacks.graph",
    "G29",
    "draws the network's operations",
    "linear layers and activations in the graph of three hidden layers; graphs without it",
)
def graph() -> Measured:
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    events, _ = events_of("trainer.max_epochs=1")
    operations = [node.op for node in GraphDef.FromString(events.Graph().SerializeToString()).node]
    found = operations.count("aten::linear"), operations.count("aten::relu")
    left = events_of("callbacks.graph=null", "trainer.max_epochs=1")[0].Tags()["graph"]
    return f"{found[0]} and {found[1]}; {int(left)}", found == (4, 3) and not left


@proof(
    "callbacks.charts",
    "G29",
    "puts training beside validation in one chart, and the layers' curves",
    "tags that the charts of the custom scalars tab show, of the loss and of the gradients;"
    " layouts without it",
)
def charts() -> Measured:
    import re

    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    name = "custom_scalars__config__"
    events, _ = events_of("trainer.max_epochs=1")
    layout = Layout.FromString(events.Tensors(name)[0].tensor_proto.string_val[0])
    patterns = {
        chart.title: chart.multiline.tag for category in layout.category for chart in category.chart
    }
    scalars = events.Tags()["scalars"]
    shown = {
        title: [tag for tag in scalars if any(re.match(pattern, tag) for pattern in tags)]
        for title, tags in patterns.items()
    }
    left = (
        events_of("callbacks.charts=null", "trainer.max_epochs=1")[0].Tags()["tensors"].count(name)
    )
    right = sorted(shown["loss"]) == ["Train/loss", "Val/loss"] and len(shown["gradients"]) == 4
    return (
        f"{' and '.join(sorted(shown['loss']))}; {len(shown['gradients'])}; {left}",
        right and left == 0,
    )


@proof(
    "callbacks.health=null callbacks.histograms=null callbacks.graph=null callbacks.charts=null",
    "G28 G29",
    "what explains a network does not change it",
    "parameters that differ between two runs of 5 epochs with dropout, with all of them and with"
    " none",
)
def unchanged() -> Measured:
    words = ("regularization=dropout", "trainer.max_epochs=5")
    with_them, without = (
        events_of(*words, *more)[1] for more in ((), [f"callbacks.{name}=null" for name in ALL])
    )
    different = sum(not torch.equal(value, without[name]) for name, value in with_them.items())
    return f"{different} of {len(with_them)}", different == 0 and len(with_them) == 8
