"""One contract for every backend that infers: the table picks them up, tiny weights stand in for published ones."""

from __future__ import annotations

import inspect
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stf_depth.config import FrozenConfig
from stf_depth.errors import DeviceMemoryError, ShapeError
from stf_depth.perception.device import running_on
from stf_depth.perception.registry import create
from stf_depth.perception.table import MODEL_TYPES, TABLE
from stf_depth.pipeline.batching import HalvingBatch

LOW = "threshold=0&overlap=0&short_side=64"
# case: (task, tiny checkpoint or torchvision network, options)
CHECKPOINTS = {
    "dpt-large": ("depth", "short_side=64"),
    "dpt-hybrid": ("depth", "short_side=64"),
    "depth-anything": ("depth", "short_side=56"),
    "depth-anything-metric": ("depth", "short_side=56"),
    "zoedepth": ("depth", "short_side=64"),
    "zoedepth-two-domains": ("depth", "short_side=64"),
    "depth-pro": ("depth", ""),
    "mobilevit": ("semantic", "short_side=64"),
    "mobilenet-v2": ("semantic", "short_side=64"),
    "segformer": ("semantic", "short_side=64"),
    "mask2former": ("panoptic", LOW),
    "oneformer": ("panoptic", LOW),
    "eomt": ("panoptic", "threshold=0&overlap=0"),
}
STATES = {
    "deeplabv3-mobilenetv3": ("semantic", "deeplabv3_mobilenet_v3_large", "short_side=64"),
    "raft-small": ("flow", "raft_small", "updates=2"),
}
PLAIN = {"regions": ("panoptic", ""), "dis": ("flow", "")}
IMAGE_CASES = [*CHECKPOINTS, "deeplabv3-mobilenetv3", "regions"]
FLOW_CASES = ["raft-small", "dis"]


@pytest.fixture
def make(checkpoint: Callable[[str], Path], state_file: Callable[[str], Path]) -> Callable[..., tuple[str, Any]]:
    def build(case: str, **where: str) -> tuple[str, Any]:
        where = {"device": "cpu"} | where
        if case in CHECKPOINTS:
            task, options = CHECKPOINTS[case]
            return task, create(task, f"hf:{checkpoint(case)}" + f"?{options}" * bool(options), **where)
        if case in STATES:
            task, builder, options = STATES[case]
            return task, create(task, f"{case}?weights={state_file(builder)}&{options}", **where)
        return PLAIN[case][0], create(PLAIN[case][0], case)

    return build


