"""Lightning's trainer with annotated options;
the module drives its clipping, accumulation and step counting.
"""

import logging
import math
import signal
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import registry
from pydantic import Field
from pytorch_lightning import callbacks as library
from pytorch_lightning.loops import _EvaluationLoop, _FitLoop, _TrainingEpochLoop
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from pytorch_lightning.trainer.states import RunningStage, TrainerFn

from goldilocks.errors import Refused
from goldilocks.machine.clock import seconds
from goldilocks.machine.compilation import Matmul, check_compiler
from goldilocks.machine.devices import Plan, StrategyName, named, plan, share, strategy_of
from goldilocks.training.published_metrics import PublishedMetrics

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]
Precision = Literal[
    16, 32, 64, "32", "64", "16-mixed", "bf16-mixed", "bf16-true", "32-true", "64-true"
]
SHARDED_PRECISIONS = ("32", "32-true", "bf16-mixed", "bf16-true")
AUTO_STEPS = (
    64  # batches in a call of training_step: 0.95 of a bare loop's speed, where 16 give 0.89
)

QUIET: dict[str, Any] = {
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}

STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
)
# Their per-step hooks need not see every step: they count, save or draw when they are called.
CONTENT_WITH_SOME = (
    library.Checkpoint,
    library.EarlyStopping,
    library.ProgressBar,
    library.Timer,
    library.ModelSummary,
)


@cache
def installed(group: str) -> Any:
    """What packages offer of a kind, by their entry points; read once a process."""
    return entry_points(group=group)


class NoProfiler(PassThroughProfiler):
    """Measures nothing. Lightning asks about 150 times an epoch,
    and its own makes a generator each time.
    """

    def profile(self, action_name: str) -> AbstractContextManager:  # type: ignore[override]
        return NOTHING


NOTHING: AbstractContextManager = nullcontext()


class FitLoop(_FitLoop):
    """Lightning's, which goes on from the end of an epoch,
    and knows from a checkpoint that training is over.

    Lightning would repeat the end of an epoch under `max_steps`. Of a run that was stopped it
    remembers nothing, and of one that has reached its length it would leave out `on_train_end`,
    which draws the figures.

    Private names of Lightning; tests/training/test_trainer.py watches them.
    """

    def __init__(self, trainer: pl.Trainer, max_epochs: int, max_steps: int) -> None:
        super().__init__(trainer, max_epochs=max_epochs)
        self.epoch_loop = EpochLoop(trainer, max_steps=max_steps)

    def run(self) -> None:
        self.setup_data()
        if self._loaded_from_state_dict and self.done:
            self.reset()
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()

    def _iteration_based_training(self) -> bool:
        return False

    def on_save_checkpoint(self) -> dict:
        return {**super().on_save_checkpoint(), "stopped": self.trainer.should_stop}

    def on_load_checkpoint(self, state_dict: dict) -> None:
        super().on_load_checkpoint(state_dict)
        self.trainer.should_stop = state_dict["stopped"]


class EpochLoop(_TrainingEpochLoop):
    """Lightning's, which validates an epoch that `max_steps` or `max_time` cuts too.

    Private names of Lightning; tests/training/test_trainer.py watches them.
    """

    def __init__(self, trainer: pl.Trainer, max_steps: int) -> None:
        super().__init__(trainer, max_steps=max_steps)
        self.trainer: Trainer
        self.val_loop = ValidationLoop(trainer)

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        if self.trainer.time_is_over:
            return bool(self.trainer.enable_validation)
        cut = self._is_training_done and self._should_check_val_epoch()
        return cut or super()._should_check_val_fx(data_fetcher)


