"""Networks that others have trained on many images, from the library timm (an extra).
Legend: B batch, C outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from goldilocks.errors import Refused, missing, near_miss, one_line
from goldilocks.models.arguments import Rate, Scale, image_shape
from goldilocks.models.init import init_linear


class Pretrained(nn.Module):
    """A network of timm up to its pooled features, and a linear layer of our own after it.

    **Shape**: input [B, channels, height, width]; output [B, C], without an output function.

    Args:
        input_shape: (channels, height, width).
        num_outputs: C.
        name: As timm calls it: `resnet18`, `mobilenetv3_small_100`, ...
        weights: Whether it starts with the weights that timm has for it, which are downloaded the
            first time; else with random ones.
        freeze: Whether only the last layer is trained. The rest then stays in evaluation mode: its
            BatchNorm keeps the statistics that it was trained with.
        dropout: Share of the features that are dropped before the last layer.
        output_scale: Multiplies the last layer's initial weights.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        name: str = "resnet18",
        weights: bool = True,
        freeze: bool = False,
        dropout: Rate = 0.0,
        output_scale: Scale = 0.1,
    ) -> None:
        channels, _, _ = image_shape("pretrained", input_shape)
        super().__init__()
        self.name, self.freeze = name, freeze
        self.backbone = backbone(name, channels, weights)
        if freeze:
            self.backbone.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.num_features(input_shape), num_outputs)
        init_linear(self.output, "auto", None, scale=output_scale)

    def num_features(self, input_shape: tuple[int, ...]) -> int:
        """Of one row, after the pooling;
        found by trying, so that a size that the network cannot take is refused.
        """
        self.backbone.eval()
        try:
            with torch.no_grad():
                shape = self.backbone(torch.zeros(1, *input_shape)).shape
        except (RuntimeError, AssertionError, ValueError) as error:
            size = "x".join(map(str, input_shape))
            raise Refused(
                f"model.name={self.name}: does not take images of {size}: {one_line(error)}"
            ) from error
        finally:
            self.backbone.train(self.training and not self.freeze)
        return shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(self.backbone(x)))

    def train(self, mode: bool = True) -> "Pretrained":
        super().train(mode)
        self.backbone.train(mode and not self.freeze)
        return self


def backbone(name: str, channels: int, weights: bool) -> nn.Module:
    """A network of timm without its last layer.

    Raises:
        Refused: if timm is not installed, has no such network or cannot get its weights.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise Refused(f"model=pretrained: {missing(error)}") from error
    library: Any = timm
    if not library.is_model(name):
        hint = near_miss(name, library.list_models())  # of more than a thousand
        hint = hint if hint.startswith("did you mean") else "timm.list_models() lists them"
        raise Refused(f"model.name={name}: timm has no such network; {hint}")
    without_memory = (
        torch.get_default_device().type == "meta"
    )  # a sweep's check: there is nothing to load into
    try:
        return library.create_model(
            name, pretrained=weights and not without_memory, in_chans=channels, num_classes=0
        )
    except (OSError, RuntimeError) as error:
        raise Refused(
            f"model.name={name}: {one_line(error)}; write model.weights=false for random weights"
        ) from error
