"""Strict, frozen configuration and the presets.

Every option that changes a result lives here, so that a cache key can hash it whole. A configuration rejects
unknown keys and names the closest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from stf_depth.errors import ConfigError

__all__ = [
    "PRESETS",
    "AlignmentConfig",
    "CausalConfig",
    "FrozenConfig",
    "FusionConfig",
    "GeometryConfig",
    "RunConfig",
    "VideoConfig",
    "preset",
]

Self = TypeVar("Self", bound="FrozenConfig")


class FrozenConfig(BaseModel):
    """Base of all configurations: immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls: type[Self], values: Mapping[str, Any]) -> Self:
        """Build from plain values; raises ConfigError with the closest known key or the violated bound."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _as_config_error(cls, error) from None

    def with_values(self: Self, dotted: Mapping[str, Any]) -> Self:
        """Copy with values replaced, keys written as ``section.name``; raises ConfigError as ``of`` does."""
        tree = self.model_dump()
        for key, value in dotted.items():
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                if not isinstance(node.get(parent), dict):
                    raise ConfigError(f"unknown option '{key}'", hint=_closest(parent, node))
                node = node[parent]
            if leaf not in node:
                raise ConfigError(f"unknown option '{key}'", hint=_closest(leaf, node))
            node[leaf] = value
        return type(self).of(tree)


def _closest(name: str, known: Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"Did you mean '{match[0]}'?" if match else ""


def _as_config_error(model: type[FrozenConfig], error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known: Mapping[str, Any] = model.model_fields
        for part in first["loc"][:-1]:
            annotation = known[str(part)].annotation
            known = getattr(annotation, "model_fields", known)
        return ConfigError(f"unknown option '{key}'", hint=_closest(str(first["loc"][-1]), known))
    return ConfigError(f"bad value for option '{key}'", expected=first["msg"], got=repr(first.get("input")))


def _split(text: Any) -> Any:
    """The parts of a list as the command line gives it, ``1,2,4``."""
    return tuple(text.split(",")) if isinstance(text, str) else text


Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_split)]
SomeCounts = Annotated[Counts, Field(min_length=1)]
Shares = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_split)]
SizeWh = Annotated[tuple[Count, Count], BeforeValidator(_split)]


class VideoConfig(FrozenConfig):
    """Which frames are processed, and at which size.

    allow_gaps: read an image sequence whose numbering leaves numbers out; its images then follow each other.
    """

    start_seconds: float = Field(0.0, ge=0)
    end_seconds: float | None = Field(None, gt=0)
    max_frames: int | None = Field(None, ge=1)
    allow_gaps: bool = False
    working_long_side_px: int = Field(640, ge=64, le=4096)
    output_wh: SizeWh | None = None
    output_long_side_px: int | None = Field(None, ge=16)
    cut_threshold: float = Field(3.0, gt=0)
    min_shot_frames: int = Field(8, ge=1)

    @field_validator("end_seconds")
    @classmethod
    def _after_the_start(cls, end_seconds: float | None, info: ValidationInfo) -> float | None:
        start_seconds = info.data.get("start_seconds", 0.0)
        if end_seconds is not None and end_seconds <= start_seconds:
            raise PydanticCustomError("empty_range", "a time after the start at {start} s", {"start": start_seconds})
        return end_seconds


class GeometryConfig(FrozenConfig):
    """Camera solve and triangulated depth (geometry/)."""

    enabled: bool = True
    focal_px: float | None = Field(None, gt=0)
    horizontal_fov_degrees: float | None = Field(None, gt=0, lt=180)
    seed: int = 0
    # Tracks; lengths as shares of the picture's width or long side, those in pixels at the working size.
    track_corners: int = Field(700, ge=50)
    track_quality: float = Field(0.003, gt=0, lt=1)
    track_spacing: float = Field(0.014, gt=0)
    track_window_px: int = Field(21, ge=5)
    track_levels: int = Field(4, ge=0)
    track_forward_backward_px: float = Field(0.7, gt=0)
    # Where fewer points survive from one frame to the next, and key frames share fewer, features help.
    track_survival: float = Field(0.5, ge=0, le=1)
    feature_share: float = Field(0.6, ge=0, le=1)
    track_top_up: float = Field(0.85, gt=0, le=1)
    keyframe_motion: float = Field(0.03, gt=0)
    keyframe_survival: float = Field(0.6, gt=0, lt=1)
    # Longer shots are solved in parts that overlap.
    part_key_frames: int = Field(64, ge=8)
    part_overlap: float = Field(0.25, gt=0, le=0.5)
    # Camera solve and its gates; pixel figures hold at a long side of 640, pose_error_px at the working size.
    first_focal: float = Field(0.9, gt=0)
    min_focal: float = Field(0.3, gt=0)
    max_focal: float = Field(2.4, gt=0)
    focal_views: float = Field(0.25, ge=0)
    focal_spread: float = Field(0.4, gt=0)
    mask_evidence: float = Field(0.01, ge=0)
    pose_error_px: float = Field(3.0, gt=0)
    inlier_px: float = Field(2.0, gt=0)
    # Solves are compared by what they explain to within explained_px. Points that fit less well than misfit_px are left
    # out of another round, where they are more than misfit_share of all.
    explained_px: float = Field(1.0, gt=0)
    misfit_px: float = Field(1.5, gt=0)
    misfit_share: float = Field(0.1, ge=0, le=1)
    misfit_evidence: float = Field(0.005, ge=0)
    solve_rounds: int = Field(3, ge=0)
    # Points that carry the scale on are seen under carrier_degrees. With fewer than min_carriers the path is cut. With
    # less than firm_share of a key frame's points, features join key frames, and of solves whose shares differ by less
    # than link_evidence the firmest is taken.
    carrier_degrees: float = Field(0.5, gt=0)
    min_carriers: int = Field(10, ge=0)
    firm_share: float = Field(0.3, ge=0)
    link_evidence: float = Field(0.02, ge=0)
    # A turn on the spot is believed that explains so much, and leaves no more unexplained than so many times what the
    # solve leaves.
    min_turning_fraction: float = Field(0.6, ge=0, le=1)
    turning_misfits: float = Field(1.7, ge=0)
    min_frames: int = Field(5, ge=2)
    min_points: int = Field(60, ge=8)
    min_inlier_fraction: float = Field(0.5, ge=0, le=1)
    min_angle_degrees: float = Field(1.5, ge=0)
    max_reprojection_px: float = Field(1.5, gt=0)
    min_solved_fraction: float = Field(0.5, ge=0, le=1)
    # Dense structure; baselines as shares of the median depth.
    structure_long_side_px: int = Field(320, ge=32)
    coarse_scale: float = Field(0.5, gt=0, le=1)
    coarse_min_px: int = Field(48, ge=16)
    coarse_offsets: SomeCounts = (6,)
    coarse_point_weight: float = Field(0.3, ge=0)
    source_baselines: Shares = (0.04, 0.12)
    source_reach_frames: int = Field(48, ge=1)
    min_baseline: float = Field(0.008, gt=0)
    max_source_rotation_degrees: float = Field(20.0, gt=0)
    max_source_cost: float = Field(1.4, gt=0)
    blur_penalty: float = Field(0.5, ge=0)
    prior_px: float = Field(30.0, gt=0)
    edge_px: int = Field(10, ge=0)
    edge_spread: float = Field(0.1, gt=0)
    smooth_px: float = Field(5.0, gt=0)
    smooth_color: float = Field(0.2, gt=0)
    complete_px: float = Field(120.0, gt=0)
    complete_color: float = Field(0.06, gt=0)
    complete_noise: float = Field(0.05, ge=0)
    complete_weight: float = Field(0.05, gt=0)
    complete_soft_color: float = Field(0.4, gt=0)
    complete_soft_weight: float = Field(0.001, gt=0)
    plane_spread: float = Field(0.03, gt=0)
    flow_error_px: float = Field(1.0, gt=0)
    cauchy_px: float = Field(0.5, gt=0)
    irls_steps: int = Field(3, ge=0)
    parallax_px: float = Field(2.0, gt=0)
    texture_gradient: float = Field(2.0, gt=0)
    texture_px: float = Field(1.5, gt=0)
    min_disparity: float = Field(0.01, gt=0)
    fallback_confidence: float = Field(0.02, ge=0, le=1)
    fusion_offsets: SomeCounts = (3, 6, 10, 16, 24)
    fusion_widths: Shares = (0.3, 0.1, 0.05)
    fusion_sure: float = Field(0.3, gt=0)
    fusion_miss_px: float = Field(1.5, gt=0)
    fusion_floor: float = Field(0.06, gt=0)
    flow_preset: Literal["fast", "medium"] = "medium"


class AlignmentConfig(FrozenConfig):
    """Per-frame scale, shift and grid (alignment/).

    affine, grid: switches of the two solves. spans: how many frames apart links reach. sample_columns: links across
    the image. The priors weigh squared unknowns against a frame's links, whose weights add up to one for each span of a
    square picture and to less of a wide one.
    Shots longer than a stretch and its margin are solved stretch by stretch, each with a margin on either side.
    """

    enabled: bool = True
    affine: bool = True
    grid: bool = True
    spans: SomeCounts = (1, 2, 4, 8, 16)
    sample_columns: int = Field(16, ge=4, le=64)
    tolerance_px: float = Field(1.0, gt=0)
    grid_columns: int = Field(7, ge=2, le=16)
    block_frames: int = Field(32, ge=8)
    stretch_frames: int = Field(384, ge=16)
    stretch_margin_frames: int = Field(192, ge=16)
    scale_prior: float = Field(0.2, gt=0)
    shift_prior: float = Field(1.0, gt=0)
    grid_prior: float = Field(0.3, gt=0)
    grid_smoothness: float = Field(0.3, ge=0)
    anchor_weight: float = Field(2.0, ge=0)
    anchored_noise: float = Field(0.024, gt=0)
    robust_scale_floor: float = Field(0.02, gt=0)
    iterations: int = Field(4, ge=1, le=20)
    still_motion: float = Field(0.002, ge=0)
    still_prior: float = Field(0.1, gt=0, le=1)


class FusionConfig(FrozenConfig):
    """Which fusion runs, and each stage's switch for the ablation (fusion/)."""

    mode: Literal["full", "flow", "none"] = "full"
    low_band_long_side_px: int = Field(320, ge=32, le=2048)
    chunk_frames: int = Field(8, ge=1)
    egomotion: bool = True
    trajectory_filter: bool = True
    trajectory_radius: int = Field(5, ge=0, le=16)
    trajectory_tolerance: float = Field(0.08, gt=0)
    structure: bool = True
    structure_cells: Counts = (2, 5, 10, 20, 40)
    structure_spread: float = Field(0.1, gt=0)
    structure_contradiction: float = Field(0.6, gt=0)
    contradiction_cells: Counts = (2, 5, 10)
    contradiction_least: float = Field(0.1, gt=0)
    contradiction_tail: float = Field(0.33, gt=0)
    structure_damping: float = Field(0.02, gt=0)
    structure_sharpness: float = Field(0.6, gt=0)
    structure_sure_sharpness: float = Field(3.2, gt=0)
    structure_noise: float = Field(0.045, gt=0)
    structure_noise_least: float = Field(0.02, gt=0)
    structure_jitter: float = Field(1.5, ge=0)
    structure_gain: float = Field(0.7, gt=0)
    structure_power: float = Field(1.75, gt=0)
    structure_bend: float = Field(0.7, gt=0)
    network_trust: float = Field(1.5, gt=0)
    moving_share: float = Field(0.05, ge=0, le=1)
    static_tolerance_px: float = Field(2.5, gt=0)
    snap_boundaries: bool = True
    snap_radius: float = Field(0.01, gt=0, le=0.1)
    snap_contrast: float = Field(0.05, ge=0)
    snap_support: float = Field(1.3, gt=0)
    snap_reach: int = Field(3, ge=0, le=16)
    planes: bool = True
    plane_tolerance: float = Field(0.06, gt=0)
    sky: bool = True
    sky_colour_spread: float = Field(0.08, gt=0)
    sky_min_support: float = Field(0.4, ge=0, le=1)
    sky_max_measured: float = Field(0.15, ge=0, le=1)
    mover_max_measured: float = Field(0.5, ge=0, le=1)
    mover_max_gap: float = Field(0.25, gt=0)
    abstain: bool = True
    abstain_noise: float = Field(0.016, gt=0)
    abstain_jitter: float = Field(0.007, gt=0)
    pose_filter: bool = True
    pose_offsets: tuple[SomeCounts, ...] = ((1, 2), (3, 6, 12))
    pose_tolerance: float = Field(0.08, gt=0)
    pose_tolerance_inside: float = Field(0.15, gt=0)
    tolerance_jitter: float = Field(2.0, ge=0)
    max_tolerance: float = Field(0.16, gt=0)
    restless_jitter: float = Field(0.025, gt=0)
    least_tolerance: float = Field(0.2, gt=0, le=1)
    fine_filter: bool = True
    fine_radius: int = Field(3, ge=1, le=16)
    fine_tolerance: float = Field(0.04, gt=0)
    fine_tolerance_inside: float = Field(0.1, gt=0)

    def window_frames(self) -> int:
        """How many frames the sliding window spans."""
        reach = max(self.trajectory_radius, sum(max(one_pass, default=0) for one_pass in self.pose_offsets))
        return 2 * reach + self.edge_frames() + 3

    def edge_frames(self) -> int:
        """How many frames beyond its own low band a frame's edges and its full size are steadied with."""
        return self.snap_reach + self.fine_radius