class ValidationLoop(_EvaluationLoop):
    """Lightning's, without reading the signatures of our hooks again in every epoch.

    Private names of Lightning; tests/training/test_trainer.py watches them.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__(
            trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False
        )
        self._verified = False

    def _verify_dataloader_idx_requirement(self) -> None:
        if not self._verified:
            super()._verify_dataloader_idx_requirement()
            self._verified = True

    def _build_step_args_from_hook_kwargs(self, hook_kwargs: Any, step_hook_name: str) -> tuple:
        return tuple(hook_kwargs.values())  # validation_step takes them all


class SignalsLeftAlone(_SignalConnector):
    """Registers no handlers. Of Lightning's, that of SIGTERM talks to the other
    processes in the midst of their steps.

    Private names of Lightning; tests/training/test_trainer.py watches them.
    """

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False
        self._original_handlers = {
            signal.SIGINT: signal.getsignal(signal.SIGINT)
        }  # it is switched off and restored


class Trainer(pl.Trainer):
    """Lightning's trainer, one keyword an option of conf/trainer/.

    Args:
        accelerator: Where to train; `auto`: CUDA, Apple's MPS, else the CPU.
        devices: How many on each machine, each with a process of its own; `auto`: all GPUs.
        num_nodes: Machines, each started by torchrun or Slurm, whose numbers count.
        strategy: `ddp`: each device has all weights; `fsdp`: a share of them, gathered when they
            are needed; `auto`: ddp where there are several.
        precision: Of the arithmetic; `-mixed` keeps the weights in 32 bits.
        max_epochs: The run's length; early stopping ends most before.
        max_steps: Optimizer steps at most; None: no limit.
        max_time: After which training ends, within an epoch too, which is validated: 90s, 30m, 2h.
            It is counted from the start of training, over all parts of a run that is resumed, with
            validation, figures and checkpoints; the test comes after it. None: no limit.
        gradient_clip_val: The largest norm of all gradients together,
            or the largest value of one. None: no clipping.
        gradient_clip_algorithm: `norm` or `value`.
        accumulate_grad_batches: Batches whose gradients make one optimizer step.
        steps_per_execution: Batches in one call of the training step; `auto`: 64, or 1 where a
            callback watches single steps. Changes the speed, not the result.
        threads: Of the CPU, set by the run;
            `auto`: one for a small network, else what a short measurement chooses.
        data_memory_fraction: Share of a GPU's free memory that the data may take; more stay in the
            machine's memory, and batches are gathered there ahead of time.
        matmul: Precision of products of 32-bit matrices, and of convolutions, set by the run;
            see `set_matmul`.
        channels_last: Images, and the weights of a network for them,
            are laid out with the channels last.
        compile: torch.compile of the training pass; see `Compiled`.
        deterministic: Only algorithms that give the same bits twice on the same device.
        check_val_every_n_epoch: Epochs between validations.
        limit_train_batches: Batches of `data.batch_size` in an epoch; None: all.
        limit_val_batches: The same in validation.
        limit_test_batches: The same in the test.
        callbacks: Live.
        logger: Live.
        default_root_dir: Live: the run folder.
        shuffle_seed: Live: seed of the order of the batches.
    """

    def __init__(
        self,
        *,
        accelerator: Literal["auto", "cpu", "gpu"] = "auto",
        devices: Count | Literal["auto"] = 1,
        num_nodes: Count = 1,
        strategy: StrategyName = "auto",
        precision: Precision = 32,
        max_epochs: Count = 200,
        max_steps: Count | None = None,
        max_time: str | float | None = None,
        gradient_clip_val: Annotated[float, Field(gt=0)] | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: Count = 1,
        steps_per_execution: Count | Literal["auto"] = "auto",
        threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto",
        data_memory_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5,
        matmul: Matmul = "high",
        channels_last: bool = False,
        compile: bool = False,
        deterministic: bool = False,
        check_val_every_n_epoch: Count = 1,
        limit_train_batches: Count | None = None,
        limit_val_batches: Count | None = None,
        limit_test_batches: Count | None = None,
        callbacks: list | None = None,
        logger: Any = False,
        default_root_dir: str | None = None,
        shuffle_seed: int = 0,
    ) -> None:
        wanted = plan(
            {
                "accelerator": accelerator,
                "devices": devices,
                "num_nodes": num_nodes,
                "strategy": strategy,
            }
        )
        check_together(
            wanted, precision, compile, check_val_every_n_epoch, max_epochs, channels_last
        )
        self.max_seconds = math.inf if max_time is None else seconds(max_time, "trainer.max_time")
        self.deadline = math.inf
        self.time_is_over = False
        self.clip_value = gradient_clip_val
        self.clip_algorithm = gradient_clip_algorithm
        self.accumulate_batches = accumulate_grad_batches
        self.steps_per_execution = steps_per_execution
        self.shuffle_seed = shuffle_seed
        self.channels_last = channels_last
        self.compiles = compile
        self.sharers = 1  # runs that train together, among which the time of each is divided
        self.data_memory_fraction = data_memory_fraction
        callbacks = [PublishedMetrics(), *(callbacks or [])]
        setattr(registry, "entry_points", installed)  # noqa: B010 - read again for each Trainer
        super().__init__(
            **strategy_of(wanted),
            precision=precision,
            max_epochs=max_epochs,
            max_steps=max_steps or -1,
            deterministic=deterministic,
            check_val_every_n_epoch=check_val_every_n_epoch,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            callbacks=callbacks,
            logger=logger,
            default_root_dir=default_root_dir,
            enable_checkpointing=any(
                isinstance(callback, library.Checkpoint) for callback in callbacks
            ),
            enable_progress_bar=any(
                isinstance(callback, library.ProgressBar) for callback in callbacks
            ),
            profiler=NoProfiler(),
            **QUIET,
        )
        self.fit_loop = FitLoop(self, max_epochs, max_steps or -1)
        self._signal_connector = SignalsLeftAlone(self)

    # --- steps ------------------------------------------------------------------------------------

    @property
    def batches_per_item(self) -> int:
        """Batches in one call of training_step."""
        watchers = self.step_watchers()
        if watchers and self.steps_per_execution != 1:
            log.info("steps_per_execution is 1: %s watches single steps", ", ".join(watchers))
        if watchers:
            return 1
        return AUTO_STEPS if self.steps_per_execution == "auto" else self.steps_per_execution

    def step_watchers(self) -> list[str]:
        """Names of the callbacks that must see every single step."""
        return [
            type(callback).__name__
            for callback in self.callbacks  # type: ignore[attr-defined]
            if watches_steps(type(callback))
        ]

    def planned_epochs(self, steps_per_epoch: int) -> int:
        """Epochs of a run that is not stopped early."""
        assert self.max_epochs is not None
        return (
            self.max_epochs
            if self.max_steps == -1
            else min(self.max_epochs, -(-self.max_steps // steps_per_epoch))
        )

    def steps_left(self, done: int) -> int | None:
        """Optimizer steps until `max_steps`; None without that limit."""
        return None if self.max_steps == -1 else max(self.max_steps - done, 0)

    def start_clock(self, used: float) -> None:
        """Begins to count the time, of which the run has used some seconds already."""
        self.deadline = time.perf_counter() + self.max_seconds - used

    def look_at_clock(self) -> bool:
        """Whether the time is over, for all processes alike; training then ends."""
        if self.max_seconds < math.inf and share(lambda: time.perf_counter() >= self.deadline):
            self.should_stop = self.time_is_over = True
        return self.time_is_over

    def count_steps(self, steps: int) -> None:
        """Adds optimizer steps that bypassed Lightning's wrapper to `global_step`.

        Private names of Lightning, here and in `align_log_step` only;
        tests/training/test_trainer.py watches them.
        """
        progress = self.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for counter in (progress.total, progress.current):
            counter.ready += steps
            counter.completed += steps

    def align_log_step(self) -> None:
        """Makes loggers' x-axis the number of optimizer steps, not of calls."""
        self.fit_loop.epoch_loop._batches_that_stepped = self.global_step - 1


