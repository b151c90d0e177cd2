"""Every option of every group is composed, built and trained for two steps;
so is what takes a name or a list.
"""

import contextlib
import copy
import importlib.util
import re
from typing import get_args

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from goldilocks.callbacks import (
    Baselines,
    BestCheckpoint,
    Charts,
    EarlyStopping,
    EvaluationFigures,
    FeatureImportance,
    Histograms,
    LastCheckpoint,
    LearningRateMonitor,
    NetworkGraph,
    NetworkHealth,
    ProgressBar,
)
from goldilocks.config.options import card
from goldilocks.config.places import CONF
from goldilocks.data.scaling import Scaling
from goldilocks.data.targets import TargetScaling
from goldilocks.errors import Refused
from goldilocks.models.activations import CLASSES, Activation
from goldilocks.models.init import Init
from goldilocks.runs.assembly import build_trainer
from goldilocks.sweeps.search.settings import sweep_settings
from goldilocks.tasks.outputs import Output
from goldilocks.training.components import prepare
from tables import cars, write
from yours import FILES, OPTIONS, YOURS

OURS = [pair for pair in OPTIONS if pair not in YOURS]  # tests/project trains the others
IMAGES = ("cnn", "pretrained", "shift")  # options for images only
SERVICES = ("wandb", "mlflow", "trackio")  # loggers whose package is an extra
QUIET = ["callbacks=none", "logger=none"]
COMPOSED = {}


@pytest.mark.parametrize(
    "path", [CONF / "train.yaml", *FILES], ids=lambda path: path.relative_to(CONF).as_posix()
)
def test_an_option_begins_with_a_line_that_says_what_it_is(path):
    """After Hydra's own `# @package _global_`, which must come first in an experiment.
    `--help` shows the line.
    """
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @")
    ]
    assert re.fullmatch(r"# [A-Z\d].{4,}\S|# metrics\.csv .+", lines[0] if lines else "")
    if path.parent != CONF:
        assert card(path.parent.relative_to(CONF).as_posix(), path.stem) == lines[0].removeprefix(
            "# "
        )


def fitting_data(compose, word):
    """The first data set whose task a loss or metric is for."""
    for name in ("iris", "breast_cancer", "diabetes"):
        with contextlib.suppress(Refused):
            prepare(compose(word, f"data={name}", "trainer=smoke"))
            return name
    raise AssertionError(f"{word} is for no task")


def same(found, said):
    """Whether a composed value is what an option's file says;
    what it leaves to a reference is anything.
    """
    if isinstance(said, dict):
        return all(key == "defaults" or same(found[key], value) for key, value in said.items())
    return found == said or (isinstance(said, str) and said.startswith("${"))


@pytest.mark.usefixtures("openml_stand_in")
@pytest.mark.parametrize(("group", "option"), OURS, ids=lambda word: word)
def test_every_option_trains(group, option, compose, train_two_steps, tmp_path):
    if (
        group == "trainer"
        and option in ("gpu", "ddp", "fsdp")
        and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    ):
        with pytest.raises(
            Refused, match=r"^trainer\.accelerator=gpu: no GPU was found; write [^\n]+$"
        ):
            prepare(compose(f"trainer={option}"))
        return
    if option == "pretrained" and importlib.util.find_spec("timm") is None:
        with pytest.raises(
            Refused, match=r"^model=pretrained: needs the package timm, .*; pip install [^\n]+$"
        ):
            prepare(compose("model=pretrained", "data=digits"))
        return
    if group == "logger" and option in SERVICES and importlib.util.find_spec(option) is None:
        with pytest.raises(Refused, match=rf"^logger\S*: needs the package {option}, [^\n]+$"):
            prepare(compose(f"logger={option}"))
        return
    small = (
        [f"data={'digits' if option in IMAGES else 'iris'}"]
        if group not in ("data", "experiment")
        else []
    )
    if group in ("loss", "metrics"):
        small = [f"data={fitting_data(compose, f'{group}={option}')}"]
    own = (
        {"path": write(tmp_path / "cars.csv", cars()), "target": "price"}
        if (group, option) == ("data", "table")
        else {}
    )
    small += [f"data.{key}={value}" for key, value in own.items()]
    small += ["model.weights=false"] if option == "pretrained" else []  # nothing is downloaded
    if (group, option) == ("experiment", "realmlp"):
        small += [
            "scheduler=constant"
        ]  # its rate and its output layer start at 0: hidden layers move from step 3
    small += ["trainer=smoke"] if group != "trainer" else []
    cfg = compose(f"{group}={option}", *small, "trainer.max_steps=2")
    said = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    said.pop("search" if group != "sweep" else "defaults", None)
    if group == "sweep":
        time = ["sweep.budget=1m"] if option == "guide" else []
        sweep_settings(compose(f"sweep={option}", *time, whole=True))
    elif group.startswith("hydra/"):
        with contextlib.suppress(ImportError):  # of an extra
            assert get_class(said["_target_"]).__name__.endswith(("Sweeper", "Launcher"))
    elif group != "experiment":
        assert same(
            OmegaConf.to_container(cfg[group], resolve=True),
            {
                **said,
                **own,
                **{"trainer": {"max_steps": 2}}.get(group, {}),
                **({"weights": False} if "weights" in said else {}),
            },
        )
    train_two_steps(cfg)


