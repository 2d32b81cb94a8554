"""ONNX graphs whose result is known: pooled or copied input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stf_depth.errors import (
    AmbiguityError,
    CheckpointError,
    ConfigError,
    DeviceError,
    LicenceError,
    SpecError,
    WeightsError,
)
from stf_depth.perception.onnx_external import external_files
from stf_depth.perception.onnx_signatures import SIGNATURES, End, match_signature
from stf_depth.perception.registry import create, describe
from stf_depth.types import Ambiguity, Representation

MakeGraph = Callable[..., Path]
Z = "representation=z_depth&ambiguity=metric"


@pytest.fixture
def make_graph(tmp_path: Path) -> MakeGraph:
    """A graph that gives the sum of the colours, weighted, of its input."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def make(
        shape: tuple[Any, ...] = (1, 3, 24, 32),
        *,
        dtype: str = "FLOAT",
        weights: tuple[float, ...] = (1, 0, 0),
        metadata: dict[str, str] | None = None,
        names: tuple[str, str] = ("image", "out"),
    ) -> Path:
        is_last = shape[-1] == 3
        axis = 3 if is_last else 1
        kernel = np.array(weights, np.float32).reshape((1, 1, 1, 3) if is_last else (1, 3, 1, 1))
        initializers = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([axis]), "axis")]
        nodes = [
            helper.make_node("Cast", [names[0]], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "kernel"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "axis"], [names[1]], keepdims=1),
        ]
        result = list(shape)
        result[axis] = 1
        source_info = helper.make_tensor_value_info(names[0], getattr(TensorProto, dtype), shape)
        result_info = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, result)
        graph = helper.make_graph(nodes, "graph", [source_info], [result_info], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        for key, value in (metadata or {}).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        checker.check_model(model)
        path = tmp_path / "graph.onnx"
        save(model, path)
        return path

    return make


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (1, *size, 3)).copy()


def test_affine_z_depth_is_refused(make_graph: MakeGraph) -> None:
    with pytest.raises(AmbiguityError, match="affine-invariant z-depth"):
        create("depth", f"onnx:{make_graph()}?representation=z_depth&ambiguity=affine")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("normalize=unit", 100 / 255),
        ("normalize=none", 100.0),
        ("normalize=imagenet", (100 / 255 - 0.485) / 0.229),
        ("mean=0.5,0.5,0.5&std=0.25,0.5,0.5", (100 / 255 - 0.5) / 0.25),
        ("scale=0.5", 50.0),
        ("normalize=unit&channels=bgr", 200 / 255),
        ("", (100 / 255 - 0.485) / 0.229),
    ],
)
def test_input_scaling(options: str, expected: float, make_graph: MakeGraph) -> None:
    spec = f"onnx:{make_graph()}?representation=disparity&ambiguity=affine" + f"&{options}" * bool(options)
    maps = create("depth", spec).infer(flat((100, 150, 200)))
    np.testing.assert_allclose(maps.depth, expected, rtol=1e-5)
    assert maps.depth.shape == (1, 24, 32) and maps.valid.all()


def test_per_image_scaling_has_mean_zero_and_deviation_one(make_graph: MakeGraph, rng: np.random.Generator) -> None:
    spec = f"onnx:{make_graph(weights=(1, 1, 1))}?representation=disparity&ambiguity=affine&normalize=per-image"
    rgb = rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    depth = create("depth", spec).infer(rgb).depth
    np.testing.assert_allclose(depth.mean((1, 2)), 0, atol=1e-4)
    expected = (rgb[1] - rgb[1].mean()) / rgb[1].std()
    np.testing.assert_allclose(depth[1], expected.sum(-1), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 24, 32), (1, 24, 32, 3)])
@pytest.mark.parametrize("dtype", ["FLOAT", "UINT8"])
def test_layouts_and_dtypes(shape: tuple[int, ...], dtype: str, make_graph: MakeGraph) -> None:
    spec = f"onnx:{make_graph(shape, dtype=dtype)}?{Z}&normalize=none"
    maps = create("depth", spec).infer(flat((7, 0, 0)))
    np.testing.assert_allclose(maps.depth, 7)
    assert (maps.representation, maps.ambiguity) == (Representation.Z_DEPTH, Ambiguity.METRIC)


def test_free_sizes_follow_the_aspect_ratio(make_graph: MakeGraph) -> None:
    spec = f"onnx:{make_graph((1, 3, 'h', 'w'))}?{Z}&short_side=32&multiple=8"
    assert create("depth", spec).infer(flat((9, 9, 9), (90, 160))).depth.shape == (1, 32, 56)


