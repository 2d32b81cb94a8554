"""Any ONNX network with one image input: layout, scaling and size of the input, and its meaning.

Options come from the specification, else from the file's metadata (keys as the options, with or without the
prefix ``stf_depth.``), else from the table of known networks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from stf_depth.config import FrozenConfig
from stf_depth.errors import CheckpointError, DeviceError, MissingExtraError, SpecError, WeightsError
from stf_depth.perception.frames import IMAGENET_MEAN, IMAGENET_STD, aspect_size, resize_frames
from stf_depth.perception.onnx_external import external_files, network_digest
from stf_depth.perception.onnx_signatures import End, Signature, match_signature
from stf_depth.types import Float32Array, Float64Array, Uint8Array

__all__ = ["Graph", "OnnxOptions", "Placement", "open_graph"]

METADATA_PREFIX = "stf_depth."
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
LABEL_DTYPES = {"tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(double)": "float64"}


def _numbers(text: object) -> object:
    return tuple(text.split(",")) if isinstance(text, str) else text


Triple = Annotated[tuple[float, float, float], BeforeValidator(_numbers)]


class OnnxOptions(FrozenConfig):
    """How an ONNX network is fed.

    normalize: ``unit`` x / 255, ``imagenet`` mean and std of ImageNet, ``per-image`` (x - mean) / std over each
    whole image, ``none`` x as it is; ``mean`` and ``std``, for x / 255, and ``scale``, a factor on x, override it.
    channels: order of the colours. resize: ``stretch`` to the input size, ``pad`` to keep the aspect, ``crop`` to
    keep the aspect and lose the rest. short_side, multiple: input size in pixels where the graph leaves it free.
    """

    normalize: Literal["unit", "imagenet", "per-image", "none"] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    scale: float | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["stretch", "pad", "crop"] = "stretch"
    short_side: int = Field(384, ge=8, le=4096)
    multiple: int = Field(32, ge=1, le=512)


class Placement(NamedTuple):
    """Where a frame lies in the input: rows and columns of the input, then the part of the frame shown there.

    All in fractions: (top, bottom, left, right).
    """

    of_input: tuple[float, float, float, float]
    of_frame: tuple[float, float, float, float]


WHOLE = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Graph:
    """A graph with one input and the first of its outputs."""

    path: Path
    session: Any
    source: End
    result: End
    is_channels_last: bool

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file and of the files that its weights lie in."""
        return network_digest(self.path)

    @cached_property
    def signature(self) -> Signature | None:
        """The known network that this is, if any."""
        return match_signature(self.source, self.result)

    def options(self, given: Mapping[str, str], known: set[str]) -> dict[str, str]:
        """Options as given, completed from the file's metadata and the table of known networks.

        Raises CheckpointError for a known network whose options are not ``known``: it is one of another task.
        """
        if self.signature is not None and not known.issuperset(self.signature.options):
            task = "depth" if "representation" in self.signature.options else "semantic"
            raise CheckpointError(
                "a network of another task", where=self.path, got=self.signature.network, hint=f"Give it to --{task}"
            )
        metadata = self.session.get_modelmeta().custom_metadata_map
        stated = {key.removeprefix(METADATA_PREFIX): value for key, value in metadata.items()}
        base = dict(self.signature.options) if self.signature is not None else {}
        base.update({key: value for key, value in stated.items() if key in known})
        return base | dict(given)

    def input_size(self, height_px: int, width_px: int, options: OnnxOptions) -> tuple[int, int]:
        """Size (h, w) of the network's input for a frame of the given size."""
        height, width = self.source.shape[1:3] if self.is_channels_last else self.source.shape[2:4]
        free = aspect_size(height_px, width_px, options.short_side, options.multiple)
        return height or free[0], width or free[1]

    def run(self, rgb: Uint8Array, options: OnnxOptions) -> tuple[list[NDArray[Any]], Placement]:
        """Feed frames one by one, (N, H, W, 3) uint8 -> N raw outputs, and where the frame lies in them.

        Raises DeviceError when the runtime fails.
        """
        size = self.input_size(rgb.shape[1], rgb.shape[2], options)
        placed, placement = _place(rgb, size, options.resize)
        feeds = (self._feed(frame, options) for frame in placed)
        try:
            return [self.session.run([self.result.name], {self.source.name: feed})[0] for feed in feeds], placement
        except Exception as error:
            got = " ".join(str(error).split())[:300]
            raise DeviceError("the ONNX runtime failed", where=self.path, got=got) from error

    def _feed(self, frame: Uint8Array, options: OnnxOptions) -> NDArray[Any]:
        if options.channels == "bgr":
            frame = frame[..., ::-1]
        values = _scaled(frame, options) if self.source.dtype != "uint8" else frame
        ordered = values if self.is_channels_last else values.transpose(2, 0, 1)
        return np.ascontiguousarray(ordered[None], self.source.dtype)


