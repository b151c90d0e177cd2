"""Experiments: worked examples."""

from goldilocks.training.components import prepare
from proofs.drive import composed, finished
from proofs.table import Measured, proof


@proof(
    "experiment=digits",
    "",
    "digits, well: wide, dropout, softened targets, judged by accuracy",
    "validation accuracy after 12 epochs",
)
def digits() -> Measured:
    with finished("experiment=digits", *own("experiment=digits"), "trainer.max_epochs=12") as (
        _,
        result,
    ):
        value, metric = result["objective"]["value"], result["objective"]["metric"]
    return f"{metric} {value:.2f}", metric == "val/accuracy" and value > 0.95


@proof(
    "experiment=diabetes",
    "",
    "a regression with few rows: linear, AdamW, plateau",
    "R2 on the validation rows after 150 epochs; number of parameters",
)
def diabetes() -> Measured:
    with finished("experiment=diabetes", *own("experiment=diabetes"), "trainer.max_epochs=150") as (
        _,
        result,
    ):
        value, parameters = result["metrics"]["val/r2"], result["num_parameters"]
    return f"{value:.2f}; {parameters}", value > 0.35 and parameters == 11


@proof(
    "experiment=realmlp",
    "",
    "RealMLP the way its authors train it: robust scaling, large batches, a rate that rises and"
    " falls four times",
    "validation accuracy of digits after 16 epochs, and optimizer steps, at 256 rows of 1,078 each;"
    " R2 of diabetes after 64",
)
def realmlp() -> Measured:
    with finished("experiment=realmlp", *own("experiment=realmlp"), "trainer.max_epochs=16") as (
        _,
        result,
    ):
        value, steps = result["metrics"]["val/accuracy"], result["steps"]
    with finished("experiment=realmlp", "data=diabetes", "trainer.max_epochs=64") as (_, other):
        r2 = other["metrics"]["val/r2"]
    return f"{value:.2f}, {steps}; {r2:.1f}", value > 0.95 and steps == 16 * 5 and r2 > 0.3


@proof(
    "experiment=tabm",
    "",
    "TabM the way it is compared: inputs by their quantiles, 32 members, clipped gradients",
    "validation accuracy of breast_cancer after 6 epochs with 32 units a layer; R2 of diabetes"
    " after 8",
)
def tabm() -> Measured:
    words = ("experiment=tabm", "model.width=32")
    with finished(*words, *own("experiment=tabm"), "trainer.max_epochs=6") as (_, result):
        value = result["metrics"]["val/accuracy"]
    with finished(*words, "data=diabetes", "trainer.max_epochs=8") as (_, other):
        r2 = other["metrics"]["val/r2"]
    return f"{value:.2f}; {r2:.1f}", value > 0.85 and r2 > 0.3


def own(experiment: str) -> list[str]:
    """Takes back what drive.QUIET chooses and the experiment does not say."""
    return [f"data={prepare(composed(experiment), warn=False).settings.data['name']}"]
