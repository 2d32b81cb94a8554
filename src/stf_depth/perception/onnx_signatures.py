"""Networks whose files do not say what their numbers mean, recognised by the names and shapes of their ends.

An ONNX graph states neither the scaling of its input nor the unit of its output. A network is recognised when the
names, dtypes and shapes of its input and output are exactly those listed here. Other files say it in their
metadata or by options (docs/add-a-backend.md).

| network | input | output |
|---|---|---|
| FastDepth (NYU) | x / 255 | z in metres |
| METER XXS (NYU) | (x - mean) / std of each image | z in centimetres |
| METER XXS (KITTI) | x / 255 | z in decimetres |
| DeepLabV3 MobileNetV2 (ADE20K, 32 classes) | uint8 | labels |
| exports of transformers' relative depth networks | ImageNet mean and std | disparity up to scale and shift |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stf_depth.perception.base import Licence

__all__ = ["SIGNATURES", "End", "Signature", "match_signature"]


@dataclass(frozen=True)
class End:
    """Name, dtype and shape of an input or output; None stands for a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def matches(self, other: End) -> bool:
        """Whether ``other`` is this end; a dimension that is None here may have any size there."""
        if (self.name, self.dtype, len(self.shape)) != (other.name, other.dtype, len(other.shape)):
            return False
        return all(own is None or own == found for own, found in zip(self.shape, other.shape, strict=True))


@dataclass(frozen=True)
class Signature:
    """A known network: its ends, and the options that its file leaves unsaid."""

    network: str
    source: End
    result: End
    licence: Licence
    options: Mapping[str, str]


_MIT = Licence("MIT", True, "repository of the network")
_METRIC = {"representation": "z_depth", "ambiguity": "metric"}
_RELATIVE = {"representation": "disparity", "ambiguity": "affine", "normalize": "imagenet"}

SIGNATURES = (
    Signature(
        "FastDepth NYU",
        End("t0", "float32", (1, 3, 224, 224)),
        End("t217", "float32", (1, 1, 224, 224)),
        _MIT,
        {**_METRIC, "normalize": "unit", "unit_m": "1"},
    ),
    Signature(
        "METER XXS NYU",
        End("rgb", "float32", (1, 3, 192, 256)),
        End("depth", "float32", (1, 1, 48, 64)),
        _MIT,
        {**_METRIC, "normalize": "per-image", "unit_m": "0.01"},
    ),
    Signature(
        "METER XXS KITTI",
        End("rgb", "float32", (1, 3, 192, 640)),
        End("depth", "float32", (1, 1, 48, 160)),
        _MIT,
        {**_METRIC, "normalize": "unit", "unit_m": "0.1"},
    ),
    Signature(
        "DeepLabV3 MobileNetV2 ADE20K-32",
        End("MobilenetV2/MobilenetV2/input", "uint8", (1, 512, 512, 3)),
        End("ArgMax", "int32", (1, 512, 512)),
        Licence("Apache-2.0", True, "TensorFlow model garden"),
        {"normalize": "none", "labels": "ade20k_32"},
    ),
    # The licence is that of whichever network was exported, which the file does not say.
    Signature(
        "relative depth network exported from transformers",
        End("pixel_values", "float32", (None, None, None, None)),
        End("predicted_depth", "float32", (None, None, None)),
        Licence("unknown", None, "export of an unnamed network"),
        {**_RELATIVE, "short_side": "518", "multiple": "14"},
    ),
)


def match_signature(source: End, result: End) -> Signature | None:
    """The known network with these ends, None when there is none."""
    for signature in SIGNATURES:
        if signature.source.matches(source) and signature.result.matches(result):
            return signature
    return None