class CausalConfig(FrozenConfig):
    """Fusion that looks back, and ahead by ``lookahead_frames`` at most (fusion/causal.py).

    tolerance: relative gap of two disparities at which they count half. memory: how many frames the past may weigh,
    less where frames differ by under steady_below from the past, so that steady input is left as it is.
    leak: share of the correction of scale and shift that is given up with each frame, so that it cannot drift.
    reset_below: share of pixels that must have come from the frame before; with less, the past is forgotten.
    egomotion: whether the past is carried along the camera's motion; static_tolerance_px: a gap of flow to it, on the
    coarse grid, from which on a pixel moves by itself.
    """

    lookahead_frames: int = Field(0, ge=0, le=16)
    low_band_long_side_px: int = Field(320, ge=32, le=2048)
    tolerance: float = Field(0.16, gt=0)
    tolerance_px: float = Field(1.0, gt=0)
    color_tolerance: float = Field(30.0, gt=0)
    memory: float = Field(12.0, ge=0)
    steady_below: float = Field(0.03, gt=0)
    leak: float = Field(0.25, ge=0, le=1)
    reset_below: float = Field(0.25, ge=0, le=1)
    egomotion: bool = True
    static_tolerance_px: float = Field(2.5, gt=0)
    irls_steps: int = Field(4, ge=1, le=20)


