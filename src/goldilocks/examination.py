"""A run is examined when it has ended: evidence, findings, `diagnosis.md`."""

import math
import sys
from pathlib import Path
from typing import Any

import yaml

from goldilocks import diagnosis
from goldilocks.advice import advise, command
from goldilocks.callbacks import recorder_of
from goldilocks.callbacks.evaluation import best_network
from goldilocks.callbacks.probe import probe
from goldilocks.errors import one_line
from goldilocks.evidence import Evidence, error_of_metric, look_at_rows
from goldilocks.schedulers import steps_in_epoch
from goldilocks.trainer import Trainer

PAGE = "docs/diagnosis.md"  # what each finding means


def examine(
    trainer: Trainer, parts: Any, folder: Path, status: str, overrides: list[str]
) -> dict[str, Any] | None:
    """Writes `diagnosis.md` into the run folder. Weights and random numbers stay as they are, and no run fails by it.

    Args:
        trainer: That has fitted.
        parts: What the run is made of.
        folder: Of the run.
        status: `done` or `diverged`.
        overrides: The words of the command line that the run was started with.

    Returns:
        For result.json: the `summary`, of each of the `findings` its `name`, what was `measured`, the `advice` and the
        `overrides` to try, if any help, and the `standard_error` of the objective, None where it is not known.
    """
    try:
        evidence, findings = gather(trainer, parts, folder, status), about_data(folder)
        for finding in diagnosis.diagnose(evidence):
            advice, words = advise(finding, evidence, parts.settings)
            told = {
                "name": finding.name,
                "measured": finding.measured,
                "advice": advice,
                "overrides": words,
            }
            findings.append(told)
        found: dict[str, Any] = {"summary": diagnosis.summary(evidence), "findings": findings}
        (folder / "diagnosis.md").write_text(
            as_page(**found, overrides=overrides), encoding="utf-8"
        )
    except Exception as error:  # a network that can only be trained
        print(
            f"warning: the run was not diagnosed: {type(error).__name__}: {one_line(error)}",
            file=sys.stderr,
        )
        return None
    return {**found, "standard_error": evidence.error}


def about_data(folder: Path) -> list[dict[str, Any]]:
    """What the data card, if there is one, warns of: it says whether the numbers can be believed at all."""
    path = folder / "data_card.yaml"
    checks = yaml.safe_load(path.read_text(encoding="utf-8"))["checks"] if path.exists() else []
    return [
        {
            "name": check["name"],
            "measured": f"in the data, {check['measured']}",
            "advice": check["advice"],
            "overrides": [],
        }
        for check in checks
        if check["status"] != "ok"
    ]


def as_page(summary: str, findings: list[dict[str, Any]], overrides: list[str]) -> str:
    """The diagnosis in words."""
    lines = ["# Diagnosis", "", f"{sentence(summary)}."]
    if not findings:
        lines += ["", "Nothing stands out."]
    for finding in findings:
        lines += [
            "",
            f"## {sentence(finding['name'])}",
            "",
            f"{sentence(finding['measured'])}.",
            "",
        ]
        lines += [f"To try: {finding['advice']}" + (":" if finding["overrides"] else ".")]
        if finding["overrides"]:
            lines += ["", f"    {command(overrides, finding['overrides'])}"]
    return "\n".join([*lines, "", f"What each means stands in {PAGE}.", ""])


def sentence(text: str) -> str:
    """Begins with a capital, unless with the name of a metric."""
    return text if "/" in text.split()[0] else text[:1].upper() + text[1:]


def gather(trainer: Trainer, parts: Any, folder: Path, status: str) -> Evidence:
    """What is known of a run that has ended; for the arguments see `examine`."""
    module, settings, recorder = parts.module, parts.settings, recorder_of(trainer)
    known: dict[str, Any] = {
        "task": module.task.spec.task,
        "status": status,
        "history": recorder.history,
        "best_epoch": recorder.best_epoch,
        "planned_epochs": trainer.planned_epochs(
            steps_in_epoch(module.batches_in_epoch, trainer.accumulate_batches)
        ),
        "rate": settings.optimizer.get("lr"),
        "clip": trainer.clip_value,
    }
    if status != "done":
        return Evidence(**known)
    network, tensors = (
        best_network(module, folder / "checkpoints" / "best.ckpt"),
        parts.data.tensors,
    )
    network = network.to(
        trainer.strategy.root_device
    )  # Lightning has taken the module back to the CPU
    rows: dict[str, Any] = {}
    objective, _, name = parts.objective.metric.partition("/")
    with trainer.precision_plugin.val_step_context():
        for stage in ("train", "val"):
            if stage in tensors and len(tensors[stage][0]):
                pair = trainer.precision_plugin.convert_input(tensors[stage])
                rows[stage] = look_at_rows(module.task, network, pair, tensors["train"][1])
                if stage == objective and name == "loss" and rows[stage] is not None:
                    rows["error"] = rows[stage].error * math.sqrt(rows[stage].count / len(pair[0]))
                elif stage == objective and name != "loss":
                    rows["error"] = error_of_metric(module.task, network, pair, name)
    return Evidence(**known, **rows, health=probe(trainer, module))