@pytest.mark.parametrize("how", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(48, 128), (96, 64), (48, 64)])
def test_output_covers_the_frame(how: str, size: tuple[int, int], make_graph: MakeGraph) -> None:
    spec = f"onnx:{make_graph()}?{Z}&normalize=none&resize={how}"
    rgb = flat((50, 0, 0), size)
    rows, columns = size[0] // 4, size[1] // 4
    rgb[:, -rows:, -columns:] = 250
    maps = create("depth", spec).infer(rgb)
    height, width = maps.depth.shape[1:]
    if how != "stretch":
        assert abs(width / height - size[1] / size[0]) < 0.1
    shown = maps.valid[0]
    assert shown.all() == (how != "crop" or size == (48, 64))
    bright = maps.depth[0] > 150
    y, x = np.nonzero(bright | ~shown)
    in_corner = (np.arange(height) >= height * 0.75 - 1)[:, None] & (np.arange(width) >= width * 0.75 - 1)
    assert not (bright & ~in_corner).any()
    if how != "crop":
        assert bright.mean() == pytest.approx(1 / 16, rel=0.25) and y.max() == height - 1 and x.max() == width - 1


def test_unit_makes_metres_and_invalid_depth_is_marked(make_graph: MakeGraph) -> None:
    backend = create("depth", f"onnx:{make_graph()}?{Z}&normalize=none&unit_m=0.01")
    np.testing.assert_allclose(backend.infer(flat((200, 0, 0))).depth, 2.0)
    assert not backend.infer(flat((0, 0, 0))).valid.any()


def test_meaning_is_asked_for_when_nothing_states_it(make_graph: MakeGraph) -> None:
    with pytest.raises(SpecError, match=r"representation=disparity or z_depth"):
        create("depth", f"onnx:{make_graph()}")
    with pytest.raises(SpecError, match="ambiguity"):
        create("depth", f"onnx:{make_graph()}?representation=z_depth")


def test_metadata_states_it_and_options_override(make_graph: MakeGraph) -> None:
    path = make_graph(
        metadata={"stf_depth.representation": "z_depth", "ambiguity": "metric", "normalize": "none", "author": "x"}
    )
    np.testing.assert_allclose(create("depth", f"onnx:{path}").infer(flat((3, 0, 0))).depth, 3)
    overridden = create("depth", f"onnx:{path}?normalize=unit&ambiguity=scale")
    np.testing.assert_allclose(overridden.infer(flat((255, 0, 0))).depth, 1)
    assert overridden.info.ambiguity is Ambiguity.SCALE


def test_exported_relative_networks_are_recognised(make_graph: MakeGraph) -> None:
    source, result = (
        End("pixel_values", "float32", (1, 3, None, None)),
        End("predicted_depth", "float32", (1, None, None)),
    )
    signature = match_signature(source, result)
    assert signature is not None and signature.options["representation"] == "disparity"
    assert match_signature(source, End("depth", "float32", (1, None, None))) is None


def test_fixed_dimensions_of_a_signature_must_agree() -> None:
    fastdepth = SIGNATURES[0]
    assert match_signature(fastdepth.source, fastdepth.result) is fastdepth
    other = End("t0", "float32", (1, 3, 448, 448))
    assert match_signature(other, fastdepth.result) is None


@pytest.mark.parametrize(
    ("options", "word"), [("normalise=unit", "normalize"), ("unit_m=0", "unit_m"), ("mean=1,2", "mean")]
)
def test_bad_options_are_named(options: str, word: str, make_graph: MakeGraph) -> None:
    with pytest.raises(ConfigError, match=word):
        create("depth", f"onnx:{make_graph()}?{Z}&{options}")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such ONNX file"):
        create("depth", f"onnx:{tmp_path / 'none.onnx'}")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match="damaged ONNX file"):
        create("depth", f"onnx:{damaged}")


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 4, 8, 8), "FLOAT"), ((1, 3, 8, 8), "INT32"), ((4, 3, 8, 8), "FLOAT")]
)
def test_graphs_that_take_no_image_are_refused(shape: Any, dtype: str, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    source = helper.make_tensor_value_info("a", getattr(TensorProto, dtype), shape)
    result = helper.make_tensor_value_info("b", getattr(TensorProto, dtype), shape)
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [source], [result])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "g.onnx")
    with pytest.raises(CheckpointError, match="one RGB image"):
        create("depth", f"onnx:{tmp_path / 'g.onnx'}?{Z}")


def test_commercial_needs_a_known_licence(make_graph: MakeGraph) -> None:
    path = make_graph()
    with pytest.raises(LicenceError):
        create("depth", f"onnx:{path}?{Z}", commercial=True)
    assert create("depth", f"onnx:{path}?{Z}&licence=MIT&commercial=yes", commercial=True) is not None


