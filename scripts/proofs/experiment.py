"""Experiments: worked examples."""

from goldilocks.run import prepare
from proofs.drive import composed, finished
from proofs.table import Measured, proof


@proof(
    "experiment=digits",
    "",
    "digits, well: wide, dropout, softened targets, judged by accuracy",
    "validation accuracy after 12 epochs",
)
def digits() -> Measured:
    with finished("experiment=digits", *own("experiment=digits"), "trainer.max_epochs=12") as (_, result):
        value, metric = result["objective"]["value"], result["objective"]["metric"]
    return f"{metric} {value:.2f}", metric == "val/accuracy" and value > 0.95


@proof(
    "experiment=diabetes",
    "",
    "a regression with few rows: linear, AdamW, plateau",
    "R2 on the validation rows after 150 epochs; number of parameters",
)
def diabetes() -> Measured:
    with finished("experiment=diabetes", *own("experiment=diabetes"), "trainer.max_epochs=150") as (_, result):
        value, parameters = result["metrics"]["val/r2"], result["num_parameters"]
    return f"{value:.2f}; {parameters}", value > 0.35 and parameters == 11


def own(experiment: str) -> list[str]:
    """Takes back what drive.QUIET chooses and the experiment does not say."""
    return [f"data={prepare(composed(experiment), warn=False).settings.data['name']}"]