def watches_steps(callback: type[pl.Callback]) -> bool:
    """Whether a kind of callback must see every single step."""
    return not issubclass(callback, CONTENT_WITH_SOME) and any(
        getattr(callback, hook) is not getattr(pl.Callback, hook) for hook in STEP_HOOKS
    )


def check_together(
    plan: Plan, precision: int | str, compiles: bool, every: int, epochs: int, last: bool
) -> None:
    """Refuses options that are right by themselves, but not with these devices or each other."""
    if last and plan.strategy == "fsdp":
        raise Refused(
            "trainer.channels_last=true: not with fsdp; write trainer.strategy=ddp, or leave it out"
        )
    check_precision(precision, plan)
    check_compile(compiles, plan)
    check_intervals(every, epochs)


def check_precision(precision: int | str, plan: Plan) -> None:
    """Refuses a precision that the devices cannot do."""
    if plan.kind == "cpu" and str(precision) in ("16", "16-mixed"):
        raise Refused(
            f"trainer.precision={precision}: needs a GPU; write trainer.precision=bf16-mixed or 32"
        )
    if plan.kind == "cuda" and str(precision).startswith("bf16") and not has_bf16():
        raise Refused(
            f"trainer.precision={precision}: {named('cuda')} has no bf16; write 16-mixed or 32"
        )
    if plan.kind == "mps" and str(precision) in ("64", "64-true"):
        raise Refused(f"trainer.precision={precision}: Apple's MPS has no 64 bits; write 32")
    if plan.strategy == "fsdp" and str(precision) not in SHARDED_PRECISIONS:
        raise Refused(
            f"trainer.precision={precision}: not with fsdp; write one of"
            f" {', '.join(SHARDED_PRECISIONS)}"
        )


