"""What TensorBoard explains a network with:
read back from the events and computed again by hand.
"""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch import nn

from fitting import CONSTANT, LR, History, assert_same, fit, make, sgd
from goldilocks.callbacks import (
    Charts,
    Histograms,
    LearningRateMonitor,
    NetworkGraph,
    NetworkHealth,
)
from goldilocks.callbacks.probe import at_rest, is_due, probe_rows
from goldilocks.config.build import check_arguments
from goldilocks.errors import Refused
from goldilocks.loggers import CSVLogger, TensorBoardLogger

DROPS = {"dropout": 0.5, "activation": "relu"}


def explained(every="auto"):
    return [
        NetworkHealth(every),
        Histograms(every),
        NetworkGraph(),
        Charts(),
        LearningRateMonitor(),
    ]


def read_back(folder):
    sizes = {"scalars": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(folder), size_guidance=sizes).Reload()


class Copies(pl.Callback):
    """The network of each epoch's end."""

    def __init__(self):
        self.states = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(
            {key: value.clone() for key, value in pl_module.network.state_dict().items()}
        )


@pytest.fixture
def looked(tmp_path):
    """A fit of three epochs that is looked at in each, its copies, and what TensorBoard reads."""
    copies = Copies()
    logger = TensorBoardLogger(str(tmp_path))
    made = fit(network=DROPS, callbacks=[*explained(1), copies], logger=[logger])
    logger.close("done")
    return SimpleNamespace(made=made, states=copies.states, events=read_back(tmp_path))


def by_hand(state, x):
    """Weights, and what leaves each layer, of two hidden layers of ReLU."""
    w = {
        int(key.split(".")[0]): value.clone().requires_grad_()
        for key, value in state.items()
        if "weight" in key
    }
    b = {int(key.split(".")[0]): value for key, value in state.items() if "bias" in key}
    h, outputs = x, []
    for number in sorted(w):
        h = h @ w[number].T + b[number]
        if number != max(w):
            h = h * (h > 0)
            outputs.append(h)
    return w, outputs, h


def test_gradients_and_dead_units_are_those_of_all_training_rows(looked):
    """171 rows, fewer than a probe takes: the loss of all of them, without dropout."""
    x, y = looked.made.data.tensors["train"]
    for epoch, state in enumerate(looked.states):
        w, outputs, logits = by_hand(state, x)
        F.cross_entropy(logits, y).backward()
        for number, weight in w.items():
            event = looked.events.Scalars(f"gradients/{number}")[epoch]
            assert event.step == 22 * (epoch + 1) - 1
            assert event.value == pytest.approx(weight.grad.norm().item(), rel=1e-5)
        tags = sorted(
            tag for tag in looked.events.Tags()["scalars"] if tag.startswith("dead_units/")
        )
        dead = [(output == 0).all(0).float().mean().item() for output in outputs]
        assert [looked.events.Scalars(tag)[epoch].value for tag in tags] == pytest.approx(dead)


