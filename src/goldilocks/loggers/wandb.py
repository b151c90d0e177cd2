"""Weights & Biases: metrics, options, figures and how a run ended."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from goldilocks.loggers.base import ENDED_WELL, NONE, RunLogger, final, remembered, title_of

STEP = "optimizer_step"  # not wandb's own step, which may not go back where a run is resumed


class WandbLogger(RunLogger):
    """Writes into `wandb/` of the run folder, and sends it where a key is known.

    A resumed run goes on under its id. Epochs after its last checkpoint are written twice, with the
    same values at the same steps.

    Args:
        save_dir: Live: the run folder.
        project: On the server.
        entity: The user or team there; None: the key's own.
        mode: `online`, `offline`: `wandb sync` sends it later; `auto`: online if there is a
            key, or what WANDB_MODE says.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "goldilocks",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
    ) -> None:
        super().__init__()
        folder = Path(save_dir)
        if mode == "auto" and "WANDB_MODE" not in os.environ:
            mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
        title = title_of(folder)
        self.run = wandb.init(
            project=project,
            entity=entity,
            mode=None if mode == "auto" else mode,
            dir=str(folder.absolute()),  # its process may have been started in another directory
            id=remembered(folder, "wandb"),
            name=title,
            group=title.rpartition("/")[0] or None,
            resume=None if mode == "offline" else "allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        # A link out of the run folder, which would be refused when the run is resumed.
        (Path(self.run.dir).parent / "logs" / "debug-core.log").unlink(missing_ok=True)
        self.run.define_metric("*", step_metric=STEP)

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self.run.id

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Takes the flat options of a run, by dotted key."""
        self.run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.run.log({**metrics, STEP: step})

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        self.log_metrics(values, step)

    def log_figure(self, tag: str, png: bytes, step: int) -> None:
        from PIL import Image

        self.run.log({tag: wandb.Image(Image.open(io.BytesIO(png))), STEP: step})

    def close(self, status: str, metrics: Mapping[str, float] = NONE) -> None:
        """Writes the final metrics as the run's summary, and whether it went well."""
        self.run.summary.update({**final(metrics), "status": status})
        self.run.finish(exit_code=int(status not in ENDED_WELL))
