"""Trainer: device, precision, length, gradients."""

import json
import shutil
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from goldilocks.machine.devices import has_gpu
from proofs.drive import Fit, composed, finished, prepared, refusal, train, vector
from proofs.runs import command, empty_folder
from proofs.table import Measured, proof, within


def device_of(*words: str) -> str:
    return next(train(*words).network.parameters()).device.type


@proof(
    "trainer=cpu",
    "",
    "trains on the CPU",
    "device of the weights after a step",
    covers="trainer.accelerator=cpu",
)
def cpu() -> Measured:
    found = device_of("trainer=cpu")
    return found, found == "cpu"


@proof(
    "trainer=auto",
    "",
    "CUDA, Apple's MPS, else the CPU",
    "device of the weights after a step",
    covers="trainer.accelerator=auto",
)
def auto() -> Measured:
    expected = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    found = device_of("trainer=auto")
    return f"{found}, which is the best there is here", found == expected


@proof(
    "trainer=gpu",
    "",
    "trains on a GPU",
    "device of the weights after a step",
    covers="trainer.accelerator=gpu",
)
def gpu() -> Measured:
    if has_gpu():
        found = device_of("trainer=gpu")
        return found, found in ("cuda", "mps")
    line = refusal("trainer=gpu")
    return f"not run: no GPU; refused: {line}", line.startswith(
        "trainer.accelerator=gpu: no GPU was found"
    )


@proof(
    "trainer=smoke",
    "",
    "two epochs of a few batches on the CPU",
    "epochs, steps and device, on digits",
)
def smoke() -> Measured:
    words = ("data=digits", "trainer=smoke")
    fit = train(*words, parts=_without_epochs(*words))
    found = len(fit.metrics), len(fit.steps), next(fit.network.parameters()).device.type
    return f"{found[0]} epochs, {found[1]} steps, {found[2]}", found == (2, 6, "cpu")


def _without_epochs(*words: str) -> Any:
    """Prepared without the epochs that drive.QUIET asks for."""
    from goldilocks.training.components import prepare

    return prepare(composed("callbacks=none", "logger=none", *words), warn=False)


# --- speed ----------------------------------------------------------------------------------------


def speeds_of(key: str, *words: str) -> tuple[float, float, float]:
    """Validation losses after two epochs without and with an option,
    and the seconds that its run says of compiling.
    """
    found = [finished_losses(f"{key}={value}", *words) for value in ("false", "true")]
    return found[0][0], found[1][0], found[1][1]


def finished_losses(*words: str) -> tuple[float, float]:
    with empty_folder() as folder:
        assert command("trainer.max_epochs=2", "callbacks=none", "logger=none", *words).code == 0
        (path,) = folder.glob("logs/runs/*/result.json")
        result = json.loads(path.read_text())
    return result["objective"]["value"], result["seconds"].get("compile", 0.0)


@proof(
    "trainer.compile",
    "",
    "the same training by compiled code",
    "val/loss without and with it; whether the time of compiling is apart",
)
def compiled() -> Measured:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        line = refusal("trainer=cpu", "trainer.compile=true")
        return f"not run: no compiler; refused: {line}", "C++ compiler" in line
    plain, other, seconds = speeds_of(
        "trainer.compile", "data=iris", "model.norm=none", "trainer=cpu"
    )
    return f"{plain:.4f} {other:.4f}; {'yes' if seconds else 'no'}", abs(
        plain - other
    ) < 1e-4 and seconds > 0


class Layout(Checkpoint):
    """Looks at the first convolution's weights while it trains."""

    found = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        weight = next(p for p in pl_module.network.parameters() if p.ndim == 4 and p.shape[1] > 1)
        self.found = weight.is_contiguous(memory_format=torch.channels_last)