def test_a_known_network_of_another_task_is_called_so(make_graph: MakeGraph, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    depth = make_graph((1, 3, 224, 224), names=("t0", "t217"))
    with pytest.raises(CheckpointError, match=r"network of another task: .*FastDepth.*--depth"):
        create("semantic", f"onnx:{depth}")
    ends = (
        ("MobilenetV2/MobilenetV2/input", TensorProto.UINT8, (1, 512, 512, 3)),
        ("ArgMax", TensorProto.INT32, (1, 512, 512)),
    )
    nodes = [
        helper.make_node("Cast", [ends[0][0]], ["wide"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["wide"], ["ArgMax"], axes=[3], keepdims=0),
    ]
    source, result = (helper.make_tensor_value_info(*end) for end in ends)
    graph = helper.make_graph(nodes, "graph", [source], [result])
    labels = tmp_path / "labels.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), labels)
    with pytest.raises(CheckpointError, match=r"network of another task: .*DeepLabV3.*--semantic"):
        create("depth", f"onnx:{labels}")
    assert create("semantic", f"onnx:{labels}") is not None
    # An option that the user gave and nobody knows stays what it is.
    with pytest.raises(ConfigError, match="label"):
        create("depth", f"onnx:{depth}?labels=ade20k_32")


def test_the_licence_of_a_known_network_is_described(make_graph: MakeGraph, tmp_path: Path) -> None:
    known = f"onnx:{make_graph((1, 3, 224, 224), names=('t0', 't217'))}"
    for spec, licence in (
        (known, "MIT"),
        (f"{known}?licence=mine", "mine"),
        (f"onnx:{tmp_path / 'gone.onnx'}", "unknown"),
    ):
        info = describe("depth", spec)
        assert info is not None and info.licence.name == licence
    assert create("depth", known).info.licence.name == "MIT"


def test_absent_device_is_not_replaced(make_graph: MakeGraph) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's runtime has CUDA")
    with pytest.raises(DeviceError, match="cuda"):
        create("depth", f"onnx:{make_graph()}?{Z}", device="cuda")


def test_digest_is_the_files(make_graph: MakeGraph) -> None:
    import hashlib

    path = make_graph()
    digest = create("depth", f"onnx:{path}?{Z}").info.weights_digest
    assert digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A graph that multiplies by a constant and by an initializer, each in a file of its own beside it."""
    from onnx import helper, numpy_helper, save, save_model

    ones = np.ones((1, 3, 24, 32), np.float32)
    constant = helper.make_node("Constant", [], ["inside"], value=numpy_helper.from_array(ones, "inside"))
    nodes = [
        constant,
        helper.make_node("Mul", ["image", "kernel"], ["once"]),
        helper.make_node("Mul", ["once", "inside"], ["twice"]),
        helper.make_node("ReduceMean", ["twice"], ["out"], axes=[1]),
    ]
    ends = (helper.make_tensor_value_info(name, 1, (1, side, 24, 32)) for name, side in (("image", 3), ("out", 1)))
    graph = helper.make_graph(nodes, "graph", [next(ends)], [next(ends)], [numpy_helper.from_array(ones, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "outside.onnx"
    options = {"save_as_external_data": True, "all_tensors_to_one_file": False, "convert_attribute": True}
    save_model(model, path, size_threshold=64, **options)
    save(model, path)
    return path


@pytest.mark.parametrize("name", ["kernel", "inside"])
def test_weights_outside_the_file_are_part_of_the_digest(name: str, outside: Path) -> None:
    def look() -> tuple[str, float]:
        backend = create("depth", f"onnx:{outside}?representation=disparity&ambiguity=affine&normalize=none")
        return backend.info.weights_digest, float(backend.infer(flat((9, 9, 9))).depth.mean())

    assert external_files(outside) == ["inside", "kernel"]
    digest, value = look()
    (outside.parent / name).write_bytes(np.full((1, 3, 24, 32), 5, np.float32).tobytes())
    changed, other = look()
    assert (value, other) == (9, 45)
    assert changed != digest


def test_missing_weights_outside_the_file_are_named(outside: Path) -> None:
    (outside.parent / "kernel").unlink()
    with pytest.raises(WeightsError, match=r"missing.*outside\.onnx.*expected.*kernel"):
        create("depth", f"onnx:{outside}?{Z}")


@given(st.binary(max_size=64))
def test_bytes_that_are_no_network_are_damaged_or_name_no_file(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        assert all(isinstance(name, str) for name in external_files(path))
    except WeightsError as error:
        assert "damaged ONNX file" in str(error)


def test_the_text_of_a_label_file_is_described_not_its_path(make_graph: MakeGraph, tmp_path: Path) -> None:
    path = make_graph((1, 24, 32, 3), dtype="UINT8")

    def options(file: str, text: str) -> Any:
        (tmp_path / file).write_text(text)
        return create("semantic", f"onnx:{path}?labels={tmp_path / file}").info.options

    first = options("names.txt", "background\nsky\n")
    assert options("names.txt", "background\nroad\n") != first
    assert options("moved.txt", "background\nsky\n") == first


def test_semantic_graph_needs_its_labels(make_graph: MakeGraph, tmp_path: Path) -> None:
    path = make_graph((1, 24, 32, 3), dtype="UINT8")
    with pytest.raises(SpecError, match="labels"):
        create("semantic", f"onnx:{path}")
    names = tmp_path / "names.txt"
    names.write_text("background\nsky\nperson\n")
    maps = create("semantic", f"onnx:{path}?labels={names}").infer(flat((2, 0, 0)))
    assert (maps.ids == 2).all() and maps.tables[0][2].name == "person"
    # Class 9 is not in the list.
    assert (create("semantic", f"onnx:{path}?labels={names}").infer(flat((9, 0, 0))).ids == 0).all()
    ade = create("semantic", f"onnx:{path}?labels=ade20k").infer(flat((2, 0, 0)))
    assert (ade.ids == 3).all() and ade.tables[0][3].name == "sky"
