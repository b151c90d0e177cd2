"""Everything from numbers to predictions as one module of torch,
for exporters that know tensors only.

Legend: N rows, M inputs, F features, Q quantiles.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from goldilocks.data.tables.preparation import (
    MISSING,
    OTHER,
    PIECE_CENTRE,
    Fitted,
    Preparation,
    flag_names,
    gap_names,
    number_names,
)
from goldilocks.errors import Refused
from goldilocks.tasks.task import Task
from goldilocks.training.outcome import predicted_from

# Of scikit-learn's QuantileTransformer: the least probability, and how near to an end is at it.
EDGE = 1e-7
SMALLEST = torch.finfo(torch.float32).tiny  # of probabilities whose logarithm is taken
# Wichura 1988, algorithm AS 241, PPND16: numerators and denominators of the normal distribution's
# quantiles, in the centre and in the tails down to 1e-11; the highest power first. Right to 16
# digits.
CENTRE = (
    (
        *(
            2509.0809287301226727,
            33430.575583588128105,
            67265.770927008700853,
            45921.953931549871457,
        ),
        *(
            13731.693765509461125,
            1971.5909503065514427,
            133.14166789178437745,
            3.387132872796366608,
        ),
    ),
    (
        *(5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867),
        *(5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
    ),
)
TAIL = (
    (
        *(
            7.7454501427834140764e-4,
            0.0227238449892691845833,
            0.24178072517745061177,
            1.27045825245236838258,
        ),
        *(
            3.64784832476320460504,
            5.7694972214606914055,
            4.6303378461565452959,
            1.42343711074968357734,
        ),
    ),
    (
        *(
            1.05075007164441684324e-9,
            5.475938084995344946e-4,
            0.0151986665636164571966,
            0.14810397642748007459,
        ),
        *(0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
    ),
)


class Graph(nn.Module):
    """Scaling and the rest of the preparation, network, output function, the target's own units.

    **Shape**: input [N, M] in double precision, as `export.matrix_of` makes it, or [N,
    *input_shape] of a source that loads numbers; output [N, classes] probabilities or [N, targets]
    values.

    Args:
        network: In evaluation mode.
        task: What was learnt.
        preparation: Of a table's columns, if it has one.
        scaler: Of other sources.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        preparation: Preparation | None,
        scaler: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.spec = task.spec
        self.prepare = (
            TableFeatures(preparation) if preparation else Scale(scaler, len(task.spec.input_shape))
        )
        self.network, self.task = network, task

    def forward(self, x: Tensor) -> Tensor:
        return predicted_from(self.task, self.network(self.prepare(x)))


