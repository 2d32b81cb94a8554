"""Windows of one video: frames that are worked on apart from the rest, in folders of their own, and brought together.

A window is filled under the keys of the whole video, in a folder with its own lock and its own stores: two workers
never write to one file. The video's own run takes the chunks over and does what is missing, so that windows can only
save time: one that fails or is never filled costs nothing but the head start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from stf_depth.cache.lock import folder_lock
from stf_depth.pipeline.plan import VideoFolders, VideoPlan
from stf_depth.pipeline.progress import Reporter

__all__ = ["Window", "cut_windows", "gather_windows", "locked"]


@dataclass(frozen=True)
class Window:
    """Frames ``start`` to ``stop`` of a video, whole chunks, for some of its stages.

    stop is None for a window that goes on to the end, wherever that proves to be. input_digest: of the whole video.
    """

    start: int
    stop: int | None
    stages: tuple[str, ...]
    input_digest: str

    def __str__(self) -> str:
        return f"{', '.join(self.stages)} from frame {self.start}" + (f" to {self.stop}" if self.stop else "")

    def folders(self, video: VideoFolders) -> VideoFolders:
        """Where the window is filled."""
        return replace(video, working=video.windows / f"{self.start:08d}")


def cut_windows(missing: Sequence[int], pieces: int) -> list[tuple[int, int]]:
    """Runs (first, last + 1) of consecutive chunks that hold every missing chunk once, about equally many each.

    missing: chunks in increasing order. There are ``pieces`` runs, and more where what is missing has gaps.

    >>> cut_windows([0, 1, 2, 3, 4, 5, 6], 2)
    [(0, 4), (4, 7)]
    >>> cut_windows([0, 1, 5, 6], 2)
    [(0, 2), (5, 7)]
    """
    runs: list[list[int]] = []
    previous = None
    for number, chunk in enumerate(missing):
        piece = number * pieces // len(missing)
        if previous != (piece, chunk - 1):
            runs.append([])
        runs[-1].append(chunk)
        previous = piece, chunk
    return [(run[0], run[-1] + 1) for run in runs]


@contextmanager
def locked(folders: VideoFolders) -> Iterator[None]:
    """Hold a video: its working folder, its output and its windows. Raises LockedError as ``folder_lock`` does."""
    with ExitStack() as stack:
        # Windows first: the lock of the working folder clears unfinished files at any depth.
        for window in folders.window_folders():
            stack.enter_context(folder_lock(window))
        stack.enter_context(folder_lock(folders.working))
        if folders.output.resolve() != folders.working.resolve():
            stack.enter_context(folder_lock(folders.output))
        yield


def gather_windows(plan: VideoPlan, name: str, reporter: Reporter) -> None:
    """Take over what windows have filled, and remove them. The caller holds the video, see ``locked``."""
    windows = plan.folders.window_folders()
    for folder in windows:
        part = replace(plan, folders=replace(plan.folders, working=folder))
        for stage in plan.keys:
            if part.stage_folder(stage).is_dir():
                plan.store(stage).adopt(part.store(stage))
    if windows:
        # Shared storage is sent the chunks at this moment: it has them in their place before they go from the windows.
        reporter.stage(name, "gathering", None)
        plan.folders.clear_windows()
