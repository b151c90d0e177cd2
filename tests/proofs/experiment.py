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
    "validation accuracy after 16 epochs; optimizer steps, at 256 rows of 1,078 each",
)
def realmlp() -> Measured:
    with finished("experiment=realmlp", *own("experiment=realmlp"), "trainer.max_epochs=16") as (
        _,
        result,
    ):
        value, steps = result["objective"]["value"], result["steps"]
    return f"{value:.2f}; {steps}", value > 0.95 and steps == 16 * 5


def own(experiment: str) -> list[str]:
    """Takes back what drive.QUIET chooses and the experiment does not say."""
    return [f"data={prepare(composed(experiment), warn=False).settings.data['name']}"]