class Together(nn.Module):
    """The weighted mean of several networks' predictions.

    **Shape**: as of `Graph`; a table's input is as `merged` says.

    Args:
        graphs: Of the networks.
        weights: Whose sum is 1.
        inputs: What makes each network's own input; () where all have the same.
    """

    def __init__(
        self, graphs: Sequence[Graph], weights: Sequence[float], inputs: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.spec = graphs[0].spec
        self.graphs = nn.ModuleList(graphs)
        self.inputs = nn.ModuleList(inputs)
        self.weights = list(weights)

    def forward(self, x: Tensor) -> Tensor:
        own = [adapt(x) for adapt in self.inputs] or [x] * len(self.graphs)
        parts = [
            weight * graph(each)
            for graph, weight, each in zip(self.graphs, self.weights, own, strict=True)
        ]
        return torch.stack(parts).sum(0)


class Calibrated(nn.Module):
    """Probabilities whose logits are divided by a temperature: what `calibration.tempered` does.

    **Shape**: as of `Graph`.
    """

    def __init__(self, graph: Graph | Together, temperature: float) -> None:
        super().__init__()
        self.spec = graph.spec
        self.as_trained = graph
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        logs = self.as_trained(x).clamp(min=SMALLEST).log()
        return (logs / self.temperature).softmax(-1)


class OwnInput(nn.Module):
    """From the input of several networks to that of one.

    **Shape**: input [N, M] as `merged` says; output [N, M'] as the network's own preparation says.

    Args:
        common: The columns of all.
        own: Those of the network.
    """

    def __init__(self, common: Sequence[Fitted], own: Sequence[Fitted]) -> None:
        super().__init__()
        names = [name for column in common for name in number_names(column)]
        wanted = [name for column in own for name in number_names(column)]
        self.first = len(names)
        self.register_buffer("numbers", torch.tensor([names.index(name) for name in wanted]).long())
        worded = [column for column in common if column.categories]
        at = {column.name: place for place, column in enumerate(worded)}
        self.columns = [at[column.name] for column in own if column.categories]
        for column in own:
            if column.categories:
                place = at[column.name]
                places = places_in(column, worded[place].categories)
                self.register_buffer(f"places_{place}", torch.tensor(places).double())

    def forward(self, x: Tensor) -> Tensor:
        numbers: Any = self.numbers
        parts = [x[:, numbers]]
        for place in self.columns:
            theirs = x[:, self.first + place].long()
            parts.append(getattr(self, f"places_{place}")[theirs][:, None])
        return torch.cat(parts, dim=1)


def places_in(column: Fitted, categories: Sequence[str]) -> list[int]:
    """The places that a column has for categories, of which it may not know some; -1: zeros."""
    known = {word: place for place, word in enumerate(column.categories)}
    unseen = known.get(OTHER, -1)
    return [known.get(word, -1 if word == MISSING else unseen) for word in categories]


def merged(preparations: Sequence[Preparation]) -> Preparation:
    """What makes the input of several networks from a table's columns.

    They differ where training rows did: a column may be constant there, a category missing.

    Raises:
        Refused: if they read the columns differently.
    """
    first = preparations[0]
    if all(one.columns == first.columns for one in preparations):
        return first
    by_name: dict[str, list[Fitted]] = {}
    for one in preparations:
        for column in one.columns:
            by_name.setdefault(column.name, []).append(column)
    joined = copy.copy(first)
    joined.columns = [merged_column(same) for same in by_name.values()]
    return joined


def merged_column(same: Sequence[Fitted]) -> Fitted:
    """A column as several networks know it."""
    lead = same[0]
    if len({(bool(one.categories) or one.kind, one.form) for one in same}) > 1:
        raise Refused(
            f"the networks read the column {lead.name} differently, so one graph cannot hold them;"
            " export one of them"
        )
    words = dict.fromkeys(word for one in same for word in one.categories)
    words |= dict.fromkeys([MISSING, OTHER] if words else [])
    kind = lead.kind if all(one.kind == lead.kind for one in same) else "categorical"
    times = any(one.times for one in same)
    return replace(lead, kind=kind, categories=list(words), times=times)


class TableFeatures(nn.Module):
    """What `Preparation.transform` does once words are numbers.

    **Shape**: input [N, M], numbers first, then places of categories;
    output [N, F] in single precision.
    """

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        columns = preparation.columns
        wide = [len(number_names(column)) for column in columns]
        firsts = [sum(wide[:place]) for place in range(len(columns))]
        self.numbers = sum(wide)
        self.scale = Scale(preparation.scaler, 1)
        self.register_buffer("medians", preparation.medians)
        self.keep(
            "gaps",
            [first for column, first in zip(columns, firsts, strict=True) if gap_names(column)],
        )
        cut = [
            (first, low, high)
            for column, first in zip(columns, firsts, strict=True)
            for low, high in zip(column.edges, column.edges[1:], strict=False)
        ]
        self.keep("cut", [first for first, _, _ in cut])
        self.register_buffer("low", torch.tensor([low for _, low, _ in cut], dtype=torch.double))
        self.register_buffer(
            "step", torch.tensor([high - low for _, low, high in cut], dtype=torch.double)
        )
        worded = [column for column in columns if column.categories]
        flags = [
            (at, place, column.kind == "binary")
            for at, column in enumerate(worded)
            for place in range(column.kind == "binary", len(column.categories))
            if flag_names(column)
        ]
        self.keep("flagged", [at for at, _, _ in flags])
        self.register_buffer(
            "places", torch.tensor([place for _, place, _ in flags], dtype=torch.double)
        )
        self.has_halves = any(
            half for _, _, half in flags
        )  # a tensor's value is unknown to an exporter
        self.register_buffer(
            "halved", torch.tensor([half for _, _, half in flags], dtype=torch.bool)
        )
        self.keep("embedded", [at for at, column in enumerate(worded) if column.embedded])

    def keep(self, name: str, places: list[int]) -> None:
        """Registers numbers of columns."""
        self.register_buffer(name, torch.tensor(places, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        blocks = []
        known: Any = self
        if self.numbers:
            numbers = x[:, : self.numbers]
            missing = torch.isnan(numbers)
            numbers = torch.where(missing, known.medians, numbers)
            blocks.append(self.scale(numbers))
            if len(known.gaps):
                blocks.append(missing[:, known.gaps].float())
            if len(known.cut):
                below = ((numbers[:, known.cut] - known.low) / known.step).clamp(0.0, 1.0)
                blocks.append((below - PIECE_CENTRE).float())
        categories = x[:, self.numbers :]
        if len(known.flagged):
            chosen = categories[:, known.flagged]
            flags = (chosen == known.places).float()
            if self.has_halves:
                flags = torch.where(known.halved & (chosen < 0), 0.5, flags)
            blocks.append(flags)
        if len(known.embedded):
            blocks.append((categories[:, known.embedded] + 1).float())
        return torch.cat(blocks, dim=1)


class Scale(nn.Module):
    """What `scaling.apply_scaler` does.

    **Shape**: input [N, F] or [N, F, height, width] in double precision;
    output the same in single precision.

    Args:
        scaler: As it was fitted.
        dimensions: Of a row.
    """

    def __init__(self, scaler: Mapping[str, Tensor], dimensions: int) -> None:
        super().__init__()
        self.dimensions, self.names = dimensions, sorted(scaler)
        for name, values in scaler.items():
            shaped = (
                values.reshape(-1, *[1] * (dimensions - 1))
                if name in ("shift", "scale", "clip")
                else values
            )
            self.register_buffer(name, shaped)

    def forward(self, x: Tensor) -> Tensor:
        fitted: Any = self
        if "quantiles" in self.names:
            values = x.movedim(1, -1)
            flat = values.reshape(-1, values.shape[-1])
            return to_normal(flat, fitted.quantiles).reshape(values.shape).movedim(-1, 1).float()
        if "shift" in self.names:
            x = (x - fitted.shift) / fitted.scale
        if "clip" in self.names:
            x = x / torch.sqrt(1 + (x / fitted.clip) ** 2)
        return x.float()


def to_normal(values: Tensor, quantiles: Tensor) -> Tensor:
    """What `scaling.to_normal` does, without what exporters do not know.
    Both [N, F] and [Q, F] in double precision.
    """
    last = len(quantiles) - 1
    features = torch.arange(values.shape[1])
    above = values[:, None, :]
    low = ((above >= quantiles).sum(1) - 1).clamp(0, last - 1)
    high = (above > quantiles).sum(1).clamp(1, last)
    forward, backward = quantiles[low, features], quantiles[high, features]
    up = low + (values - forward) / widths(quantiles[low + 1, features] - forward)
    down = high - (backward - values) / widths(backward - quantiles[high - 1, features])
    p = (up + down) / (2 * last)
    # As tensors: ONNX's exporter rounds a number to single precision.
    edge = torch.full_like(p, EDGE)
    p = torch.where(values + edge > quantiles[-1], 1.0, p)
    p = torch.where(values - edge < quantiles[0], 0.0, p)
    p = torch.minimum(torch.maximum(p, edge), 1 - edge)
    return torch.where(quantiles[0] == quantiles[-1], 0.0, normal_quantile(p))


def widths(steps: Tensor) -> Tensor:
    """Widths to divide by, none of them zero."""
    return torch.where(steps == 0, 1.0, steps)


def normal_quantile(p: Tensor) -> Tensor:
    """Where the normal distribution has the probability p, from EDGE to 1 - EDGE,
    in double precision.
    """
    q = p - 0.5
    central = q * ratio(CENTRE, 0.180625 - q * q)
    tail = ratio(TAIL, torch.sqrt(-torch.log(torch.minimum(p, 1 - p))) - 1.6)
    return torch.where(q.abs() <= 0.425, central, torch.where(q < 0, -tail, tail))


def ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], r: Tensor) -> Tensor:
    """A ratio of two polynomials."""
    over, under = (torch.full_like(r, powers[0]) for powers in coefficients)
    for a, b in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        over, under = over * r + a, under * r + b
    return over / under
