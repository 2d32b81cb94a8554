"""Scoring depth: against ground truth, over datasets, and against itself.

    evaluate_sequence(prediction, sequence)        one clip
    evaluate_dataset(name, root, predictions)      a dataset in its native layout
    evaluate_self(result)                          no ground truth
    flicker(disparity, rgb)                        one number for any clip

Every score says under which alignment it holds. Modules load when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stf_depth.evaluation.consistency import flicker
    from stf_depth.evaluation.datasets import DATASETS
    from stf_depth.evaluation.evaluate import (
        ClipScores,
        ScoreOptions,
        evaluate_dataset,
        evaluate_sequence,
        score_prediction,
    )
    from stf_depth.evaluation.metrics import Group, Measure, score_clip
    from stf_depth.evaluation.predictions import ArrayPrediction, open_prediction
    from stf_depth.evaluation.selfcheck import SelfScores, evaluate_self
    from stf_depth.evaluation.sequences import read_sequence

__all__ = [
    "DATASETS",
    "ArrayPrediction",
    "ClipScores",
    "Group",
    "Measure",
    "ScoreOptions",
    "SelfScores",
    "evaluate_dataset",
    "evaluate_self",
    "evaluate_sequence",
    "flicker",
    "open_prediction",
    "read_sequence",
    "score_clip",
    "score_prediction",
]

_HOMES = {
    "DATASETS": "datasets",
    "ArrayPrediction": "predictions",
    "ClipScores": "evaluate",
    "Group": "metrics",
    "Measure": "metrics",
    "ScoreOptions": "evaluate",
    "SelfScores": "selfcheck",
    "evaluate_dataset": "evaluate",
    "evaluate_self": "selfcheck",
    "evaluate_sequence": "evaluate",
    "flicker": "consistency",
    "open_prediction": "predictions",
    "read_sequence": "sequences",
    "score_clip": "metrics",
    "score_prediction": "evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