def open_graph(path: Path, device: str = "cpu") -> Graph:
    """Open an ONNX file.

    Raises MissingExtraError without onnxruntime, WeightsError for a missing or damaged file, CheckpointError for
    a graph that does not take one RGB image, DeviceError for a device that the runtime does not have.
    """
    if not path.is_file():
        raise WeightsError("no such ONNX file", where=path)
    session = _session(path, device)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise CheckpointError("an ONNX network must take one image", where=path, got=f"inputs {names}")
    source, result = _end(inputs[0]), _end(outputs[0])
    return Graph(path, session, source, result, _is_channels_last(source, path))


def _session(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError.of("onnxruntime", "onnx") from error
    there = onnxruntime.get_available_providers()
    wanted = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}.get(device.partition(":")[0])
    if device == "auto" and "CUDAExecutionProvider" in there:
        wanted = "CUDAExecutionProvider"
    if wanted is not None and wanted not in there:
        hint = "Use --device cpu, or install the runtime's build for this device"
        raise DeviceError("onnxruntime cannot use the device", where=device, got=", ".join(there), hint=hint)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.use_deterministic_compute = True
    settings.intra_op_num_threads = _threads()
    providers = ["CPUExecutionProvider"] if wanted is None else [wanted, "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> WeightsError:
    missing = [name for name in external_files(path) if not (path.parent / name).is_file()]
    if missing:
        expected = path.parent / missing[0]
        return WeightsError(
            "the weights of an ONNX file lie in another, which is missing", where=path, expected=expected
        )
    return WeightsError("damaged ONNX file", where=path, got=" ".join(str(error).split())[:200])


def _threads() -> int:
    """Threads as the environment limits them for OpenMP, which the runtime does not look at; 0 is its own choice."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _end(node: Any) -> End:
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)
    return End(node.name, (DTYPES | LABEL_DTYPES).get(node.type, node.type), shape)


def _is_channels_last(source: End, path: Path) -> bool:
    if len(source.shape) == 4 and source.dtype in DTYPES.values() and source.shape[0] in (1, None):
        if source.shape[3] == 3:
            return True
        if source.shape[1] in (3, None):
            return False
    expected = "float or uint8 (1, 3, h, w) or (1, h, w, 3)"
    got = f"{source.dtype} {source.shape}"
    raise CheckpointError("an ONNX network must take one RGB image", where=path, expected=expected, got=got)


def _scaled(frame: Uint8Array, options: OnnxOptions) -> Float32Array:
    values = frame.astype(np.float32)
    if options.scale is not None:
        offset, factor = np.zeros(3), np.full(3, options.scale)
    elif options.mean is not None or options.std is not None:
        offset, factor = _affine(options.mean or (0, 0, 0), options.std or (1, 1, 1))
    elif options.normalize == "imagenet":
        offset, factor = _affine(IMAGENET_MEAN, IMAGENET_STD)
    elif options.normalize == "per-image":
        offset, factor = np.full(3, values.mean()), np.full(3, 1 / max(float(values.std()), 1e-6))
    else:
        offset, factor = np.zeros(3), np.full(3, 1.0 if options.normalize == "none" else 1 / 255)
    return np.asarray((values - offset.astype(np.float32)) * factor.astype(np.float32), np.float32)


def _affine(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Float64Array, Float64Array]:
    """(x / 255 - mean) / std as (x - offset) * factor."""
    return np.array(mean, np.float64) * 255, 1 / (np.array(std, np.float64) * 255)


def _place(rgb: Uint8Array, size: tuple[int, int], how: str) -> tuple[Uint8Array, Placement]:
    height, width = size
    if how == "stretch":
        return resize_frames(rgb, size), Placement(WHOLE, WHOLE)
    ratios = height / rgb.shape[1], width / rgb.shape[2]
    scale = min(ratios) if how == "pad" else max(ratios)
    inner = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[2] * scale))
    resized = resize_frames(rgb, inner)
    if how == "pad":
        below, right = height - inner[0], width - inner[1]
        padded = np.pad(resized, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
        return padded, Placement((0.0, inner[0] / height, 0.0, inner[1] / width), WHOLE)
    top, left = (inner[0] - height) // 2, (inner[1] - width) // 2
    shown = (top / inner[0], (top + height) / inner[0], left / inner[1], (left + width) / inner[1])
    return resized[:, top : top + height, left : left + width], Placement(WHOLE, shown)


def onto_frame(values: NDArray[Any], placement: Placement, outside: float) -> NDArray[Any]:
    """A map over the input -> a map over the frame: padding cut away, what was cropped away filled by ``outside``."""
    height, width = values.shape
    top, bottom, left, right = placement.of_input
    inner = values[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    top, bottom, left, right = placement.of_frame
    rows, columns = round(inner.shape[0] / (bottom - top)), round(inner.shape[1] / (right - left))
    if (rows, columns) == inner.shape:
        return inner
    whole = np.full((rows, columns), outside, values.dtype)
    row, column = round(top * rows), round(left * columns)
    whole[row : row + inner.shape[0], column : column + inner.shape[1]] = inner
    return whole


def require(value: str | None, key: str, choices: str, graph: Graph) -> str:
    """The option's value; raises SpecError when neither the specification nor the file states it."""
    if value is None:
        hint = f"Add it to the specification: onnx:{graph.path.name}?{key}={choices}"
        raise SpecError(f"the file does not say its {key}", where=graph.path, hint=hint)
    return value