@proof(
    "trainer.channels_last",
    "",
    "images with the channels last",
    "whether a convolution's weights are laid out so, without and with it; refused for a table",
)
def channels_last() -> Measured:
    found = []
    for word in ("false", "true"):
        layout = Layout()
        train("data=digits", "model=cnn", f"trainer.channels_last={word}", extra=(layout,))
        found.append(layout.found)
    line = refusal("data=iris", "trainer.channels_last=true")
    return f"{found[0]}, {found[1]}; refused: {line}", found == [
        False,
        True,
    ] and "is for images" in line


@proof(
    "trainer.matmul=highest",
    "",
    "32-bit matrix products in 32 bits, TF32 or bf16",
    "torch's own switches after each",
    covers="trainer.matmul=high trainer.matmul=medium",
)
def matmul() -> Measured:
    found = []
    for word in ("highest", "high", "medium"):
        prepared(f"trainer.matmul={word}")
        found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    prepared("trainer.matmul=high")
    words = ", ".join(
        f"{name} {'with' if tf32 else 'without'} TF32 in convolutions" for name, tf32 in found
    )
    return words, found == [("highest", False), ("high", True), ("medium", True)]


# --- precision ------------------------------------------------------------------------------------

# of the weights, and of what comes out of a hidden layer in training
KINDS = {
    "32": (torch.float32, torch.float32),
    "32-true": (torch.float32, torch.float32),
    "64": (torch.float64, torch.float64),
    "64-true": (torch.float64, torch.float64),
    "bf16-true": (torch.bfloat16, torch.bfloat16),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
    "16": (torch.float32, torch.float16),
}


def precision_row(precision: str) -> None:
    weight, product = (str(kind).removeprefix("torch.") for kind in KINDS[precision])
    claim = f"weights in {weight}, products of matrices in {product}"

    @proof(
        f"trainer.precision={precision}",
        "",
        claim,
        "weights after a step, outputs of the hidden layer",
    )
    def kinds() -> Measured:
        words = (f"trainer.precision={precision}", "trainer=auto" if has_gpu() else "trainer=cpu")
        if precision.startswith("16") and not has_gpu():
            line = refusal(*words)
            return (
                f"not run: no GPU; refused: {line}",
                f"trainer.precision={precision}: needs a GPU" in line,
            )
        parts, seen = prepared(*words), []
        hidden = next(
            layer for layer in parts.module.network.modules() if isinstance(layer, torch.nn.Linear)
        )
        hidden.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
        fit = train(parts=parts)
        found = next(fit.network.parameters()).dtype, seen[0]
        return ", ".join(str(kind).removeprefix("torch.") for kind in found), found == KINDS[
            precision
        ]


for one in KINDS:
    precision_row(one)


# --- length ---------------------------------------------------------------------------------------


def done(fit: Fit) -> tuple[int, int]:
    """Epochs and steps of the optimizer."""
    return len(fit.metrics), len(fit.steps)


@proof(
    "trainer.max_epochs",
    "G9",
    "so many epochs, if nothing stops them",
    "epochs and steps with 4; 3 batches an epoch",
)
def max_epochs() -> Measured:
    found = done(train("trainer.max_epochs=4"))
    return f"{found[0]} epochs, {found[1]} steps", found == (4, 12)


@proof(
    "trainer.max_steps",
    "G9",
    "ends within an epoch, which is validated",
    "epochs, steps and validations with 5",
)
def max_steps() -> Measured:
    fit = train("trainer.max_epochs=9", "trainer.max_steps=5")
    validations = sum("val/loss" in metrics for metrics in fit.metrics)
    return f"{done(fit)[0]} epochs, {done(fit)[1]} steps, {validations} validations", (
        *done(fit),
        validations,
    ) == (
        2,
        5,
        2,
    )


@proof(
    "trainer.max_time",
    "G9",
    "ends in time, and is tested",
    "status and seconds of a million epochs with 1s; seconds that training took more than asked",
)
def max_time() -> Measured:
    words = ("trainer.max_epochs=1000000", "trainer.max_time=1s", "callbacks=none")
    with finished(*words) as (_, result):
        took = result["seconds"]["total"] - result["seconds"].get("after", 0.0)
        holds = result["status"] == "done" and "test/loss" in result["metrics"]
    return f"{result['status']}, tested; {within(took - 1, 0.5)}", holds and 1 <= took < 1.5