OPTIMIZERS, SCHEDULERS = (
    [option for group, option in OPTIONS if group == name] for name in ("optimizer", "scheduler")
)


def composed(compose, *words):
    """Composed once: composing takes longer than two steps."""
    if words not in COMPOSED:
        COMPOSED[words] = compose("data=wine", "trainer=smoke", "trainer.max_steps=2", *words)
    return copy.deepcopy(COMPOSED[words])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_with_every_scheduler(
    optimizer, scheduler, compose, train_two_steps
):
    cfg = composed(compose, *QUIET, f"optimizer={optimizer}")
    if cfg.optimizer._target_ == "torch.optim.ASGD" and scheduler == "coslog4":
        pytest.skip(
            "ASGD moves at the rate of the step before, which is zero here in the first step"
        )
    cfg.scheduler = composed(compose, *QUIET, f"scheduler={scheduler}").scheduler
    parts, _ = train_two_steps(cfg)
    trained = parts.module.schedule.scheduler
    assert type(trained).__name__ == cfg.scheduler._target_.rpartition(".")[2]
    assert type(trained.optimizer).__name__ == cfg.optimizer._target_.rpartition(".")[2]


# --- several of a group, or fewer -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "strengths"),
    [
        ("[]", {}),
        ("[none]", {}),
        ("[dropout,l2]", {"dropout": 0.1, "l2": 1e-4}),
        ("[l1,l2]", {"l1": 1e-5, "l2": 1e-4}),
        (
            "[label_smoothing,dropout,l1,l2]",
            {"label_smoothing": 0.1, "dropout": 0.1, "l1": 1e-5, "l2": 1e-4},
        ),
    ],
)
def test_several_regularizers_at_once(words, strengths, compose, train_two_steps):
    parts, _ = train_two_steps(composed(compose, *QUIET, "model=deep", f"regularization={words}"))
    given = {name: value for name, value in vars(parts.module.regularization).items() if value}
    assert given == strengths
    assert parts.module.task.label_smoothing == strengths.get("label_smoothing", 0.0)
    drops = [layer.p for layer in parts.module.network if isinstance(layer, torch.nn.Dropout)]
    assert drops == [strengths["dropout"]] * 3 if "dropout" in strengths else drops == []


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("none", set()),
        ("[none]", set()),
        ("csv", {"metrics.csv"}),
        ("tensorboard", {"events"}),
        ("[tensorboard,csv]", {"metrics.csv", "events"}),
    ],
)
def test_loggers_leave_their_files(words, files, compose, train_two_steps, tmp_path):
    train_two_steps(composed(compose, "callbacks=none", f"logger={words}"))
    names = {path.name for path in tmp_path.iterdir()}
    written = {"events" if name.startswith("events.out.tfevents") else name for name in names}
    assert written & {"metrics.csv", "events"} == files


CALLBACKS = {
    "evaluation": EvaluationFigures,
    "importance": FeatureImportance,
    "baselines": Baselines,
    "early_stopping": EarlyStopping,
    "best_checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
    "learning_rate": LearningRateMonitor,
    "health": NetworkHealth,
    "histograms": Histograms,
    "graph": NetworkGraph,
    "charts": Charts,
    "progress_bar": ProgressBar,
}


def ours(cfg, tmp_path):
    return {type(callback) for callback in build_trainer(prepare(cfg), tmp_path).callbacks} & set(
        CALLBACKS.values()
    )


def test_the_default_has_all_callbacks_and_none_has_none(compose, tmp_path):
    assert set(composed(compose, "logger=none").callbacks) == CALLBACKS.keys()
    assert ours(composed(compose, "logger=none"), tmp_path) == set(CALLBACKS.values())
    assert ours(composed(compose, *QUIET), tmp_path) == set()


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_single_callback_is_removed_by_null(name, compose, train_two_steps, tmp_path):
    cfg = composed(compose, "logger=none", f"callbacks.{name}=null")
    assert ours(cfg, tmp_path) == set(CALLBACKS.values()) - {CALLBACKS[name]}
    train_two_steps(cfg)
    expected = {"best.ckpt", "last.ckpt", "history.jsonl"} - {name.replace("_checkpoint", ".ckpt")}
    expected -= {"history.jsonl"} if name == "last_checkpoint" else set()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == expected


