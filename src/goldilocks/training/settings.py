"""The schema of the top of the configuration."""

from typing import Annotated, Any

from pydantic import Field

from goldilocks.config.build import check_arguments
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.tasks.losses import build_loss
from goldilocks.tasks.metrics import metric_makers
from goldilocks.tasks.task import Task
from goldilocks.training.lr_range.rules import ANY_RATE, AUTO, RangeOptions

Node = dict[str, Any]


Name = Annotated[
    str,
    Field(
        pattern=r"^[\w-][\w.-]*$",
        max_length=100,  # a file system allows 255 bytes, with the time and the hash
        description="a name of at most 100 letters, digits, - _ and dots, the first no dot,",
    ),
]


class Settings:
    """The signature is the schema of the top of the configuration."""

    called = "the configuration"

    def __init__(
        self,
        *,
        data: Node,
        model: Node,
        regularization: Node,
        optimizer: Node,
        scheduler: Node,
        trainer: Node,
        callbacks: Node,
        loss: Node,
        task: Node,
        objective: Node,
        seed: Annotated[int, Field(ge=0, lt=2**32)],
        name: Name | None,
        log_dir: Annotated[str, Field(min_length=1, description="a folder")],
        resume: str | None,
        packages: list[str],
        lr_range: Node | None = None,  # runs of before it was there have none
        logger: Node | None = None,  # Hydra composes nothing from logger=[]
        metrics: Node | None = None,  # the same
        kept_predictions: Annotated[int, Field(ge=0)] = 200_000,
        record_changes: bool = True,  # is for environment.json alone
    ) -> None:
        self.data = data
        self.model = model
        self.regularization = regularization
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.trainer = trainer
        self.callbacks = callbacks
        self.logger = logger or {}
        self.loss = loss
        self.metrics = metrics or {}
        self.task = task
        self.objective = objective
        self.lr_range = RangeOptions(**check_arguments(RangeOptions, lr_range or {}, "lr_range"))
        self.finds_rate = (rate := optimizer.get("lr")) == AUTO
        if isinstance(rate, str) and not self.finds_rate:
            raise Refused(f"optimizer.lr={rate}: a number or {AUTO} is expected")
        if isinstance(rate, int | float) and rate <= 0:
            raise Refused(f"optimizer.lr={rate:g}: must be greater than 0")
        if self.finds_rate:  # until the range test has found one
            self.optimizer = {**optimizer, "lr": ANY_RATE}
        self.seed = seed
        self.name = name
        self.log_dir = log_dir
        self.kept_predictions = kept_predictions
        self.resume = resume
        self.packages = packages


def build_task(settings: Settings, spec: Spec) -> Task:
    """What is learnt: the loss, the metrics and the outputs.

    Raises:
        Refused: for a loss or a metric that is not for the task.
    """
    return Task(
        spec,
        build_loss(settings.loss, spec, settings.packages),
        metric_makers(settings.metrics, spec, settings.packages),
        **settings.task,
        label_smoothing=settings.regularization["label_smoothing"],
    )
