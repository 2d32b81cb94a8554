"""Every backend by name: one line each.

A new backend is one file with a class that takes a ``BackendRequest``, and one line here
(docs/add-a-backend.md). Licences are those of the weights, as their cards or repositories state them; where a
card says nothing definite the licence is unknown and commercial use is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stf_depth.perception.base import Licence, Task
from stf_depth.types import Ambiguity, Representation

__all__ = ["MODEL_TYPES", "TABLE", "Entry"]

DISPARITY, Z_DEPTH = Representation.DISPARITY, Representation.Z_DEPTH
AFFINE, SCALE, METRIC = Ambiguity.AFFINE, Ambiguity.SCALE, Ambiguity.METRIC

NO_WEIGHTS = Licence("none (no weights)", True)
DPT = Licence("Apache-2.0", True, "model card; original MiDaS weights MIT")
DA_SMALL = Licence("Apache-2.0", True, "model card")
DA_LARGER = Licence("CC-BY-NC-4.0", False, "model card")
DA_METRIC_LARGER = Licence("unknown", None, "card Apache-2.0, but its base model CC-BY-NC-4.0")
MIT_INTEL = Licence("MIT", True, "model card")
APPLE_RESEARCH = Licence("Apple Machine Learning Research Model licence", False, "model card; research only")
APPLE_SAMPLE = Licence("Apple sample code licence", None, "model card")
TORCHVISION = Licence("BSD-3-Clause", True, "torchvision repository")
MOBILENET = Licence("Apache-2.0", True, "original TensorFlow models repository")
NVIDIA = Licence("NVIDIA Source Code Licence for SegFormer", False, "original repository; non-commercial")
ONEFORMER = Licence("MIT", True, "model card")
MASK2FORMER = Licence("unknown", None, "card says 'other'")
EOMT = Licence("MIT", True, "model card; DINOv2 base Apache-2.0")


@dataclass(frozen=True)
class Entry:
    """A registered backend. loader: ``module:class`` below stf_depth.perception, empty where nothing is inferred.

    weights: hub id, or torchvision's name of the weights. size_mb: about how much is downloaded.
    """

    name: str
    task: Task
    loader: str
    weights: str
    licence: Licence
    size_mb: float | None = None
    representation: Representation | None = None
    ambiguity: Ambiguity | None = None

    @property
    def is_hub(self) -> bool:
        """Whether the weights are a repository of the model hub."""
        return "/" in self.weights


_DPT, _DA, _ZOE = "depth.dpt:DptDepth", "depth.depth_anything:DepthAnything", "depth.zoedepth:ZoeDepth"
_PRO = "depth.depth_pro:DepthPro"
_TV_SEG, _HF_SEG = "semantic.torchvision_deeplab:TorchvisionDeepLab", "semantic.hf_semantic:HubSemantic"
_ONE, _UNI = "panoptic.oneformer:OneFormer", "panoptic.universal:UniversalPanoptic"
_HF_DA = "depth-anything/Depth-Anything-V2"

# fmt: off
_ENTRIES = (
    # Relative depth: disparity up to scale and shift.
    Entry("dpt-large", "depth", _DPT, "Intel/dpt-large", DPT, 1368, DISPARITY, AFFINE),
    Entry("dpt-hybrid", "depth", _DPT, "Intel/dpt-hybrid-midas", DPT, 490, DISPARITY, AFFINE),
    Entry("depth-anything-v2-small", "depth", _DA, f"{_HF_DA}-Small-hf", DA_SMALL, 99, DISPARITY, AFFINE),
    Entry("depth-anything-v2-base", "depth", _DA, f"{_HF_DA}-Base-hf", DA_LARGER, 390, DISPARITY, AFFINE),
    Entry("depth-anything-v2-large", "depth", _DA, f"{_HF_DA}-Large-hf", DA_LARGER, 1341, DISPARITY, AFFINE),
    # Depth in metres.
    Entry("depth-anything-v2-metric-indoor-small", "depth", _DA, f"{_HF_DA}-Metric-Indoor-Small-hf", DA_SMALL, 99, Z_DEPTH, METRIC),  # noqa: E501
    Entry("depth-anything-v2-metric-outdoor-small", "depth", _DA, f"{_HF_DA}-Metric-Outdoor-Small-hf", DA_SMALL, 99, Z_DEPTH, METRIC),  # noqa: E501
    Entry("depth-anything-v2-metric-indoor-large", "depth", _DA, f"{_HF_DA}-Metric-Indoor-Large-hf", DA_METRIC_LARGER, 1341, Z_DEPTH, METRIC),  # noqa: E501
    Entry("depth-anything-v2-metric-outdoor-large", "depth", _DA, f"{_HF_DA}-Metric-Outdoor-Large-hf", DA_METRIC_LARGER, 1341, Z_DEPTH, METRIC),  # noqa: E501
    Entry("zoedepth", "depth", _ZOE, "Intel/zoedepth-nyu-kitti", MIT_INTEL, 1382, Z_DEPTH, METRIC),
    Entry("depth-pro", "depth", _PRO, "apple/DepthPro-hf", APPLE_RESEARCH, 1904, Z_DEPTH, METRIC),
    # Depth from camera motion: the pipeline computes it.
    Entry("motion", "depth", "", "", NO_WEIGHTS, 0, DISPARITY, SCALE),
    Entry("deeplabv3-resnet101", "semantic", _TV_SEG, "deeplabv3_resnet101", TORCHVISION, 233),
    Entry("deeplabv3-resnet50", "semantic", _TV_SEG, "deeplabv3_resnet50", TORCHVISION, 161),
    Entry("deeplabv3-mobilenetv3", "semantic", _TV_SEG, "deeplabv3_mobilenet_v3_large", TORCHVISION, 42),
    Entry("deeplabv3-mobilevit-small", "semantic", _HF_SEG, "apple/deeplabv3-mobilevit-small", APPLE_SAMPLE, 26),
    Entry("deeplabv3-mobilenetv2", "semantic", _HF_SEG, "google/deeplabv3_mobilenet_v2_1.0_513", MOBILENET, 10),
    Entry("segformer-b0", "semantic", _HF_SEG, "nvidia/segformer-b0-finetuned-ade-512-512", NVIDIA, 15),
    Entry("segformer-b2", "semantic", _HF_SEG, "nvidia/segformer-b2-finetuned-ade-512-512", NVIDIA, 110),
    Entry("segformer-b5", "semantic", _HF_SEG, "nvidia/segformer-b5-finetuned-ade-640-640", NVIDIA, 339),
    Entry("segformer-b0-cityscapes", "semantic", _HF_SEG, "nvidia/segformer-b0-finetuned-cityscapes-1024-1024", NVIDIA, 15),  # noqa: E501
    Entry("oneformer-coco-swin-large", "panoptic", _ONE, "shi-labs/oneformer_coco_swin_large", ONEFORMER, 880),
    Entry("oneformer-ade20k-swin-tiny", "panoptic", _ONE, "shi-labs/oneformer_ade20k_swin_tiny", ONEFORMER, 205),
    Entry("oneformer-ade20k-swin-large", "panoptic", _ONE, "shi-labs/oneformer_ade20k_swin_large", ONEFORMER, 880),
    Entry("oneformer-cityscapes-swin-large", "panoptic", _ONE, "shi-labs/oneformer_cityscapes_swin_large", ONEFORMER, 880),  # noqa: E501
    Entry("mask2former-coco-swin-tiny", "panoptic", _UNI, "facebook/mask2former-swin-tiny-coco-panoptic", MASK2FORMER, 190),  # noqa: E501
    Entry("mask2former-coco-swin-large", "panoptic", _UNI, "facebook/mask2former-swin-large-coco-panoptic", MASK2FORMER, 866),  # noqa: E501
    Entry("mask2former-cityscapes-swin-large", "panoptic", _UNI, "facebook/mask2former-swin-large-cityscapes-panoptic", MASK2FORMER, 866),  # noqa: E501
    Entry("eomt-coco-small", "panoptic", _UNI, "tue-mps/coco_panoptic_eomt_small_640_2x", EOMT, 97),
    Entry("eomt-coco-large", "panoptic", _UNI, "tue-mps/coco_panoptic_eomt_large_640", EOMT, 1270),
    # Colour regions, without names.
    Entry("regions", "panoptic", "panoptic.regions:RegionSegments", "", NO_WEIGHTS, 0),
    Entry("dis", "flow", "flow.dis:DisFlow", "", NO_WEIGHTS, 0),
    Entry("raft-small", "flow", "flow.raft:RaftFlow", "raft_small", TORCHVISION, 4),
    Entry("raft-large", "flow", "flow.raft:RaftFlow", "raft_large", TORCHVISION, 20),
)
# fmt: on


def _by_task(entries: Iterable[Entry]) -> dict[Task, dict[str, Entry]]:
    tasks: dict[Task, dict[str, Entry]] = {"depth": {}, "semantic": {}, "panoptic": {}, "flow": {}}
    for entry in entries:
        tasks[entry.task][entry.name] = entry
    return tasks


TABLE = _by_task(_ENTRIES)

# ``model_type`` in a checkpoint's config.json -> the backend that runs it.
MODEL_TYPES: dict[Task, dict[str, str]] = {
    "depth": {"dpt": _DPT, "depth_anything": _DA, "zoedepth": _ZOE, "depth_pro": _PRO},
    "semantic": {"mobilevit": _HF_SEG, "mobilenet_v2": _HF_SEG, "segformer": _HF_SEG},
    "panoptic": {"oneformer": _ONE, "mask2former": _UNI, "eomt": _UNI},
    "flow": {},
}
