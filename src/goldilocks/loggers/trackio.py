"""Trackio: metrics, options and figures in a local data base, or in a Space of Hugging Face."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from goldilocks.loggers.base import NONE, RunLogger, final, plain, title_of


class TrackioLogger(RunLogger):
    """Writes where `trackio show` reads: TRACKIO_DIR, else its folder in Hugging Face's cache.

    A resumed run goes on under its name. Epochs after its last checkpoint are written twice, with
    the same values at the same steps.

    Args:
        save_dir: Live: the run folder.
        resume_step: Live: not None where the run goes on.
        project: The runs that are shown together.
        space_id: A Space, `user/name`, that gets them; None: nothing leaves this machine.
    """

    def __init__(
        self,
        save_dir: str,
        resume_step: int | None = None,
        project: str = "goldilocks",
        space_id: str | None = None,
    ) -> None:
        super().__init__()
        title = title_of(Path(save_dir))
        self.last_step = 0
        self.run = trackio.init(
            project=project,
            name=title,
            group=title.rpartition("/")[0] or None,
            space_id=space_id,
            resume="never" if resume_step is None else "allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    @property
    def name(self) -> str:
        return "trackio"

    @property
    def version(self) -> str:
        return self.run.id

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Takes the flat options of a run, by dotted key; they are sent with the first metrics."""
        self.run.config.update({key: plain(value) for key, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.last_step = max(self.last_step, step or 0)
        self.run.log(dict(metrics), step=step)

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        self.log_metrics(values, step)

    def log_figure(self, tag: str, png: bytes, step: int) -> None:
        from PIL import Image

        self.run.log({tag: trackio.Image(Image.open(io.BytesIO(png)))}, step=step)

    def close(self, status: str, metrics: Mapping[str, float] = NONE) -> None:
        """Writes the final metrics, and waits until everything is written."""
        if metrics:
            self.run.log(final(metrics), step=self.last_step)
        trackio.finish()
