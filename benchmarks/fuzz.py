"""Coverage-guided fuzzing of everything of ours that reads what others wrote.

    python benchmarks/fuzz.py specs --seconds 600 --seed 1
    python benchmarks/fuzz.py all --seconds 60

A target may refuse its input with an error of this package; anything else that it raises is a finding, printed with
the input that did it. Needs atheris, which is no dependency of the package: pip install atheris.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Target = Callable[[bytes], None]
SEEDS: dict[str, list[bytes]] = {}
TARGETS: dict[str, Callable[[Path], Target]] = {}
EXIT_WITHOUT_ATHERIS = 3


def target(name: str, *seeds: bytes) -> Callable[[Callable[[Path], Target]], Callable[[Path], Target]]:
    """Register a maker of a target; it receives an empty folder for the files of the inputs."""

    def register(make: Callable[[Path], Target]) -> Callable[[Path], Target]:
        SEEDS[name], TARGETS[name] = list(seeds), make
        return make

    return register


def expected_errors() -> tuple[type[BaseException], ...]:
    """What a target may raise."""
    from stf_depth.errors import StfDepthError

    return (StfDepthError,)


@target("specs", b"onnx:a.onnx?representation=z_depth&ambiguity=metric", b"hf:Intel/dpt-large", b"~x", b"none")
def specs(_folder: Path) -> Target:
    """Backend specifications and lists of formats."""
    from stf_depth.export import parse_formats
    from stf_depth.perception.specs import parse_spec

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for parse in (parse_spec, parse_formats):
            try:
                parse(text)
            except expected_errors():
                pass

    return run


@target("config", b"fusion.mode=flow", b"video.output_wh=64,48", b"geometry.enabled=\x00", b"video.cut_threshold=1e999")
def config(_folder: Path) -> Target:
    """``--set`` and ``--size``."""
    from stf_depth.cli.run import assignments, parse_size
    from stf_depth.config import preset

    base = preset("offline")
    keys = [f"{name}.{key}" for name, part in base.model_dump().items() if isinstance(part, dict) for key in part]

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        chosen = keys[zlib.crc32(data) % len(keys)]
        for pair in (text, f"{chosen}={text}"):
            try:
                values = base.with_values(assignments([pair]))
                json.dumps(values.model_dump(mode="json"), allow_nan=False)
            except expected_errors():
                pass
        try:
            parse_size(text)
        except expected_errors():
            pass

    return run


CAMERA = (
    b'{"kind":"parallax","intrinsics":[50,50,32,24,64,48],"world_from_cam":[[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]],'
    b'"solved":[true],"reliability":[1.0],"inlier_fraction":0.9,"triangulation_angle_degrees":2.0,'
    b'"reprojection_error_px":0.3,"reason":""}'
)
MANIFEST = (
    b'{"input":{"path":"a.mp4","pts_seconds":[0,1]},"config":{"seed":1},"models":{"depth":{}},"shots":[{"start":0,"stop":1,'
    b'"fallback":null,"camera":'
    + CAMERA
    + b'}],"stages":{"depth":{"path":"/tmp","key":"k"}},"exports":{"mp4":{"files":{}}}}'
)


@target("manifest", b"{}", MANIFEST)
def manifest(folder: Path) -> Target:
    """Opening a result folder whose manifest anybody wrote."""
    from stf_depth.result import DepthResult

    (folder / "depth.zarr").mkdir()

    def run(data: bytes) -> None:
        (folder / "manifest.json").write_bytes(data)
        result = DepthResult(folder)
        for read in ("manifest", "shots", "cameras", "source"):
            try:
                getattr(result, read)
            except expected_errors():
                pass
        try:
            result.stage("depth")
        except expected_errors():
            pass

    return run


@target("store", b'{"files":{"depth/c/0/0/0":10},"extra":[]}', b'{"frames":3}', b'{"key":"k","chunk_frames":4}')
def store(folder: Path) -> Target:
    """A stage of the cache whose marker, ending, identity or metadata is damaged."""
    import numpy as np

    from stf_depth.cache.store import StageStore

    files = ("done/000000.json", "complete.json", "identity.json", "data.zarr/zarr.json", "data.zarr/depth/zarr.json")

    def run(data: bytes) -> None:
        shutil.rmtree(folder / "stage", ignore_errors=True)
        stage = StageStore(folder / "stage", "k", chunk_frames=4)
        stage.write(0, {"depth": np.ones((4, 2, 2), np.float32)}, [1])
        stage.finish(4)
        (folder / "stage" / files[zlib.crc32(data) % len(files)]).write_bytes(data)
        try:
            again = StageStore(folder / "stage", "k", chunk_frames=4)
            if again.is_complete:
                again.frames("depth")[0]
        except expected_errors():
            pass

    return run


@target("pickle", b"\x80\x03}q\x00.", b"\x80\x03cnumpy\nndarray\n.", b"cos\nsystem\n(S'true'\ntR.")
def unpickler(folder: Path) -> Target:
    """The restricted unpickler; what it accepts must be a dict of builtins and arrays."""
    from stf_depth.cache.inference_pickle import read_inference_pickle

    path = folder / "infer_result.pkl"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            content = read_inference_pickle(path)
        except expected_errors():
            return
        if not isinstance(content, dict):
            raise AssertionError(f"accepted {type(content)}")

    return run


@target("npz", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }")
def npz(folder: Path) -> Target:
    """Arrays of precomputed depth: the header inside .npz and .npy, and the archive itself."""
    import zipfile

    import numpy as np

    from stf_depth.perception.depth.map_files import open_maps

    def npy(array: Any) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    paths = [folder / "inside.npz", folder / "raw.npz", folder / "raw.npy"]
    good = {"depth": npy(np.ones((2, 3, 4), np.float32)), "valid": npy(np.ones((2, 3, 4), bool))}

    def run(data: bytes) -> None:
        name = ("depth", "valid", "pts_seconds", "representation")[zlib.crc32(data) % 4]
        with zipfile.ZipFile(paths[0], "w") as archive:
            for key, content in {**good, name: data}.items():
                archive.writestr(f"{key}.npy", content)
        paths[1].write_bytes(data)
        paths[2].write_bytes(data)
        for path in paths:
            try:
                maps = open_maps(path)
                maps.read(0)
            except expected_errors():
                pass

    return run


@target("png16", b"scale\x000.001", b"representation\x00disparity", b"unknown_code\x000", b"infinite_code\x0065535")
def png16(folder: Path) -> Target:
    """Metadata of depth images: text chunks of any name and value, and damaged files."""
    import numpy as np
    from PIL import Image

    from stf_depth.perception.depth.map_files import MapFolder

    buffer = io.BytesIO()
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3)).save(buffer, "PNG")
    plain = buffer.getvalue()
    words = [b"scale", b"offset", b"unknown_code", b"infinite_code", b"representation", b"ambiguity", b"unit_m"]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    def run(data: bytes) -> None:
        word = words[zlib.crc32(data) % len(words)] + b"\0"
        text = chunk(b"tEXt", data) + chunk(b"tEXt", word + data) + chunk(b"zTXt", data) + chunk(b"iTXt", data)
        for content in (plain[:33] + text + plain[33:], plain[: len(data) % len(plain)] + data):
            (folder / "1.png").write_bytes(content)
            try:
                MapFolder(folder).read(0)
            except expected_errors():
                pass

    return run


@target("exr", b"representation\x00disparity", b"ambiguity\x00metric", b"R.Z", b"depth", b"\xff\x00\xff")
def exr(folder: Path) -> Target:
    """Metadata of OpenEXR depth: attributes and channel names of any text, and bytes that are replaced."""
    import numpy as np
    import OpenEXR

    from stf_depth.perception.depth.map_files import MapFolder

    path, plain = folder / "1.exr", folder / "plain"
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    attributes = {"compression": OpenEXR.NO_COMPRESSION, "representation": "z" * 40, "ambiguity": "a" * 40}
    OpenEXR.File(attributes, {"Z": values}).write(str(path))
    whole = path.read_bytes()
    plain.write_bytes(whole)

    def run(data: bytes) -> None:
        place = zlib.crc32(data) % len(whole)
        text = data[:40].ljust(40, b"z")
        for content in (whole[:place] + data + whole[place + len(data) :], whole.replace(b"z" * 40, text), data):
            path.write_bytes(content)
            try:
                MapFolder(folder).read(0)
            except expected_errors():
                pass

    return run


@target("names", b"frame_0001.png\0frame_0003.png", "1\u00b22.png\0\u0663.png".encode(), b"../../etc/passwd\0con")
def names(folder: Path) -> Target:
    """Names of images, videos and folders: order, gaps, and what they become on the disk."""
    from stf_depth.ordering import natural_key
    from stf_depth.video.discover import safe_name, unique_name
    from stf_depth.video.sequence import _gaps

    def run(data: bytes) -> None:
        found = [name for name in data.decode("utf-8", "surrogateescape").split("\0") if name and "/" not in name]
        ordered = sorted(found, key=natural_key)
        _gaps(tuple(ordered))
        taken: set[str] = set()
        for label in data.decode("utf-8", "surrogateescape").split("\0"):
            name = unique_name(safe_name(label), None, taken)
            inside = (folder / name).parent == folder and name not in (".", "..") and len(name.encode()) < 200
            if not inside or re.search(r"[\\/\x00]", name):
                raise AssertionError(f"{label!r} became {name!r}")

    return run


@target("roles", b'{"1":{"name":"sky","role":"sky"}}', b"[" * 3000, b'{"1":{"role":"mover","is_thing":1}}')
def roles(folder: Path) -> Target:
    """``roles.json`` beside masks."""
    from stf_depth.perception.panoptic.precomputed import _read_roles

    path = folder / "roles.json"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            _read_roles(path)
        except expected_errors():
            pass

    return run


@target(
    "weights",
    b"\x02\0\0\0\0\0\0\0{}",
    b'\x22\0\0\0\0\0\0\0{"a":{"data_offsets":[0,4],"dtype":1}}',
    b'{"architectures":["DPTForDepthEstimation"],"weight_map":{"a":"model.safetensors"}}',
)
def weights(folder: Path) -> Target:
    """The JSON files and the header of safetensors of a checkpoint."""
    from stf_depth.perception.weights import find_checkpoint

    names = ("config.json", "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json")

    def run(data: bytes) -> None:
        for name in names:
            for other in names[:2]:
                (folder / other).write_bytes(b"{}" if other == names[0] else b"\x02\0\0\0\0\0\0\0{}")
            (folder / name).write_bytes(data)
            try:
                found = find_checkpoint(str(folder), "fuzzed")
                found.require(("DPTForDepthEstimation",))
                found.preprocessing.get("size")
            except expected_errors():
                pass
            (folder / name).unlink()

    return run


def dictionary(seeds: list[bytes]) -> str:
    """Words of the seeds and of JSON in libFuzzer's notation: they pass comparisons that lie behind C code."""
    words = {word for seed in seeds for word in re.findall(rb"[A-Za-z_]{3,40}", seed)}
    values = [
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"[[",
        b"-1",
        b"1e999",
        b"NaN",
        b'"\\ud800"',
        b'"\\u0000"',
        b"9" * 25,
        b'":',
    ]
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in [*sorted(words), *values])
    return "".join(f'"{word}"\n' for word in quoted)


