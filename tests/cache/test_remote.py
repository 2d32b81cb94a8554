"""Folders on shared storage: what is fetched, what is sent, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stf_depth.cache.remote import Mirror, is_remote, mirror_of
from stf_depth.errors import ConfigError, MissingExtraError, OutputError

FILES = {
    "depth.zarr/zarr.json": b"{}",
    "depth.zarr/depth/c/0/0/0": b"chunk 0",
    ".progress/done/000000.json": b'{"files":{}}',
    ".progress/complete.json": b'{"frames":1}',
    "manifest.json": b'{"key":"k"}',
}


@pytest.fixture
def storage() -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


@pytest.fixture
def mirror(storage: Any, tmp_path: Path) -> Mirror:
    return Mirror("memory://bucket/results", tmp_path / "copy")


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def stored(storage: Any) -> dict[str, bytes]:
    root = "/bucket/results/"
    return {path[len(root) :]: storage.cat_file(path) for path in storage.find(root)}


def test_what_is_sent_can_be_fetched_elsewhere(storage: Any, mirror: Mirror, tmp_path: Path) -> None:
    known = mirror.pull()
    assert known == {}
    write(mirror.local, {**FILES, ".lock": b"", ".partial-12-manifest.json": b"{"})
    mirror.push(known)
    assert stored(storage) == FILES
    other = Mirror(mirror.url, tmp_path / "other machine")
    other.pull()
    assert {name: (other.local / name).read_bytes() for name in FILES} == FILES


def test_entries_for_folders_are_no_files(storage: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {f"/bucket/results/{name}": {"size": 0} for name in ("", "depth.zarr/")}
    monkeypatch.setattr(type(storage), "find", lambda *_, **__: found)
    assert mirror.pull() == {}


def test_only_what_changed_is_sent_and_what_is_gone_is_removed(storage: Any, mirror: Mirror) -> None:
    write(mirror.local, FILES)
    known = mirror.push({})
    storage.pipe_file("/bucket/results/depth.zarr/depth/c/0/0/0", b"not sent again")
    write(mirror.local, {"manifest.json": b'{"key":"other"}'})
    (mirror.local / ".progress/complete.json").unlink()
    mirror.push(known)
    now = stored(storage)
    assert now["depth.zarr/depth/c/0/0/0"] == b"not sent again"
    assert now["manifest.json"] == b'{"key":"other"}'
    assert ".progress/complete.json" not in now


def test_a_copy_becomes_what_the_storage_holds_now(storage: Any, mirror: Mirror) -> None:
    write(mirror.local, FILES)
    mirror.push({})
    storage.pipe_file("/bucket/results/depth.zarr/depth/c/0/0/0", b"chunk X")  # as long as before
    storage.rm_file("/bucket/results/manifest.json")
    write(mirror.local, {"images/left_over.png": b"?"})
    mirror.pull()
    assert (mirror.local / "depth.zarr/depth/c/0/0/0").read_bytes() == b"chunk X"
    assert not (mirror.local / "manifest.json").exists()
    assert not (mirror.local / "images/left_over.png").exists()


def test_a_file_that_both_sides_have_is_not_fetched_again(
    storage: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(mirror.local, FILES)
    mirror.push({})
    monkeypatch.setattr(type(storage), "get_file", lambda *_, **__: pytest.fail("fetched"))
    assert mirror.pull().keys() == FILES.keys()


@pytest.mark.parametrize("record", ["[]", "{", '{"manifest.json": 3}'])
def test_a_damaged_record_means_that_everything_is_fetched(storage: Any, mirror: Mirror, record: str) -> None:
    write(mirror.local, FILES)
    mirror.push({})
    write(mirror.local, {".remote.json": record.encode(), "manifest.json": b"damaged"})
    mirror.pull()
    assert (mirror.local / "manifest.json").read_bytes() == FILES["manifest.json"]


@pytest.mark.parametrize("name", ["../../evil", "a/../../evil", "a//b", "..\\evil"])
def test_names_that_lead_out_of_the_copy_are_refused(
    storage: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = {f"/bucket/results/{name}": {"size": 3}}
    monkeypatch.setattr(type(storage), "find", lambda *_, **__: found)
    monkeypatch.setattr(type(storage), "get_file", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(OutputError, match="leads out of its folder"):
        mirror.pull()


def test_markers_are_removed_first_and_sent_last(storage: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies while it sends must leave no marker without the files that it speaks of."""
    write(mirror.local, FILES)
    known = mirror.push({})
    write(mirror.local, {name: content + b" again" for name, content in FILES.items()})
    steps: list[tuple[str, str]] = []
    kind = type(storage)
    monkeypatch.setattr(kind, "rm_file", lambda _, path: steps.append(("remove", path.split("results/")[1])))
    monkeypatch.setattr(kind, "put_file", lambda _, __, path: steps.append(("send", path.split("results/")[1])))
    mirror.push(known)
    assert steps == [
        ("remove", "manifest.json"),
        ("remove", ".progress/complete.json"),
        ("remove", ".progress/done/000000.json"),
        ("send", "depth.zarr/depth/c/0/0/0"),
        ("send", "depth.zarr/zarr.json"),
        ("send", ".progress/done/000000.json"),
        ("send", ".progress/complete.json"),
        ("send", "manifest.json"),
    ]


def test_storage_that_fails_is_one_clear_error(storage: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    write(mirror.local, FILES)
    monkeypatch.setattr(type(storage), "put_file", refuse)
    with pytest.raises(OutputError, match=r"shared storage cannot be used: memory://bucket/results .*Access Denied"):
        mirror.push({})


def test_urls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STF_DEPTH_STAGING", str(tmp_path))
    assert is_remote("s3://bucket/a")
    assert not is_remote("data/output")
    assert not is_remote(Path("/data/output"))
    first, same, other = (mirror_of(url) for url in ("s3://bucket/a", "s3://bucket/a/", "s3://bucket/b"))
    assert first == same
    assert first.local.parent == tmp_path
    assert first.local != other.local
    with pytest.raises(ConfigError, match="without a place"):
        mirror_of("s3://")
    with pytest.raises(ConfigError, match="unknown kind of storage"):
        Mirror("nonsense://bucket", tmp_path).pull()


def test_storage_whose_library_is_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=r"s3"):
        Mirror("s3://bucket/a", tmp_path).pull()


def test_a_single_file_is_what_the_storage_holds(storage: Any, mirror: Mirror) -> None:
    write(mirror.local, {"index.html": b"old"})
    mirror.pull_file("index.html")
    assert not (mirror.local / "index.html").exists()
    storage.pipe_file("/bucket/results/index.html", b"new")
    mirror.pull_file("index.html")
    assert (mirror.local / "index.html").read_bytes() == b"new"
