"""A network that a run has trained, from its folder alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from goldilocks.config.build import check_arguments
from goldilocks.data.spec import Spec
from goldilocks.data.tables.preparation import Preparation
from goldilocks.data.tables.values import Form
from goldilocks.errors import Refused
from goldilocks.runs.folder import read_config
from goldilocks.tasks.task import Task
from goldilocks.training.checkpoints import evaluated_weights, load_checkpoint, load_weights
from goldilocks.training.checks import resolved
from goldilocks.training.components import build_network
from goldilocks.training.settings import Settings, build_task


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with all that it needs to predict, on the CPU.

    Attributes:
        network: In evaluation mode, with the weights that are tested.
        task: What was learnt.
        preparation: Of a table's columns; None for a source that loads numbers.
        scaler: Of those numbers.
        settings: Of the run.
        target_forms: How the words of a table's targets are read, by name.
    """

    network: nn.Module
    task: Task
    preparation: Preparation | None
    scaler: Mapping[str, Tensor]
    settings: Settings
    target_forms: Mapping[str, Form]

    @property
    def spec(self) -> Spec:
        return self.task.spec


def best_checkpoint(folder: Path) -> Path:
    """Of a run's best epoch.

    Raises:
        Refused: if the run keeps none.
    """
    path = folder / "checkpoints" / "best.ckpt"
    if not path.exists():
        raise Refused(f"{folder}: has no checkpoints/best.ckpt to predict with")
    return path


def task_of(folder: Path) -> Task:
    """What the run in a folder has learnt.

    Raises:
        Refused: if its files cannot be read.
    """
    checkpoint = load_checkpoint(best_checkpoint(folder))
    return build_task(settings_of(folder), Spec.from_plain(checkpoint["spec"])).eval()


def settings_of(folder: Path) -> Settings:
    """The checked configuration of a run."""
    return Settings(**check_arguments(Settings, resolved(read_config(folder)), ""))


def load_network(folder: Path) -> TrainedNetwork:
    """The best network of a run: neither the data nor the folder's place are needed.

    Raises:
        Refused: if there is no checkpoint of it that can be read.
    """
    path = best_checkpoint(folder)
    checkpoint = load_checkpoint(path)
    settings = settings_of(folder)
    if settings.model["_target_"].startswith("goldilocks.models.pretrained."):
        # The run's weights replace the library's, which would be downloaded.
        settings.model["weights"] = False
    spec = Spec.from_plain(checkpoint["spec"])
    with torch.random.fork_rng(devices=[]):
        network = build_network(settings, spec)
    load_weights(network, {"state_dict": evaluated_weights(checkpoint["state_dict"])}, path)
    network.requires_grad_(False).eval()
    data = settings.data["_target_"]
    fitted = checkpoint.get(data.rpartition(".")[2])
    if fitted is None:
        raise Refused(f"{path}: does not hold how the rows of {data} are prepared")
    preparation = Preparation.from_plain(fitted["preparation"]) if "preparation" in fitted else None
    forms = {name: Form(**form) for name, form in fitted.get("target_forms", {}).items()}
    task = build_task(settings, spec).eval()
    return TrainedNetwork(network, task, preparation, fitted["scaler"], settings, forms)
