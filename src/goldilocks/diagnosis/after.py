"""A run is examined when it has ended: evidence, findings, `diagnosis.md`."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from goldilocks.callbacks import recorder_of
from goldilocks.callbacks.baselines import baselines_of
from goldilocks.callbacks.comparison import lines
from goldilocks.callbacks.probe import probe
from goldilocks.data.tables.card import cell
from goldilocks.diagnosis import evidence, reference
from goldilocks.diagnosis.advice import advise, command
from goldilocks.diagnosis.evidence import Evidence
from goldilocks.diagnosis.findings import FEW, diagnose
from goldilocks.diagnosis.findings import summary as summary_line
from goldilocks.errors import one_line
from goldilocks.schedulers.schedule import steps_in_epoch
from goldilocks.tasks.losses import is_squared
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import best_network
from goldilocks.training.settings import Settings
from goldilocks.training.trainer import Trainer

PAGE = "docs/diagnosis.md"  # what each finding means
# What the data card has found that explains a finding:
# another network, or model, does better on rows that it has seen, or by one feature.
OF_DATA = {
    "nothing to learn": ("target",),
    "underfitting": ("rows in two splits",),
    "below linear": ("target", "single features", "rows in two splits"),
    "trees far ahead": ("target", "single features", "rows in two splits"),
}


def examine(
    trainer: Trainer, parts: Any, folder: Path, status: str, overrides: list[str]
) -> dict[str, Any] | None:
    """Writes `diagnosis.md` into the run folder.
    Weights and random numbers stay as they are, and no run fails by it.

    Args:
        trainer: That has fitted.
        parts: What the run is made of.
        folder: Of the run.
        status: `done` or `diverged`.
        overrides: Of the command line that the run was started with.

    Returns:
        For result.json: the `summary`, of each of the `findings` its `name`, what was `measured`,
        the `advice` and the `overrides` to try, if any help, and the `standard_error` of the
        objective, None where it is not known.
    """
    try:
        known, findings = gather(trainer, parts, folder, status), about_data(folder, parts.settings)
        for finding in diagnose(known):
            if any(each["name"] in OF_DATA.get(finding.name, ()) for each in findings):
                continue
            advice, advised = advise(finding, known, parts.settings)
            entry = {
                "name": finding.name,
                "measured": finding.measured,
                "advice": advice,
                "overrides": advised,
            }
            findings.append(entry)
        found: dict[str, Any] = {"summary": summary_line(known), "findings": findings}
        (folder / "diagnosis.md").write_text(
            as_page(**found, compared=lines(known.baselines), overrides=overrides), encoding="utf-8"
        )
    except Exception as error:  # a network that can only be trained
        print(
            f"warning: the run was not diagnosed: {type(error).__name__}: {one_line(error)}",
            file=sys.stderr,
        )
        return None
    return {**found, "standard_error": known.error}


def about_data(folder: Path, settings: Settings) -> list[dict[str, Any]]:
    """What the data card, if there is one, warns of:
    it says whether the numbers can be believed at all.

    What the run's options answer already is left out, and classes of few rows:
    how the network does on them says more.
    """
    path = folder / "data_card.yaml"
    checks = yaml.safe_load(path.read_text(encoding="utf-8"))["checks"] if path.exists() else []
    answered = {"classes"}
    if not is_squared(settings.loss):
        answered.add("target")
    return [
        {
            "name": check["name"],
            "measured": f"in the data, {check['measured']}",
            "advice": check["advice"],
            "overrides": check["overrides"],
        }
        for check in checks
        if check["status"] == "failed"
        or (check["status"] == "warning" and check["name"] not in answered)
    ]


def as_page(
    summary: str, compared: list[str], findings: list[dict[str, Any]], overrides: list[str]
) -> str:
    """The diagnosis in words."""
    page = ["# Diagnosis", "", f"{sentence(summary)}."]
    for line in compared:
        page += ["", f"{sentence(line)}."]
    if not findings:
        page += ["", "Nothing stands out."]
    for finding in findings:
        page += [
            "",
            f"## {sentence(finding['name'])}",
            "",
            f"{cell(sentence(finding['measured']))}.",
            "",
        ]
        page += [f"To try: {finding['advice']}" + (":" if finding["overrides"] else ".")]
        if finding["overrides"]:
            page += ["", f"    {command(overrides, finding['overrides'])}"]
    return "\n".join([*page, "", f"What each means is in {PAGE}.", ""])


def sentence(text: str) -> str:
    """Begins with a capital, unless with the name of a metric."""
    return text if "/" in text.split()[0] else text[:1].upper() + text[1:]


def loss_of_equal_shares(task: Task) -> float:
    """Of a guess that gives every class the same; 0 for a regression."""
    if task.spec.task == "regression":
        return 0.0
    output, target = (rows.to(task.target_shift.device) for rows in task.made_up_rows())
    return float(task.criterion.mean(torch.zeros_like(output), target))


def gather(trainer: Trainer, parts: Any, folder: Path, status: str) -> Evidence:
    """What is known of a run that has ended; for the arguments see `examine`."""
    module = parts.module
    recorder = recorder_of(trainer)
    known: dict[str, Any] = {
        "task": module.task.spec.task,
        "status": status,
        "history": recorder.history,
        "best_epoch": recorder.best_epoch,
        "time_ran_out": trainer.time_is_over,
        "planned_epochs": trainer.planned_epochs(
            steps_in_epoch(module.batches_in_epoch, trainer.accumulate_batches)
        ),
        "rate": parts.learning_rate,
        "clip": trainer.clip_value,
        "steps": trainer.global_step,
        "alike": loss_of_equal_shares(module.task),
        "weighted": module.task.weighted,
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
    task, rows = module.task, {}
    with trainer.precision_plugin.val_step_context():
        for stage in ("train", "val"):
            if stage in tensors and len(tensors[stage][0]):
                x, y = trainer.precision_plugin.convert_input(evidence.spread(tensors[stage]))
                device = trainer.strategy.root_device
                x, y = x.to(device), y.to(device)
                rows[stage] = x, y, evidence.values_of(task, network, x)
    targets = tensors["train"][1]
    known |= {
        stage: evidence.look_at_rows(task, values, y, targets)
        for stage, (_, y, values) in rows.items()
    }
    said = {stage: (values, y) for stage, (_, y, values) in rows.items()}
    return Evidence(
        **known,
        baselines=baselines_of(trainer) or {},
        health=probe(trainer, module),
        classes=evidence.look_at_classes(task, said, FEW),
        compare=lambda: reference.compare(task, rows),
        signal=lambda: reference.signal(task, rows),
        error=error_of_objective(parts, said, known),
    )


def error_of_objective(
    parts: Any, said: Mapping[str, Any], known: Mapping[str, Any]
) -> float | None:
    """The standard error of the objective, from what a network says of a stage's rows;
    None where it is not known.
    """
    stage, _, name = parts.objective.metric.partition("/")
    if stage not in said:
        return None
    values, y = said[stage]
    total = len(parts.data.tensors[stage][0])
    if name != "loss":
        return evidence.error_of_metric(parts.module.task, values, y, name, total)
    looked = known[stage]
    return None if looked is None else looked.error * math.sqrt(looked.count / total)