def replay(name: str, inputs: list[bytes]) -> None:
    """Run a target on given inputs, without atheris; raises what the target raises."""
    with tempfile.TemporaryDirectory(prefix="stf-depth-fuzz-") as folder:
        run = TARGETS[name](Path(folder))
        for data in inputs:
            run(data)


def fuzz(name: str, seconds: int, seed: int) -> None:
    """Fuzz one target; the process ends with it, by a non-zero code after a finding."""
    import atheris

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="stf-depth-fuzz-") as folder:
        corpus, place, words = (Path(folder) / name for name in ("corpus", "files", "words.txt"))
        corpus.mkdir()
        place.mkdir()
        for number, data in enumerate(SEEDS[name]):
            (corpus / str(number)).write_bytes(data)
        words.write_text(dictionary(SEEDS[name]))
        # Only what is imported for the first time in here is followed by coverage.
        with atheris.instrument_imports(include=["stf_depth"], enable_loader_override=False):
            import stf_depth.api
            import stf_depth.export  # noqa: F401

            run = atheris.instrument_func(TARGETS[name](place))
        settings = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096", "-rss_limit_mb=4096", "-timeout=60"]
        places = [f"-artifact_prefix={tempfile.gettempdir()}/stf-depth-{name}-", f"-dict={words}", str(corpus)]
        atheris.Setup([sys.argv[0], *settings, "-use_value_profile=1", "-print_final_stats=1", *places], run)
        atheris.Fuzz()


def _one_by_one(seconds: int, seed: int) -> int:
    worst = 0
    for name in TARGETS:
        command = [sys.executable, __file__, name, "--seconds", str(seconds), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        executed = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        verdict = "no finding" if done.returncode == 0 else f"FINDING\n{done.stderr[-3000:]}"
        sys.stdout.write(f"{name}: {executed[1] if executed else '?'} inputs in {seconds} s: {verdict}\n")
        sys.stdout.flush()
        worst = max(worst, int(done.returncode != 0))
    return worst


def main() -> Any:
    """Fuzz one target or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("error: atheris is not installed. Run: pip install atheris\n")
        return EXIT_WITHOUT_ATHERIS
    if options.target == "all":
        return _one_by_one(options.seconds, options.seed)
    return fuzz(options.target, options.seconds, options.seed)


if __name__ == "__main__":
    sys.exit(main())
