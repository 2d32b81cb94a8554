"""Analytic scenes with exact depth, flow, labels and poses."""

from __future__ import annotations

from stf_depth.synthetic.degrade import DegradeConfig, degrade
from stf_depth.synthetic.files import write_sequence, write_video
from stf_depth.synthetic.library import SCENES, demo_clip, scene
from stf_depth.synthetic.render import SyntheticClip, flow_between, render_clip
from stf_depth.synthetic.scenes import Box, Camera, Rectangle, Scene, Sphere, Surface, Take, Thing

__all__ = [
    "SCENES",
    "Box",
    "Camera",
    "DegradeConfig",
    "Rectangle",
    "Scene",
    "Sphere",
    "Surface",
    "SyntheticClip",
    "Take",
    "Thing",
    "degrade",
    "demo_clip",
    "flow_between",
    "render_clip",
    "scene",
    "write_sequence",
    "write_video",
]
