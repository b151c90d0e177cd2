"""The network of a run, from its options and what its data are."""

from typing import Any

from torch import nn

from goldilocks.checks import Settings, check_network
from goldilocks.config import build
from goldilocks.data.spec import Spec
from goldilocks.models.embedding import CategoryVectors, WithVectors


def build_network(settings: Settings, spec: Spec) -> nn.Module:
    """Builds the network for the data."""
    vectors = CategoryVectors(spec.category_counts) if spec.category_counts else None
    input_shape = (vectors.width(*spec.input_shape),) if vectors else spec.input_shape
    live: dict[str, Any] = {"input_shape": input_shape, "num_outputs": spec.num_outputs}
    network = build(
        settings.model,
        nn.Module,
        "model",
        packages=settings.packages,
        offered={"numbers": spec.numbers},
        **live,
    )
    check_network(settings, network)
    return WithVectors(vectors, network) if vectors else network
