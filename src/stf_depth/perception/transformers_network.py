"""Loading and running a transformers network, the same way for every architecture.

Frames go through a network one at a time on a CPU, where a larger batch is no faster and would change the last
bits of the result with the batch size; other devices take the whole batch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import torch

from stf_depth.errors import CheckpointError, WeightsError
from stf_depth.perception.base import BackendRequest
from stf_depth.perception.device import resolve_device, running_on
from stf_depth.perception.weights import Checkpoint, find_checkpoint
from stf_depth.types import Float32Array

__all__ = ["TransformersNetwork", "run_batched"]

Result = TypeVar("Result")

# Parameters that published checkpoints leave out because the forward pass never reads them.
UNUSED_PARAMETERS = re.compile(
    r"fusion_stage\.layers\.0\.residual_layer1\.|mask_token|pooler|position_ids|num_batches_tracked|"
    r"relative_position_index|^criterion\.|text_mapper"
)


class TransformersNetwork:
    """A checkpoint of one of ``architectures``, loaded at the first run.

    Raises WeightsError and CheckpointError when made, as ``find_checkpoint`` and ``Checkpoint.require`` do.
    """

    def __init__(self, request: BackendRequest, *architectures: str) -> None:
        self.name = request.name
        self.architectures = architectures
        self.precision = request.precision
        self.checkpoint: Checkpoint = find_checkpoint(request.location, request.name)
        self.checkpoint.require(architectures)
        self.device = resolve_device(request.device)

    @cached_property
    def model(self) -> Any:
        """The network in evaluation mode on its device.

        Raises WeightsError for damaged files and CheckpointError for weights of another shape.
        """
        found = (self.checkpoint.config.get("architectures") or self.architectures)[0]
        model = _load(found, self.checkpoint)
        with running_on(self.device, "float32", self.name):
            return model.eval().to(self.device)

    def run_each(self, planes: Float32Array, forward: Callable[[Any, torch.Tensor], Result]) -> list[Result]:
        """forward(model, plane) for each of (N, 3, h, w), given as (1, 3, h, w) on the device."""
        model = self.model
        with running_on(self.device, self.precision, self.name):
            return [forward(model, torch.from_numpy(plane[None]).to(self.device)) for plane in planes]

    def run(self, planes: Float32Array, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> Float32Array:
        """forward(model, planes), frame by frame on a CPU: (N, 3, h, w) float32 -> (N, ...) float32."""
        model = self.model
        with running_on(self.device, self.precision, self.name):
            return run_batched(planes, self.device, lambda batch: forward(model, batch))


def run_batched(
    planes: Float32Array, device: torch.device, forward: Callable[[torch.Tensor], torch.Tensor]
) -> Float32Array:
    """Apply ``forward`` to (N, 3, h, w), one frame at a time on a CPU, and concatenate as float32."""
    batch = torch.from_numpy(planes).to(device)
    parts = torch.split(batch, 1 if device.type == "cpu" else len(batch))
    result: Float32Array = torch.cat([forward(part).float().cpu() for part in parts]).numpy()
    return result


def _load(class_name: str, checkpoint: Checkpoint) -> Any:
    import transformers

    model_class = getattr(transformers, class_name)
    try:
        with _quiet_transformers():
            model, report = model_class.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=checkpoint.has_safetensors,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except RuntimeError as error:
        # transformers reports tensors of the wrong shape this way.
        raise CheckpointError("weights do not fit the network", where=checkpoint.folder, got=_line(error)) from error
    except Exception as error:
        raise WeightsError("weights cannot be loaded", where=checkpoint.folder, got=_line(error)) from error
    missing = sorted(key for key in report["missing_keys"] if not UNUSED_PARAMETERS.search(key))
    if missing:
        got = f"{len(missing)} tensors missing, the first {missing[0]}"
        raise CheckpointError(f"checkpoint does not fill {class_name}", where=checkpoint.folder, got=got)
    return model


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence the load report and its bar: what matters in it is raised by the caller."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
