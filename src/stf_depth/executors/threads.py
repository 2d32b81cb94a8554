"""Threads of numeric libraries, so that several workers can share a machine."""

from __future__ import annotations

import os

from stf_depth.errors import ConfigError

__all__ = ["limit_threads"]

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit_threads(count: int) -> None:
    """Let this process compute with ``count`` threads: PyTorch, OpenCV, and whatever reads the environment later.

    Raises ConfigError for less than one thread.
    """
    if count < 1:
        raise ConfigError("a worker needs a thread", expected=">= 1", got=count)
    import cv2
    import torch

    for variable in _VARIABLES:
        os.environ[variable] = str(count)
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