def relative_gap(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Gap to expected values, none of which counts as smaller than half of their mean: many of random weights are 0."""
    return np.abs(values - expected) / np.maximum(np.abs(expected), 0.5 * np.abs(expected).mean())


def arrays(maps: Any) -> np.ndarray:
    return maps.depth if hasattr(maps, "depth") else maps.ids


@pytest.mark.parametrize("case", IMAGE_CASES)
def test_output_is_finite_typed_and_reproducible(case: str, make: Any, frames: np.ndarray) -> None:
    task, backend = make(case)
    before = frames.copy()
    maps = backend.infer(frames)
    np.testing.assert_array_equal(frames, before)
    assert len(maps) == len(frames)
    values = arrays(maps)
    assert values.dtype == (np.float32 if task == "depth" else np.int32)
    if task == "depth":
        assert np.isfinite(values).all() and maps.valid.any()
        assert (maps.representation, maps.ambiguity) == (backend.info.representation, backend.info.ambiguity)
    else:
        assert values.min() >= 0
        for ids, table in zip(values, maps.tables, strict=True):
            assert set(np.unique(ids)) - {0} <= set(table)
    fresh = make(case)[1]
    assert arrays(fresh.infer(frames)).tobytes() == values.tobytes()
    assert fresh.info == backend.info and backend.info.weights_digest


@pytest.mark.parametrize("case", IMAGE_CASES)
def test_batch_gives_the_bytes_of_single_frames(case: str, make: Any, frames: np.ndarray) -> None:
    _, backend = make(case)
    together = backend.infer(frames)
    for number in range(len(frames)):
        alone = backend.infer(frames[number : number + 1])
        assert arrays(alone)[0].tobytes() == arrays(together)[number].tobytes()


@pytest.mark.parametrize("case", IMAGE_CASES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (37, 53), (9, 300)])
def test_any_frame_size_is_taken(case: str, size: tuple[int, int], make: Any, rng: np.random.Generator) -> None:
    _, backend = make(case)
    maps = backend.infer(rng.integers(0, 256, (1, *size, 3), dtype=np.uint8))
    height, width = arrays(maps).shape[1:]
    assert height >= 1 and width >= 1
    if size == (37, 53):
        assert 1.2 < width / height < 1.7, "the frame's aspect ratio is kept"


BAD_FRAMES = {
    "float": np.zeros((1, 8, 8, 3), np.float32),
    "one frame without batch axis": np.zeros((8, 8, 3), np.uint8),
    "grey": np.zeros((1, 8, 8, 1), np.uint8),
    "no frames": np.zeros((0, 8, 8, 3), np.uint8),
    "no pixels": np.zeros((1, 0, 8, 3), np.uint8),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
@pytest.mark.parametrize("case", IMAGE_CASES)
def test_anything_but_rgb_frames_is_refused(case: str, bad: str, make: Any) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        make(case)[1].infer(BAD_FRAMES[bad])


@pytest.mark.parametrize("case", FLOW_CASES)
def test_flow_has_the_frames_size_and_is_reproducible(case: str, make: Any, frames: np.ndarray) -> None:
    _, backend = make(case)
    flow = backend.infer(frames[:2], frames[1:])
    assert flow.shape == (2, 40, 64, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    assert make(case)[1].infer(frames[1:2], frames[2:]).tobytes() == flow[1:].tobytes()


@pytest.mark.parametrize("case", FLOW_CASES)
@pytest.mark.parametrize("size", [(1, 1), (5, 131), (33, 47)])
def test_flow_takes_any_frame_size(case: str, size: tuple[int, int], make: Any, rng: np.random.Generator) -> None:
    pair = rng.integers(0, 256, (2, 1, *size, 3), dtype=np.uint8)
    assert make(case)[1].infer(*pair).shape == (1, *size, 2)


@pytest.mark.parametrize("case", FLOW_CASES)
def test_flow_refuses_frames_of_two_sizes(case: str, make: Any) -> None:
    with pytest.raises(ShapeError, match="one shape"):
        make(case)[1].infer(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 9, 3), np.uint8))


def test_every_registered_network_has_a_case() -> None:
    covered = set()
    for task, types in MODEL_TYPES.items():
        covered |= {(task, loader) for loader in types.values()}
    covered |= {(task, TABLE[task][name].loader) for name, (task, *_) in {**STATES, **PLAIN}.items()}
    registered = {(entry.task, entry.loader) for table in TABLE.values() for entry in table.values() if entry.loader}
    assert registered <= covered


@pytest.mark.parametrize("case", [*IMAGE_CASES, *FLOW_CASES])
def test_every_option_is_described_with_its_default(case: str, make: Any) -> None:
    """Cache keys are made from these: a default that is missing there could change behind the cache's back."""
    backend = make(case)[1]
    module = vars(inspect.getmodule(type(backend)))
    known = [kind for kind in module.values() if inspect.isclass(kind) and issubclass(kind, FrozenConfig)]
    names = {name for kind in known for name in kind.model_fields}
    assert set(backend.info.options) == names
    json.dumps(backend.info.options)


@pytest.mark.parametrize("case", ["dpt-large", "zoedepth", "segformer", "oneformer", "eomt"])
def test_reduced_precision_stays_close(case: str, checkpoint: Any, frames: np.ndarray) -> None:
    task, options = CHECKPOINTS[case]
    full, half = (
        arrays(create(task, f"hf:{checkpoint(case)}?{options}", precision=precision).infer(frames[:1]))
        for precision in ("float32", "bfloat16")
    )
    if task == "depth":
        np.testing.assert_allclose(half, full, atol=0.05 * np.abs(full).max())
        assert half.tobytes() != full.tobytes()
    else:
        assert (half == full).mean() > 0.8


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CHECKPOINTS, "deeplabv3-mobilenetv3"])
def test_a_gpu_gives_what_the_cpu_gives(case: str, make: Any, frames: np.ndarray) -> None:
    """In batches, which may round otherwise than single frames do."""
    task, expected = make(case)[0], arrays(make(case)[1].infer(frames))
    got = arrays(make(case, device="cuda")[1].infer(frames))
    if task == "depth":
        assert np.quantile(relative_gap(got, expected), 0.99) < 5e-3
    else:
        assert (got == expected).mean() > 0.98


@pytest.mark.gpu
def test_flow_of_a_network_on_a_gpu_is_the_cpus(make: Any, frames: np.ndarray) -> None:
    expected = make("raft-small")[1].infer(frames[:2], frames[1:])
    got = make("raft-small", device="cuda")[1].infer(frames[:2], frames[1:])
    np.testing.assert_allclose(got, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["dpt-large", "zoedepth", "segformer", "oneformer"])
def test_reduced_precision_on_a_gpu_stays_close(case: str, precision: str, make: Any, frames: np.ndarray) -> None:
    (task, full), (_, reduced) = make(case), make(case, device="cuda", precision=precision)
    expected, got = arrays(full.infer(frames)), arrays(reduced.infer(frames))
    if task == "depth":
        np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())
    else:
        # Random weights leave many pixels between two labels.
        assert (got == expected).mean() > 0.6


@pytest.mark.gpu
def test_a_full_gpu_gets_fewer_frames_at_once(checkpoint: Any, rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (64, 96, 128, 3), dtype=np.uint8)
    backend = create("depth", f"hf:{checkpoint('dpt-large')}?short_side=384", device="cuda")
    expected = np.concatenate([backend.infer(rgb[number : number + 1]).depth for number in range(len(rgb))])
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 512 * 2**20
    said: list[str] = []
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        got = np.concatenate([part.depth for part in HalvingBatch(backend.infer, said.append)(rgb)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert said and all("going on with" in line for line in said)
    assert np.quantile(relative_gap(got, expected), 0.99) < 5e-3


def test_no_room_leaves_nothing_of_the_attempt_behind() -> None:
    """The error that is raised must not hold what was computed before it: half as many frames need the room."""
    left: list[weakref.ref[torch.Tensor]] = []

    def attempt() -> None:
        computed = torch.zeros(9)
        left.append(weakref.ref(computed))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        pytest.raises(DeviceMemoryError, match="does not fit") as raised,
        running_on(torch.device("cpu"), "float32", "it"),
    ):
        attempt()
    assert raised.value.__cause__ is not None
    assert left[0]() is None


def test_float32_is_not_shortened_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with running_on(torch.device("cpu"), "float32", "it"):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