@proof(
    "trainer.check_val_every_n_epoch",
    "",
    "validates every so many epochs",
    "validated epochs of 6, with 3",
)
def every_third() -> Measured:
    metrics = train("trainer.max_epochs=6", "trainer.check_val_every_n_epoch=3").metrics
    found = [epoch for epoch, values in enumerate(metrics) if "val/loss" in values]
    return f"{' '.join(map(str, found))} (counted from 0)", found == [2, 5]


def rows_by_stage(*words: str) -> dict[str, int]:
    """Rows that pass the network in one epoch and the test."""
    counted: dict[str, int] = {}
    parts = prepared(*words)

    def look(network: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        stage = parts.module.trainer.state.stage
        assert stage is not None
        counted[stage.value] = counted.get(stage.value, 0) + len(output)

    parts.module.network.register_forward_hook(look)
    fit = train(parts=parts)
    fit.trainer.test(parts.module, parts.data, verbose=False)
    return counted


def limit_row(stage: str, name: str, rows: int) -> None:
    @proof(
        f"trainer.limit_{stage}_batches",
        "",
        "so many batches of data.batch_size",
        "rows in that stage with 2 batches of 8",
    )
    def limited() -> Measured:
        free, found = (
            rows_by_stage("data.batch_size=8")[name],
            rows_by_stage("data.batch_size=8", f"trainer.limit_{stage}_batches=2")[name],
        )
        return f"{found} of {free}", (found, free) == (16, rows)


for stage in (("train", "train", 90), ("val", "validate", 30), ("test", "test", 30)):
    limit_row(*stage)


# --- gradients ------------------------------------------------------------------------------------

SGD = ("optimizer=sgd", "optimizer.lr=0.1", "model.output_scale=3", "trainer.max_epochs=2")


def updates(fit: Fit) -> list[Tensor]:
    """What each step took off the weights, over the rate: plain SGD moves by the gradient."""
    return [(vector(step.before) - vector(step.after)) / step.group["lr"] for step in fit.steps]


@proof(
    "trainer.gradient_clip_val",
    "G18",
    "a gradient longer than this is shortened to it, a shorter one left alone",
    "norm of each of 6 updates of SGD over the rate, without, with 0.3, with 1000",
)
def clip_val() -> Measured:
    free, clipped, loose = (
        [update.norm().item() for update in updates(train(*SGD, *words))]
        for words in ((), ("trainer.gradient_clip_val=0.3",), ("trainer.gradient_clip_val=1000",))
    )
    same = "as without" if loose == free else "otherwise"
    return (
        f"{min(free):.2f} to {max(free):.2f}; {min(clipped):.3f} to {max(clipped):.3f}; {same}",
        min(free) > 0.4 and np.allclose(clipped, 0.3, atol=1e-4) and loose == free,
    )


@proof(
    "trainer.gradient_clip_algorithm=norm",
    "G18",
    "all gradients together keep their direction",
    "first update of SGD, limit 0.5: its norm; cosine with the one that is not clipped",
)
def clip_norm() -> Measured:
    free, clipped = clipped_update("norm", 0.5)
    cosine = (free @ clipped / free.norm() / clipped.norm()).item()
    norm = clipped.norm().item()
    return f"norm {norm:.3f} of {free.norm():.2f}; cosine {cosine:.4f}", abs(
        norm - 0.5
    ) < 1e-3 and cosine > 0.9999


@proof(
    "trainer.gradient_clip_algorithm=value",
    "G18",
    "each gradient is cut at the limit, which turns the direction",
    "first update of SGD, limit 0.01: its largest element; cosine with the one that is not clipped",
)
def clip_value() -> Measured:
    free, clipped = clipped_update("value", 0.01)
    cosine = (free @ clipped / free.norm() / clipped.norm()).item()
    error = (clipped - free.clamp(-0.01, 0.01)).abs().max().item()
    return (
        f"{clipped.abs().max():.4f} of {free.abs().max():.2f}; cosine {cosine:.2f}",
        error < 1e-5 and cosine < 0.99 and free.abs().max().item() > 0.1,
    )


def clipped_update(algorithm: str, limit: float) -> tuple[Tensor, Tensor]:
    words = (f"trainer.gradient_clip_val={limit}", f"trainer.gradient_clip_algorithm={algorithm}")
    return updates(train(*SGD))[0], updates(train(*SGD, *words))[0]


@proof(
    "trainer.accumulate_grad_batches",
    "G8",
    "gradients of so many batches make one step, their mean",
    "steps of 9 batches with 3; difference of the update from one batch of all rows",
)
def accumulate() -> Measured:
    words = (*SGD, "data.batch_size=10", "trainer.max_epochs=1")
    alone, together = train(*words), train(*words, "trainer.accumulate_grad_batches=3")
    nine, whole = (
        train(*words, "trainer.accumulate_grad_batches=9"),
        train(*words, "data.batch_size=90"),
    )
    error = (updates(nine)[0] - updates(whole)[0]).abs().max().item()
    return (
        f"{len(alone.steps)} become {len(together.steps)}; all 9 in one: {within(error, 1e-5)}",
        (len(alone.steps), len(together.steps), len(nine.steps)) == (9, 3, 1) and error < 1e-5,
    )


# --- speed ----------------------------------------------------------------------------------------


@proof(
    "trainer.steps_per_execution",
    "",
    "batches in one call of the training step: speed, not results",
    "calls in an epoch of 45 batches with 1, 7, auto; weights after them",
)
def steps_per_execution() -> Measured:
    calls, weights = [], []
    for several in ("1", "7", "auto"):
        fit = train(
            "data.batch_size=2", f"trainer.steps_per_execution={several}", "regularization=dropout"
        )
        calls.append(int(fit.trainer.fit_loop.epoch_loop.batch_progress.total.completed))
        weights.append(vector(fit.steps[-1].after))
    same = all(torch.equal(weights[0], other) for other in weights[1:])
    return (
        f"{' '.join(map(str, calls))}; {'the same bits' if same else 'other weights'}",
        calls == [45, 7, 1] and same,
    )


@proof(
    "trainer.threads",
    "",
    "of the CPU; auto: one for a small network",
    "torch's threads while a run trains, with 2 and auto",
)
def threads() -> Measured:
    found = []
    for words in ("trainer.threads=2", "trainer.threads=auto"):
        before = torch.get_num_threads()
        with finished(words):
            found.append(torch.get_num_threads())
        torch.set_num_threads(before)
    return f"{found[0]} and {found[1]}", found == [2, 1]


class Deterministic(Checkpoint):
    """Asks torch, while it trains, whether it may use algorithms that
    give other bits the second time.
    """

    def __init__(self) -> None:
        self.enabled = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.enabled = torch.are_deterministic_algorithms_enabled()


@proof(
    "trainer.deterministic",
    "",
    "only algorithms that give the same bits twice",
    "torch's own switch while it trains; weights of two trainings",
)
def deterministic() -> Measured:
    found, weights = [], []
    try:
        for word in ("true", "true", "false"):
            watcher = Deterministic()
            fit = train(f"trainer.deterministic={word}", extra=(watcher,))
            found.append(watcher.enabled)
            weights.append(vector(fit.steps[-1].after).numpy())
    finally:
        torch.use_deterministic_algorithms(False)
    same = np.array_equal(weights[0], weights[1])
    return (
        f"true: {found[0]}, false: {found[2]}; {'the same bits' if same else 'other bits'}",
        found
        == [
            True,
            True,
            False,
        ]
        and same,
    )