def test_saturated_units_are_those_of_tanh(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    fit(network={"activation": "tanh"}, callbacks=[NetworkHealth(1)], logger=[logger], max_epochs=1)
    logger.close("done")
    tags = read_back(tmp_path).Tags()["scalars"]
    assert sum(tag.startswith("saturated/") for tag in tags) == 2
    assert not any(tag.startswith("dead_units/") for tag in tags)


def test_histograms_count_all_weights_and_activations(looked):
    x, _ = looked.made.data.tensors["train"]
    found = looked.events.Tags()["histograms"]
    weights = [name for name, _ in looked.made.network.named_parameters()]
    assert sorted(tag for tag in found if tag.startswith("weights/")) == sorted(
        f"weights/{name}" for name in weights
    )
    for epoch, state in enumerate(looked.states):
        _, outputs, _ = by_hand(state, x)
        activations = sorted(tag for tag in found if tag.startswith("activations/"))
        tensors = {f"weights/{name}": state[name] for name in weights} | dict(
            zip(activations, outputs, strict=True)
        )
        for tag, values in tensors.items():
            event = looked.events.Histograms(tag)[epoch]
            values = values.detach().double().numpy().ravel()
            read = event.histogram_value
            assert event.step == 22 * (epoch + 1) - 1
            assert (read.num, read.min, read.max) == pytest.approx(
                (values.size, values.min(), values.max()), rel=1e-5
            )
            assert (read.sum, read.sum_squares) == pytest.approx(
                (values.sum(), (values**2).sum()), rel=1e-4, abs=1e-4
            )
            counts, edges = np.histogram(values, 30)
            assert read.bucket_limit == pytest.approx(edges[1:], rel=1e-4, abs=1e-6)
            assert (
                np.abs(np.array(read.bucket) - counts).sum() <= 4
            )  # a value on an edge may fall on either side
            assert sum(read.bucket) == values.size


def test_values_that_are_not_finite_or_all_the_same_have_histograms_too(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    tensors = {
        "mixed": torch.tensor([1.0, float("nan"), 2.0, float("inf")]),
        "same": torch.full((5,), 3.0),
        "close": torch.tensor([1.0, 1.0 + 1e-15], dtype=torch.double),
        "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "none": torch.tensor([float("nan")]),
        "empty": torch.zeros(0),
    }
    logger.log_histograms(tensors, 0)
    logger.close("done")
    events = read_back(tmp_path)
    assert sorted(events.Tags()["histograms"]) == ["close", "half", "mixed", "same"]
    read = {tag: events.Histograms(tag)[0].histogram_value for tag in events.Tags()["histograms"]}
    assert (read["mixed"].num, read["mixed"].sum) == (2, 3.0)
    assert (read["same"].bucket, read["same"].bucket_limit) == ([5.0], [3.0])
    assert sum(read["close"].bucket) == sum(read["half"].bucket) == 2


def test_the_graph_has_the_networks_layers(looked):
    nodes = {
        node.name: node.op
        for node in GraphDef.FromString(looked.events.Graph().SerializeToString()).node
    }
    assert sorted(nodes.values()).count("aten::linear") == 3
    assert sorted(nodes.values()).count("aten::relu") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["model=cnn"],
        ["model=resnet"],
        ["model=realmlp"],
        ["model=tabm"],
        ["model=selfnorm"],
        ["model=deep"],
    ],
    ids=lambda words: words[0],
)
def test_every_network_is_drawn_and_looked_at(words, compose, tmp_path, capfd):
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run

    small = ["data=digits", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
    run(
        RunRequest(
            compose(*small, *words, "callbacks.progress_bar=null", "callbacks.baselines=null"),
            tmp_path,
        )
    )
    tags = read_back(tmp_path).Tags()
    assert tags["graph"]
    assert any(tag.startswith("gradients/") for tag in tags["scalars"])
    assert any(tag.startswith("activations/") for tag in tags["histograms"])
    assert "note:" not in capfd.readouterr().err


class Untraceable(nn.Module):
    """Returns a different kind of thing while it is traced."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not\nwhile traced")
        return self.layer(x)


def test_a_network_that_cannot_be_traced_is_trained_with_one_line(tmp_path, capfd):
    logger = TensorBoardLogger(str(tmp_path))
    made = make(callbacks=[NetworkGraph()], logger=[logger])
    made.module.network = Untraceable()
    made.trainer.fit(made.module, made.data)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(
        "note: TensorBoard gets no graph of the network, nothing else is missing (RuntimeError: not"
    )
    assert err.count("\n") == 1
    assert made.recorder.epochs == 3


# --- nothing is changed ---------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, "auto"])
def test_the_weights_are_the_same_to_the_bit(every, tmp_path):
    network = {**DROPS, "norm": "batch"}
    looked_at = make(
        network=network, callbacks=explained(every), logger=[TensorBoardLogger(str(tmp_path))]
    )
    assert looked_at.trainer.step_watchers() == []
    looked_at.trainer.fit(looked_at.module, looked_at.data)
    assert looked_at.module.raw
    without = fit(network=network, callbacks=[LearningRateMonitor()])
    assert_same(looked_at, without)


class Draws(nn.Sequential):
    """Draws random numbers in evaluation mode too."""

    def forward(self, x):
        return super().forward(x + 0.01 * torch.rand_like(x))


def test_no_random_numbers_are_used_and_modes_stay(tmp_path):
    seen = []

    class States(History):
        def on_train_epoch_end(self, trainer, pl_module):
            modes = [layer.training for layer in pl_module.network.modules()]
            seen.append(
                (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), modes)
            )

    for callbacks, logger in (
        (explained(1), [TensorBoardLogger(str(tmp_path))]),
        ([LearningRateMonitor()], False),
    ):
        made = make(callbacks=[*callbacks, States()], logger=logger)
        torch.manual_seed(0)
        made.module.network = Draws(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        made.module.network[2].eval()  # a layer that is kept in evaluation mode
        made.trainer.fit(made.module, made.data)
    assert len(seen) == 6
    for ours, theirs in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]


def test_layers_are_in_their_own_modes_again_after_an_error():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    network[1].eval()

    def fails():
        with at_rest(network):
            assert not any(layer.training for layer in network.modules())
            raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        fails()
    assert [layer.training for layer in network.modules()] == [True, True, False, True]


@pytest.mark.parametrize("precision", ["64", "bf16-true", "bf16-mixed"])
def test_every_precision_is_looked_at(precision, tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    fit(callbacks=explained(1), logger=[logger], precision=precision, max_epochs=1)
    logger.close("done")
    tags = read_back(tmp_path).Tags()
    assert tags["graph"]
    assert "gradients/0" in tags["scalars"] or "gradients/1" in tags["scalars"]


# --- where it goes --------------------------------------------------------------------------------


def test_only_tensorboard_is_told_and_metrics_stay_metrics(compose, tmp_path):
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run

    words = ["data=iris", "trainer=cpu", "trainer.max_epochs=3", "logger=[tensorboard,csv]"]
    result = run(
        RunRequest(
            compose(*words, "callbacks.progress_bar=null", "callbacks.baselines=null"),
            tmp_path,
            [],
            {"a": "b"},
        )
    )
    assert {key.partition("/")[0] for key in result["metrics"]} == {"train", "val", "test"}
    columns = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    kept = {column.partition("/")[0] for column in columns}
    assert (
        kept
        == {"step", "epoch", "learning_rate", "momentum", "gradient_norm", "train", "val"}
        | {"test"} & kept
    )
    tags = sorted(read_back(tmp_path).Tags()["scalars"])
    assert [tag for tag in tags if tag.startswith("gradients/")]
    assert all(tag.startswith(("Train/", "Val/")) for tag in tags[:5])  # what is opened first
    assert {tag.split("/")[1] for tag in tags if tag.startswith("best/")} == {"train", "val"}


def test_without_tensorboard_nothing_is_measured(tmp_path, monkeypatch):
    from goldilocks.callbacks import board, health

    def never(*given):
        raise AssertionError

    for module, name in ((health, "probe"), (board, "probe_rows")):
        monkeypatch.setattr(module, name, never)
    made = fit(callbacks=explained(1), logger=[CSVLogger(str(tmp_path))])
    assert made.recorder.epochs == 3


def test_charts_put_training_beside_validation_and_layers_together(looked):
    content = looked.events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    categories = {
        category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
        for category in Layout.FromString(content).category
    }
    assert categories == {
        "training and validation": {
            "loss": ["Train/loss$", "Val/loss$"],
            "accuracy": ["Train/accuracy$", "Val/accuracy$"],
            **{
                name: [f"Train/{name}$", f"Val/{name}$"]
                for name in ("balanced_accuracy", "auroc", "f1", "ece")
            },
        },
        "optimizer": {
            "learning rate": ["learning_rate$"],
            "momentum": ["momentum$"],
            "gradient norm": ["gradient_norm$", "gradient_norm_clipped$"],
        },
        "layers": {
            "gradients": ["gradients/"],
            "dead units": ["dead_units/"],
            "saturated": ["saturated/"],
        },
    }


# --- when and at what -----------------------------------------------------------------------------


def due_epochs(every, dense, epochs=40, stop=None):
    trainer = SimpleNamespace(max_steps=-1, global_step=0, max_epochs=epochs)
    return [
        epoch
        for epoch in range(epochs if stop is None else stop + 1)
        if is_due(
            SimpleNamespace(**vars(trainer), current_epoch=epoch, should_stop=epoch == stop),
            every,
            dense,
        )
    ]


@pytest.mark.parametrize(
    ("every", "dense", "stop", "expected"),
    [
        (1, 4, None, list(range(40))),
        (15, 4, None, [0, 15, 30]),
        ("auto", 2, None, [0, 1, 2, 4, 8, 16, 32, 39]),
        ("auto", 4, None, [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 39]),
        ("auto", 2, 21, [0, 1, 2, 4, 8, 16, 21]),
    ],
)
def test_epochs_that_are_looked_at(every, dense, stop, expected):
    assert due_epochs(every, dense, stop=stop) == expected


@pytest.mark.parametrize("kind", [NetworkHealth, Histograms])
@pytest.mark.parametrize("value", [0, -1, 2.5, "never"])
def test_wrong_distances_are_refused(kind, value):
    with pytest.raises(Refused, match=r"^callbacks\.it\.every_n_epochs"):
        check_arguments(kind, {"every_n_epochs": value}, "callbacks.it")


@pytest.mark.parametrize(
    ("rows", "shape", "batch_size", "expected"),
    [
        (100, (4,), 8, 100),
        (1000, (4,), 8, 256),
        (1000, (3, 32, 32), 8, 85),  # 2**18 elements
        (40, (3, 300, 300), 8, 8),
        (300, (3, 300, 300), 32, 32),
    ],
)
def test_the_probe_takes_rows_from_everywhere_and_few_of_large_images(
    rows, shape, batch_size, expected
):
    x = torch.zeros(rows, *shape)
    x[:] = torch.arange(float(rows)).view(-1, *[1] * len(shape))
    data = SimpleNamespace(tensors={"train": (x, torch.arange(rows))}, batch_size=batch_size)
    plugin = SimpleNamespace(convert_input=lambda given: given)
    module = SimpleNamespace(network=torch.nn.Linear(1, 1))
    found, targets = probe_rows(
        SimpleNamespace(datamodule=data, precision_plugin=plugin, lightning_module=module)
    )
    assert targets.tolist() == [position * rows // expected for position in range(expected)]
    assert found.flatten(1)[:, 0].tolist() == targets.tolist()


# --- rate and momentum ----------------------------------------------------------------------------


def test_the_momentum_stands_beside_the_rate():
    found = {}
    for name, optimizer in {
        "sgd": sgd,
        "momentum": lambda groups: sgd(groups, momentum=0.9),
        "adam": lambda groups: torch.optim.Adam(groups, betas=(0.8, 0.99)),
        "rmsprop": torch.optim.RMSprop,
    }.items():
        made = fit(optimizer=optimizer, callbacks=[LearningRateMonitor()], max_epochs=1)
        found[name] = made.history.metrics[0].get("momentum")
    assert found == {"sgd": None, "momentum": 0.9, "adam": 0.8, "rmsprop": None}


@pytest.mark.parametrize("several", [4, 64])
def test_a_schedule_of_steps_has_points_within_an_epoch(several, tmp_path):
    """22 steps an epoch, 4 in a call:
    five points within an epoch, and its end, which are the optimizer's own rates.
    """
    logger = TensorBoardLogger(str(tmp_path))
    schedule = {"_target_": LR + "OneCycleLR", "interval": "step"}
    made = fit(
        optimizer=lambda groups: sgd(groups, momentum=0.9),
        schedule=schedule,
        callbacks=[LearningRateMonitor()],
        logger=[logger],
        steps_per_execution=several,
    )
    logger.close("done")
    events = read_back(tmp_path)
    for tag in ("learning_rate", "momentum"):
        steps = [event.step for event in events.Scalars(tag)]
        within = range(4, 22, 4) if several == 4 else []
        assert steps == [22 * epoch + step - 1 for epoch in range(3) for step in [*within, 22]]
    for event in events.Scalars("learning_rate")[
        :-1
    ]:  # the rate after a step is that of the next one
        assert event.value == pytest.approx(made.log.rates[event.step + 1], rel=1e-6)


def test_a_long_epoch_has_a_hundred_points_at_most(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    schedule = {"_target_": LR + "CosineAnnealingLR", "interval": "step"}
    options = {"batch_size": 1, "steps_per_execution": 1, "max_epochs": 1}
    fit(
        optimizer=sgd,
        schedule=schedule,
        callbacks=[LearningRateMonitor()],
        logger=[logger],
        **options,
    )
    logger.close("done")
    steps = [event.step for event in read_back(tmp_path).Scalars("learning_rate")]
    assert steps == [*range(0, 170, 2), 170]


def test_a_constant_schedule_has_none(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    options = {"schedule": CONSTANT, "steps_per_execution": 4, "logger": [logger]}
    fit(callbacks=[LearningRateMonitor()], **options)
    logger.close("done")
    assert [event.step for event in read_back(tmp_path).Scalars("learning_rate")] == [21, 43, 65]


# --- resuming -------------------------------------------------------------------------------------


def test_a_resumed_run_shows_what_one_in_one_go_shows(compose, tmp_path, monkeypatch):
    """Six epochs; a second run is stopped after three by an error and resumed."""
    from goldilocks.runs import run as whole_run
    from goldilocks.runs.assembly import build_trainer
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    words = [
        "data=iris",
        "trainer=cpu",
        "trainer.max_epochs=6",
        "callbacks.progress_bar=null",
        "callbacks.baselines=null",
    ]
    words += [
        "callbacks.last_checkpoint.min_seconds=0",
        "scheduler=onecycle",
        "model=deep",
        "regularization=dropout",
    ]

    class Stops(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 3:
                raise RuntimeError("as asked")

    def stopped(*given, **more):
        trainer = build_trainer(*given, **more)
        trainer.callbacks.append(Stops())
        return trainer

    for folder in (whole, halves):
        folder.mkdir()
    run(RunRequest(compose(*words), whole))
    with monkeypatch.context() as patched:
        patched.setattr(whole_run, "build_trainer", stopped)
        assert run(RunRequest(compose(*words), halves))["error"]["message"] == "as asked"
    (written,) = halves.glob("events*")
    written.rename(halves / "events.out.tfevents.1000000000.host.1.0")  # files are read by name
    result = run(RunRequest(compose(*words), halves, resumed=True))
    assert result["status"] == "done"
    one, other = read_back(whole), read_back(halves)
    assert one.Tags()["scalars"] and set(one.Tags()["scalars"]) == set(other.Tags()["scalars"])
    for tag in one.Tags()["scalars"]:
        read = [
            [(event.step, event.value) for event in events.Scalars(tag)] for events in (one, other)
        ]
        if not tag.startswith(("best/", "Train/")):
            assert read[0] == read[1], tag
    for tag in one.Tags()["histograms"]:
        read = [
            [(event.step, event.histogram_value) for event in events.Histograms(tag)]
            for events in (one, other)
        ]
        assert read[0] == read[1], tag
    assert other.Tags()["graph"] and "custom_scalars__config__" in other.Tags()["tensors"]
    assert json.loads((halves / "result.json").read_text())["epochs"] == 6