class RunConfig(FrozenConfig):
    """Everything that decides the result of a run; specs are written as on the command line."""

    preset: Literal["seed", "offline", "fast", "best"] = "fast"
    depth: str = "depth-anything-v2-small"
    semantic: str = "none"
    panoptic: str = "none"
    flow: str = "dis"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    commercial: bool = False
    video: VideoConfig = VideoConfig()
    geometry: GeometryConfig = GeometryConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    fusion: FusionConfig = FusionConfig()
    causal: CausalConfig = CausalConfig()


# Each preset is plain data: the values that differ from RunConfig's own.
PRESETS: dict[str, dict[str, Any]] = {
    # The original interface: MiDaS DPT-Large, DeepLabV3, OneFormer.
    "seed": {"depth": "dpt-large", "semantic": "deeplabv3-resnet101", "panoptic": "oneformer-coco-swin-large"},
    # No network at all: depth from camera motion, label-free regions.
    "offline": {"depth": "motion", "semantic": "none", "panoptic": "regions"},
    # Small models with permissive licences.
    "fast": {
        "depth": "depth-anything-v2-small",
        "semantic": "deeplabv3-mobilenetv3",
        "panoptic": "oneformer-ade20k-swin-tiny",
    },
    # The strongest models with permissive licences.
    "best": {"depth": "dpt-large", "semantic": "deeplabv3-resnet101", "panoptic": "oneformer-coco-swin-large"},
}


def preset(name: str, **overrides: Any) -> RunConfig:
    """The configuration of a preset, with top-level fields replaced.

    Raises ConfigError for an unknown preset or field.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'", hint=f"Known presets: {', '.join(PRESETS)}")
    return RunConfig.of({"preset": name, **PRESETS[name], **overrides})
