"""Where networks run: no silent change of device or precision."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import torch

from stf_depth.errors import ConfigError, DeviceError, DeviceMemoryError

__all__ = ["resolve_device", "running_on"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else CPU; any other name must be there.

    Raises DeviceError for a device that this machine does not have.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in present.items() if is_there))
    kind = name.partition(":")[0]
    if not present.get(kind, False):
        there = ", ".join(kind for kind, is_there in present.items() if is_there)
        raise DeviceError("no such device", where=name, expected=there, hint="Use --device auto")
    return torch.device(name)


@contextlib.contextmanager
def running_on(device: torch.device, precision: str, name: str) -> Iterator[None]:
    """Inference without gradients, with matrix products and convolutions in ``precision``.

    ``float32`` is all of float32: cuDNN's convolutions would otherwise round their factors to ten bits (TF32).

    Raises DeviceMemoryError when the device runs out of memory and ConfigError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError("unknown precision", expected=", ".join(PRECISIONS), got=precision)
    is_reduced = precision != "float32"
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, PRECISIONS[precision], enabled=is_reduced),
            _all_of_float32(),
        ):
            yield
    except RuntimeError as error:
        # Accelerators raise OutOfMemoryError, which is a RuntimeError; the CPU allocator a plain one.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        hint = "Use a smaller --size or model, --device cpu, or precision bfloat16"
        # The traceback holds what the network had computed: the next attempt needs that room.
        traceback.clear_frames(error.__traceback__)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceMemoryError(f"{name} does not fit the device's memory", where=device, hint=hint) from error


@contextlib.contextmanager
def _all_of_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
