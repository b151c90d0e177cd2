"""MLflow: metrics, parameters, figures as artifacts, and how a run ended."""

import io
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from goldilocks.loggers.base import NONE, RunLogger, final, plain, title_of

ENDED = {"done": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED"}  # others have failed
LONGEST = 500  # letters of a parameter that every server takes


class MLflowLogger(RunLogger):
    """Writes to a tracking server, or into a data base that all runs share.

    A resumed run goes on under its id, which is in `mlflow.id` of the run folder. Epochs after its
    last checkpoint are written twice, with the same values at the same steps.

    Args:
        save_dir: Live: the run folder.
        tracking_uri: Where to; MLFLOW_TRACKING_URI overrides it.
        artifacts: Folder of the figures, where the tracking is in a data base on this machine.
        experiment: The runs that are shown together.
    """

    def __init__(
        self, save_dir: str, tracking_uri: str, artifacts: str, experiment: str = "goldilocks"
    ) -> None:
        super().__init__()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(uri)
        self.known = Path(save_dir) / "mlflow.id"
        if self.known.exists():
            self.run_id = self.known.read_text(encoding="utf-8")
            self.client.update_run(self.run_id, status="RUNNING")
            return
        found = self.client.get_experiment_by_name(experiment)
        local = Path(artifacts).resolve().as_uri() if uri.startswith("sqlite:") else None
        number = found.experiment_id if found else self.client.create_experiment(experiment, local)
        run = self.client.create_run(number, run_name=title_of(Path(save_dir)))
        self.run_id = run.info.run_id
        self.known.write_text(self.run_id, encoding="utf-8")

    @property
    def name(self) -> str:
        return "mlflow"

    @property
    def version(self) -> str:
        return self.run_id

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Takes the flat options of a run, by dotted key.
        One that resuming has changed is a tag.
        """
        words = {key: str(plain(value))[:LONGEST] for key, value in params.items()}
        before = self.client.get_run(self.run_id).data.params
        fresh = [Param(key, word) for key, word in words.items() if key not in before]
        self.client.log_batch(self.run_id, params=fresh)
        for key, word in words.items():
            if before.get(key, word) != word:
                self.client.set_tag(self.run_id, f"resumed.{key}", word)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step or 0) for name, value in metrics.items()]
        self.client.log_batch(
            self.run_id, metrics=[row for row in rows if math.isfinite(row.value)]
        )

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        self.log_metrics(values, step)

    def log_figure(self, tag: str, png: bytes, step: int) -> None:
        from PIL import Image

        self.client.log_image(self.run_id, Image.open(io.BytesIO(png)), f"figures/{tag}.png")

    def log_text(self, tag: str, text: str, step: int = 0) -> None:
        self.client.log_text(self.run_id, text, f"{tag}.txt")

    def close(self, status: str, metrics: Mapping[str, float] = NONE) -> None:
        """Writes the final metrics and how the run ended."""
        for name, value in final(metrics).items():
            if name not in self.client.get_run(self.run_id).data.metrics:
                self.log_metrics({name: value})
        self.client.set_tag(self.run_id, "status", status)
        self.client.set_terminated(self.run_id, ENDED.get(status, "FAILED"))