# --- values by name -------------------------------------------------------------------------------


def changed(compose, **values):
    cfg = composed(compose, *QUIET, "model=deep")
    for key, value in values.items():
        assert OmegaConf.select(cfg, key.replace("__", "."), default="absent") != "absent"
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_trains(activation, compose, train_two_steps):
    parts, _ = train_two_steps(changed(compose, model__activation=activation))
    assert sum(type(layer) is CLASSES[activation] for layer in parts.module.network) == 3


@pytest.mark.parametrize("init", get_args(Init))
def test_every_init_trains(init, compose, train_two_steps):
    train_two_steps(changed(compose, model__init=init))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("model", ["shallow", "deep", "wide", "pyramid"])
def test_every_hidden_layer_is_normalised(model, norm, compose, train_two_steps):
    parts, _ = train_two_steps(composed(compose, *QUIET, f"model={model}", f"model.norm={norm}"))
    kind = {"batch": torch.nn.BatchNorm1d, "layer": torch.nn.LayerNorm}[norm]
    hidden = sum(isinstance(layer, torch.nn.ReLU) for layer in parts.module.network)
    assert sum(isinstance(layer, kind) for layer in parts.module.network) == hidden > 0


@pytest.mark.parametrize(
    "precision", [32, 64, "64", "bf16-mixed", "bf16-true", "32-true", "64-true"]
)
def test_every_precision_of_the_cpu_trains(precision, compose, train_two_steps):
    parts, _ = train_two_steps(changed(compose, trainer__precision=precision))
    kinds = {"64": torch.float64, "64-true": torch.float64, "bf16-true": torch.bfloat16}
    assert {weight.dtype for weight in parts.module.network.parameters()} == {
        kinds.get(str(precision), torch.float32)
    }


@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_every_scaling_trains(scaling, compose, train_two_steps):
    parts, _ = train_two_steps(changed(compose, data__scaling=scaling))
    x, _ = parts.data.tensors["train"]
    if scaling == "none":
        assert x.amax() > 1000  # wine has values above a thousand
    elif scaling in ("standard", "minmax", "auto"):  # auto: none of these columns is skewed
        spread = x.amax(0) - x.amin(0) if scaling == "minmax" else x.std(0, correction=0)
        assert spread.sub(1).abs().max() < 1e-4
    else:
        assert x.quantile(0.5, 0).abs().max() < 0.05
        assert x.abs().max() < (3 if scaling == "robust" else 5.2)


@pytest.mark.parametrize("scaling", get_args(TargetScaling))
@pytest.mark.parametrize("output", get_args(Output))
def test_every_output_function_trains_on_a_target_in_its_range(
    output, scaling, compose, train_two_steps
):
    """The progression of diabetes goes from 25 to 346."""
    cfg = changed(compose, data__name="diabetes", data__target_scaling=scaling, task__output=output)
    fits = output == "identity" or scaling == "minmax" or (output, scaling) == ("softplus", "none")
    if not fits:
        with pytest.raises(
            Refused,
            match=rf"^task.output={output}: gives values .* write data.target_scaling=minmax",
        ):
            prepare(cfg)
        return
    parts, _ = train_two_steps(cfg)
    said = parts.module(parts.data.tensors["test"][0])
    low, high = (
        parts.data.spec.target_shift[0],
        parts.data.spec.target_shift[0] + parts.data.spec.target_scale[0],
    )
    if output == "sigmoid":
        assert low < said.min() < said.max() < high
    elif output == "softplus":
        assert said.min() > 0


@pytest.mark.parametrize("data", ["breast_cancer", "wine"])
def test_balanced_classes_train(data, compose, train_two_steps):
    parts, _ = train_two_steps(changed(compose, data__name=data, task__class_weight="balanced"))
    counts = torch.tensor(parts.data.spec.class_counts)
    shares = parts.module.task.class_weight * counts
    assert torch.allclose(shares, (counts.sum() / len(counts)).expand(len(counts)))


def test_digits_can_be_taken_for_a_quantity(compose, train_two_steps):
    parts, result = train_two_steps(changed(compose, data__name="digits", data__task="regression"))
    assert (parts.data.spec.task, parts.data.spec.num_outputs) == ("regression", 1)
    assert {"val/rmse", "test/rmse"} <= result["metrics"].keys()
    assert "val/accuracy" not in result["metrics"]
