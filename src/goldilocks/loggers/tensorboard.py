"""TensorBoard: scalars, histograms, graph, text and the HPARAMS tab, in the run folder itself."""

import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import loggers as library
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor, nn
from torch.utils.tensorboard.summary import hparams as hparams_summary

from goldilocks.config.metric_directions import board_tag
from goldilocks.loggers.base import NONE, RunLogger, plain

ENDED = {
    "done": 1,
    "failed": 2,
    "diverged": 2,
    "interrupted": 3,
    "running": 3,
    "pruned": 1,
}  # tensorboard's Status

BINS = 30  # of a histogram, as many as TensorBoard draws; more take longer to write than to count


class TensorBoardLogger(library.TensorBoardLogger, RunLogger):
    """Scalars, histograms, graph, text and the HPARAMS tab, in the run folder itself.

    torch writes hyperparameters and metrics once, at the end, always as a success, together with a
    list of metrics that TensorBoard takes from the first run for all. Here the start is written at
    once and the end with its true status; the tab then finds the metrics by itself, as the last
    `best/...` scalars, killed runs' included.

    Args:
        save_dir: Live: the run folder.
        resume_step: Live: events from this optimizer step on are hidden,
            for they will be written again.
    """

    def __init__(self, save_dir: str, resume_step: int | None = None) -> None:
        begin = resume_step or 0  # TensorBoard takes the first one it finds for the run's own start
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=begin)

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Writes the flat options of a run, by dotted key."""
        _, start, _ = hparams_summary({key: plain(value) for key, value in params.items()}, {})
        self.experiment._get_file_writer().add_summary(start)

    def log_text(self, tag: str, text: str, step: int = 0) -> None:
        """Shows preformatted text."""
        lines = "\n".join(f"    {line}" for line in text.splitlines())
        self.experiment.add_text(tag, lines, step)

    def log_figure(self, tag: str, png: bytes, step: int) -> None:
        """Shows a PNG under IMAGES; of a matplotlib figure torch would encode another one."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self.experiment._get_file_writer().add_summary(
            Summary(value=[Summary.Value(tag=tag, image=image)]), step
        )

    def log_precision_recall(self, tag: str, positive: Any, scores: Any, step: int) -> None:
        """Shows a curve under PR CURVES.

        Args:
            tag: Of the curve.
            positive: [N], whether a row is of the class.
            scores: [N], its probability.
            step: Of the optimizer.
        """
        self.experiment.add_pr_curve(tag, positive, scores, step)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Writes an epoch's numbers as one event;
        the library makes an event of each, at ten times the cost.
        """
        numbers = {tag: value for tag, value in metrics.items() if not isinstance(value, Mapping)}
        values = [
            Summary.Value(tag=board_tag(tag), simple_value=float(value))
            for tag, value in numbers.items()
        ]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)
        if len(numbers) < len(metrics):
            super().log_metrics(
                {tag: metrics[tag] for tag in metrics.keys() - numbers.keys()}, step
            )

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes numbers that are no metrics; loggers of tables lack this method."""
        self.log_metrics(values, step)

    def log_histograms(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Writes by tag how a tensor's values are distributed, as one event."""
        counted = {tag: histogram(values) for tag, values in tensors.items()}
        values = [
            Summary.Value(tag=tag, histo=found)
            for tag, found in counted.items()
            if found is not None
        ]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)

    def log_network(self, network: nn.Module, x: Tensor) -> None:
        """Draws a network's graph.

        Args:
            network: Traced, or one that can be.
            x: Its input, [B, ...].
        """
        self.experiment.add_graph(network, x)

    def log_layout(self, layout: dict[str, Any]) -> None:
        """Arranges the custom scalars tab: by category and chart, `["Multiline", tags]`."""
        self.experiment.add_custom_scalars(layout)

    def save(self) -> None:
        """Flushes. The library would also write an empty hparams.yaml."""
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Flushes. The library would close the file after training,
        and the test would begin another.
        """
        self.save()

    def close(self, status: str, metrics: Mapping[str, float] = NONE) -> None:
        """Writes how the run ended and closes the file."""
        _, _, summary = hparams_summary({}, {})
        content = summary.value[0].metadata.plugin_data
        end = HParamsPluginData.FromString(content.content)
        end.session_end_info.status = ENDED[status]
        content.content = end.SerializeToString()
        self.experiment._get_file_writer().add_summary(summary)
        self.experiment.close()


def histogram(tensor: Tensor) -> HistogramProto | None:
    """A tensor's finite values, counted in `BINS` bins of one width;
    in one bin where all are the same.

    torch's `add_histogram` multiplies in numpy, whose threads then wait for more at full speed: on
    two cores a run of a second took half as long again.

    Returns:
        None where no value is finite.
    """
    values = (
        tensor.flatten().double().cpu()
    )  # torch counts in no order on a GPU, which a deterministic run refuses
    total, square = values.sum().item(), values.square().sum().item()
    if not math.isfinite(square):
        values = values[values.isfinite()]
        total, square = values.sum().item(), values.square().sum().item()
    if not len(values):
        return None
    low, high = (edge.item() for edge in values.aminmax())
    counts = (
        torch.histc(values, BINS, min=low, max=high) if low < high else torch.tensor([len(values)])
    )
    edges = torch.linspace(low, high, len(counts) + 1, dtype=torch.double)[1:]
    shape = {"bucket_limit": edges.tolist(), "bucket": counts.tolist()}
    return HistogramProto(
        min=low, max=high, num=len(values), sum=total, sum_squares=square, **shape
    )
