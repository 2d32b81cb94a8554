from __future__ import annotations

import signal
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from stf_depth.errors import ConfigError
from stf_depth.perception.registry import create
from stf_depth.types import Role


def scene(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture of four even surfaces with noise, and their labels."""
    labels = np.zeros((120, 160), int)
    labels[60:], labels[20:90, 30 + shift : 70 + shift] = 1, 2
    cv2.circle(canvas := labels.astype(np.uint8), (120 + shift, 60), 25, 3, -1)
    colours = np.array([[60, 90, 200], [90, 80, 60], [200, 40, 40], [30, 160, 60]])
    noise = np.random.default_rng(1).normal(0, 4, (120, 160, 3))
    return np.clip(colours[canvas] + noise, 0, 255).astype(np.uint8)[None], canvas


def test_even_surfaces_are_found() -> None:
    rgb, labels = scene()
    maps = create("panoptic", "regions").infer(rgb)
    ids = maps.ids[0]
    assert ids.shape == labels.shape and ids.min() == 1
    assert 4 <= ids.max() <= 7
    for label in range(4):
        inside = cv2.erode((labels == label).astype(np.uint8), np.ones((7, 7))) > 0
        values, counts = np.unique(ids[inside], return_counts=True)
        best = values[counts.argmax()]
        assert counts.max() > 0.97 * inside.sum()
        covered = labels[ids == best] == label
        assert covered.mean() > 0.93


def test_regions_are_connected_and_every_one_is_in_the_table() -> None:
    maps = create("panoptic", "regions").infer(scene()[0])
    assert set(maps.tables[0]) == set(np.unique(maps.ids[0]).tolist())
    assert {info.role for info in maps.tables[0].values()} == {Role.UNKNOWN}
    for number in maps.tables[0]:
        assert cv2.connectedComponents((maps.ids[0] == number).astype(np.uint8), connectivity=8)[0] == 2


def test_borders_move_with_the_objects() -> None:
    backend = create("panoptic", "regions")
    first, second = (backend.infer(scene(shift)[0]).ids[0] for shift in (0, 2))

    def borders(ids: np.ndarray) -> np.ndarray:
        edges = np.zeros(ids.shape, np.uint8)
        edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        edges[1:] |= ids[1:] != ids[:-1]
        return edges

    objects = slice(25, 85), slice(20, 150)
    moved = cv2.dilate(np.roll(borders(first), 2, 1), np.ones((3, 3)))[objects]
    assert (moved[borders(second)[objects] > 0] > 0).mean() > 0.85


def test_a_flat_frame_is_one_region() -> None:
    maps = create("panoptic", "regions").infer(np.full((2, 30, 40, 3), 90, np.uint8))
    assert (maps.ids == 1).all() and list(maps.tables[0]) == [1]


def test_large_frames_are_worked_on_smaller() -> None:
    maps = create("panoptic", "regions?long_side=64").infer(np.zeros((1, 100, 200, 3), np.uint8))
    assert maps.ids.shape == (1, 32, 64)


@pytest.fixture
def ten_seconds() -> Iterator[None]:
    """Fail what does not end."""

    def stop(*_: object) -> None:
        raise TimeoutError

    usual = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)


@pytest.mark.usefixtures("ten_seconds")
@pytest.mark.parametrize("wh", [(1, 1), (8, 8), (16, 16), (17, 9), (16, 640), (640, 16), (80, 60)])
def test_a_ramp_even_only_at_the_edge_of_the_frame_is_divided(wh: tuple[int, int]) -> None:
    ramp = 127.5 + 127.5 * np.sin(np.linspace(-np.pi / 2, np.pi / 2, wh[0]))
    frame = np.broadcast_to(ramp[:, None], (wh[1], wh[0], 3)).astype(np.uint8)
    maps = create("panoptic", "regions").infer(frame[None])
    assert maps.ids.min() == 1 and set(maps.tables[0]) == set(np.unique(maps.ids).tolist())


def test_a_larger_merge_gives_fewer_regions(rng: np.random.Generator) -> None:
    rgb = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120))[None]
    counts = [create("panoptic", f"regions?merge={k}").infer(rgb).ids.max() for k in (10, 3000, 100000)]
    assert counts[0] > counts[1] > counts[2]


def test_bad_option() -> None:
    with pytest.raises(ConfigError, match="merge"):
        create("panoptic", "regions?merge=-1")