def has_bf16() -> bool:
    """Whether the GPU computes in bf16 by itself, from compute capability 8.0 on,
    rather than by way of 32 bits.
    """
    return torch.cuda.is_bf16_supported(including_emulation=False)


def check_compile(compiles: bool, plan: Plan) -> None:
    """Refuses torch.compile where it cannot work."""
    if compiles and plan.strategy == "fsdp":
        raise Refused(
            "trainer.compile=true: not with fsdp; write trainer.strategy=ddp, or leave it out"
        )
    if compiles:
        check_compiler(plan.kind)


def check_intervals(check_val_every_n_epoch: int, max_epochs: int) -> None:
    """Refuses a run that would end before its first validation."""
    if check_val_every_n_epoch > max_epochs:
        raise Refused(
            f"trainer.check_val_every_n_epoch={check_val_every_n_epoch}: the run ends after"
            f" {max_epochs} epochs, before"
            f" any validation; write {max_epochs} at most"
        )


def try_trainer(options: Mapping[str, Any], packages: Iterable[str] = ()) -> None:
    """Checks the trainer's options without building one,
    which takes long enough to be felt in a sweep.
    """
    from goldilocks.config.build import check_arguments, find_class

    kind = find_class(options, pl.Trainer, "trainer", packages)
    live = ("callbacks", "logger", "default_root_dir", "shuffle_seed")
    values = {key: value for key, value in options.items() if key != "_target_"}
    checked = check_arguments(kind, values, "trainer", packages, given=live)
    if issubclass(kind, Trainer):
        defaults = {
            "precision": 32,
            "compile": False,
            "check_val_every_n_epoch": 1,
            "max_epochs": 200,
        }
        defaults |= {"channels_last": False}
        check_together(plan(checked), *(checked.get(key, value) for key, value in defaults.items()))
        if (most := checked.get("max_time")) is not None:
            seconds(most, "trainer.max_time")


def quiet_libraries() -> None:
    """Silences what the libraries say about devices, workers and folders:
    it is either known or not true here.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*GPU available but not used.*",
        ".*litlogger.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*in eval mode at the start of training.*",
        # DDP on a GPU, where torch keeps the nodes itself
        ".*AccumulateGrad node's stream does not match.*",
        ".*Total length of `list` across ranks is zero.*",
    ):
        warnings.filterwarnings("ignore", message)
