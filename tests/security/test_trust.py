"""What others wrote is read without being believed."""

from __future__ import annotations

import ast
import html.parser
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import stf_depth
from stf_depth.errors import InputError, OutputError, StfDepthError
from stf_depth.perception.depth.map_files import open_maps
from stf_depth.report import write_index
from stf_depth.result import DepthResult
from stf_depth.video.discover import safe_name

SOURCES = sorted(Path(stf_depth.__file__).parent.rglob("*.py"))
REPOSITORY = Path(__file__).resolve().parents[2]


def calls() -> list[tuple[Path, ast.Call, str]]:
    """Every call in the package with the dotted name of what is called."""
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES)
    nodes = ((path, node) for path, tree in trees for node in ast.walk(tree))
    return [(path, node, ast.unparse(node.func)) for path, node in nodes if isinstance(node, ast.Call)]


@pytest.fixture(scope="module")
def all_calls() -> list[tuple[Path, ast.Call, str]]:
    return calls()


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == name), None)


Calls = list[tuple[Path, ast.Call, str]]


def test_torch_loads_weights_only(all_calls: Calls) -> None:
    loads = [(path, call) for path, call, name in all_calls if name == "torch.load"]
    assert loads
    assert all(keyword(call, "weights_only") == "True" for _, call in loads)


def test_no_code_of_others_is_run(all_calls: Calls) -> None:
    forbidden = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.hub.load", "yaml.load"}
    assert not [(path.name, name) for path, _, name in all_calls if name in forbidden]
    words = ("shell", "trust_remote_code", "allow_pickle")
    said = [(path.name, word, keyword(call, word)) for path, call, _ in all_calls for word in words]
    assert {value for _, _, value in said} <= {None, "False"}


def test_the_only_unpickler_is_the_restricted_one(all_calls: Calls) -> None:
    using = {path.name for path, _, name in all_calls if "Unpickler" in name}
    assert using == {"inference_pickle.py"}


def test_what_the_restricted_unpickler_may_build_runs_nothing() -> None:
    from stf_depth.cache import inference_pickle

    modules = {module for module, _ in inference_pickle._ALLOWED}
    assert modules <= {"numpy", "numpy._core.multiarray", "numpy.core.multiarray"}


def test_transformers_never_runs_code_of_a_checkpoint(tmp_path: Path) -> None:
    from stf_depth.perception.registry import create

    ran = tmp_path / "ran"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    words = {"AutoConfig": "evil.C", "AutoModelForDepthEstimation": "evil.M"}
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    config = {"architectures": ["DPTForDepthEstimation"], "model_type": "dpt", "auto_map": words, **small}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(StfDepthError):
        create("depth", f"hf:{folder}").infer(np.zeros((1, 32, 32, 3), np.uint8))
    assert not ran.exists()


LABELS = ["../../etc/passwd", "..", "/etc/passwd", "a/../../b", "C:\\x", "con\0x", ".hidden", "", "   ", "a\nb"]


@pytest.mark.parametrize("label", LABELS)
def test_names_cannot_leave_the_output_folder(label: str, tmp_path: Path) -> None:
    name = safe_name(label)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert not name.startswith(".") and "\0" not in name


MakeResult = Callable[..., Path]


