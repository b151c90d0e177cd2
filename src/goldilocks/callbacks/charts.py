"""Charts that stand together in TensorBoard."""

from typing import Any

import pytorch_lightning as pl

from goldilocks.callbacks.probe import show
from goldilocks.tasks import metric_names

Layout = dict[str, dict[str, list[Any]]]


class Charts(pl.Callback):
    """Arranges the custom scalars tab: loss and metrics of training beside those of validation, then rate and momentum,
    then the layers' gradients, dead and saturated units, each in one chart.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 0:  # a resumed run has it already
            show(trainer, "log_layout", layout(pl_module.task.spec.task))


def layout(task: str) -> Layout:
    """By category and chart, the tags as regular expressions.

    All runs have the same categories, for TensorBoard puts the runs' charts together by them.
    """
    metrics = {name: [f"train/{name}$", f"val/{name}$"] for name in ["loss", *metric_names(task)["val"]]}
    steps = {"learning rate": ["learning_rate$"], "momentum": ["momentum$"]}
    layers = {"gradients": ["gradients/"], "dead units": ["dead_units/"], "saturated": ["saturated/"]}
    categories = {"training and validation": metrics, "optimizer": steps, "layers": layers}
    return {
        category: {chart: ["Multiline", tags] for chart, tags in charts.items()}
        for category, charts in categories.items()
    }
