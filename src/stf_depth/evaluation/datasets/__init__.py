"""Public datasets in their native layouts, by name."""

from __future__ import annotations

from stf_depth.errors import UsageError
from stf_depth.evaluation.datasets.base import Dataset, Setting
from stf_depth.evaluation.datasets.bonn import BONN
from stf_depth.evaluation.datasets.kitti import KITTI
from stf_depth.evaluation.datasets.nyuv2 import NYUV2
from stf_depth.evaluation.datasets.scannet import SCANNET
from stf_depth.evaluation.datasets.seven_scenes import SEVEN_SCENES
from stf_depth.evaluation.datasets.sintel import SINTEL
from stf_depth.evaluation.datasets.tum import TUM

__all__ = ["DATASETS", "Dataset", "Setting", "dataset"]

DATASETS: dict[str, Dataset] = {entry.name: entry for entry in (SINTEL, KITTI, SCANNET, BONN, NYUV2, TUM, SEVEN_SCENES)}


def dataset(name: str) -> Dataset:
    """The dataset of that name; raises UsageError with the known names."""
    if name not in DATASETS:
        raise UsageError(f"unknown dataset '{name}'", expected=", ".join(DATASETS))
    return DATASETS[name]