def edited(folder: Path, change: Callable[[dict[str, object]], None]) -> DepthResult:
    """The result with its manifest changed by a stranger."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return DepthResult(folder)


def test_stage_paths_of_a_strangers_manifest_are_not_followed(make_result: MakeResult, tmp_path: Path) -> None:
    (tmp_path / "data.zarr").mkdir()
    (tmp_path / "complete.json").write_text('{"frames": 12}')
    for entry in ({"path": str(tmp_path), "key": "test"}, {"path": 3}, "text", {"path": "\0"}, {"key": "test"}, [1]):
        result = edited(make_result(), lambda content, entry=entry: content["stages"].update(depth=entry))  # type: ignore[attr-defined, misc]
        assert result.stage("depth") is None


def test_the_own_stages_are_still_found(make_result: MakeResult) -> None:
    assert DepthResult(make_result()).stage("depth") is not None


def test_export_records_of_a_strangers_manifest_touch_no_file(make_result: MakeResult, tmp_path: Path) -> None:
    from stf_depth.pipeline.process import _exported

    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = make_result()
    records = {
        "npz": {str(victim): 4},
        "mp4": {"../../x": 1},
        "png16": [1],
        "exr": "x",
        "ply": {"a\0b": 1},
        "glb": {"a": "x"},
    }
    result = edited(folder, lambda content: content.update(exports=records))
    assert not any(_exported(result, name) for name in records)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("content", ["", "[]", "null", "{", "[" * 100_000, '{"input": {}}'])
def test_a_damaged_manifest_is_one_line(content: str, make_result: MakeResult) -> None:
    folder = make_result()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(OutputError, match="damaged depth result"):
        _ = DepthResult(folder).manifest


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Tags(html.parser.HTMLParser):
    """Collects what a browser would run."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handlers += [
            name for name, value in attrs if name.startswith("on") or (value or "").startswith("javascript:")
        ]
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def test_pages_show_hostile_names_as_text(make_result: MakeResult) -> None:
    from stf_depth.export import export_result

    folder = make_result()
    folder = folder.rename(folder.with_name(HOSTILE.replace("/", "_")))

    def change(content: dict[str, object]) -> None:
        content["input"].update(name=HOSTILE, sha256=HOSTILE)  # type: ignore[attr-defined]
        content["config"][HOSTILE] = HOSTILE  # type: ignore[index]
        content["models"] = {
            HOSTILE: {"name": HOSTILE, "licence": HOSTILE, "weights": HOSTILE, "weights_digest": HOSTILE}
        }
        content["software"], content["packages"] = {"name": HOSTILE, "version": HOSTILE}, {HOSTILE: HOSTILE}
        content["seconds_by_stage"], content["peak_memory_mb"] = {HOSTILE: 1.0}, 1.0
        for shot in content["shots"]:  # type: ignore[attr-defined]
            shot["fallback"] = HOSTILE
            shot["camera"]["reason"] = HOSTILE

    result = edited(folder, change)
    (report,) = export_result(result, "report")["report"]
    index = write_index([result], folder.parent / "index.html")
    for page in (report, index):
        text = page.read_text(encoding="utf-8")
        tags = Tags()
        tags.feed(text)
        assert not tags.handlers
        assert not any("alert(" in script for script in tags.scripts)
        assert not re.search(r"<img[^>]*src=x", text)


def test_npz_bombs_are_refused_by_their_stated_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 1, 1), }" % (1 << 24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + bytes(1 << 24))
        archive.writestr("other.npy", bytes(1 << 24))
    usage = type("Usage", (), {"free": 1 << 20})()
    monkeypatch.setattr("stf_depth.perception.depth.map_files.shutil.disk_usage", lambda _path: usage)
    with pytest.raises(InputError, match="no room to unpack"):
        open_maps(path)


def test_arrays_of_an_npz_that_are_not_asked_for_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, depth=np.ones((2, 3, 4), np.float32))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("payload.npy", b"not an array")
    assert len(open_maps(path)) == 2


def test_a_png_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big") * 2
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + bytes([16, 0, 0, 0, 0]))
    (tmp_path / "1.png").write_bytes(start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    with pytest.raises(InputError):
        open_maps(tmp_path).read(0)


def external_graph(folder: Path, location: str) -> Path:
    """An ONNX network whose weights lie in another file."""
    from onnx import TensorProto, helper, save

    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], b"\0\0\x80?", raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("image", "out")]
    graph = helper.make_graph([helper.make_node("Mul", ["image", "w"], ["out"])], "g", ends[:1], ends[1:], [weights])
    path = folder / "net.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("location", ["../secret.bin", "{absolute}", "link.bin"])
def test_onnx_weights_outside_its_folder_are_refused(location: str, tmp_path: Path) -> None:
    from stf_depth.perception.onnx_runtime import open_graph

    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0\0\x80?")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    with pytest.raises(StfDepthError):
        open_graph(external_graph(folder, location.format(absolute=secret)))


def test_onnx_weights_beside_it_are_read(tmp_path: Path) -> None:
    from stf_depth.perception.onnx_runtime import open_graph

    (tmp_path / "weights.bin").write_bytes(b"\0\0\x80?")
    assert open_graph(external_graph(tmp_path, "weights.bin")).source.name == "image"


def test_object_arrays_in_precomputed_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError):
        open_maps(tmp_path / "d.npy")
    (tmp_path / "p.npy").write_bytes(pickle.dumps({"depth": 1}))
    with pytest.raises(InputError):
        open_maps(tmp_path / "p.npy")


def test_the_audit_of_dependencies_is_one_command() -> None:
    rules = (REPOSITORY / "Makefile").read_text()
    # Strict: a package that could not be looked up is a failure, not "no known vulnerabilities".
    assert re.search(r"^audit:.*\n(\t.*\n)*\t.*pip-audit --strict", rules, re.MULTILINE)
