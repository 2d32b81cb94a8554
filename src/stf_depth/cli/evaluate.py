"""``stf-depth evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stf_depth.cli.common import is_given
from stf_depth.errors import ConfigError

if TYPE_CHECKING:
    from stf_depth.evaluation.evaluate import ClipScores
    from stf_depth.evaluation.selfcheck import SelfScores

__all__ = ["evaluate"]


# What scores are made against -> the options that it has a use for.
_USED_WITH = {
    "self_check": ("masks", "plot"),
    "sequence": ("prediction", "frame_map", "representation", "ambiguity"),
    "dataset": ("prediction", "root", "setting", "view", "representation", "ambiguity"),
}
_NAMES = {"prediction": "PREDICTION", "self_check": "--self"}


def evaluate(
    ctx: typer.Context,
    prediction: Annotated[
        Path | None, typer.Argument(help="A result folder, an npz, or a folder of predictions.")
    ] = None,
    sequence: Annotated[Path | None, typer.Option(help="Folder with color, depth, poses.txt, intrinsics.txt.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of a benchmark; needs --root.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the benchmark's data, in its native layout.")] = None,
    self_check: Annotated[
        Path | None, typer.Option("--self", help="Score a result folder without ground truth.")
    ] = None,
    setting: Annotated[
        str | None, typer.Option(help="With --dataset: short, long, tae or all, where the dataset has it.")
    ] = None,
    view: Annotated[str, typer.Option(help="Whether predictions are full or cropped as the dataset is.")] = "full",
    frame_map: Annotated[
        Path | None,
        typer.Option(help="With --sequence: a file with the predicted frame of each of its frames, -1 for none."),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="With --self: masks that fusion has not seen.")] = None,
    representation: Annotated[
        str | None, typer.Option(help="disparity or z_depth, where the file does not say.")
    ] = None,
    ambiguity: Annotated[str | None, typer.Option(help="affine, scale or metric, where the file does not say.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="With --self: write flicker over time to this PNG.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Score depth against ground truth, or a result against itself."""
    _refuse_unused([name for name in ctx.params if is_given(ctx, name)])
    scores: ClipScores | SelfScores
    if self_check is not None:
        scores = _self_scores(self_check, masks, plot)
    elif prediction is None:
        raise ConfigError("nothing to score", expected="PREDICTION with --sequence or --dataset, or --self RESULT")
    else:
        meaning = {"representation": representation, "ambiguity": ambiguity}
        if sequence is not None:
            scores = _sequence_scores(prediction, sequence, frame_map, meaning)
        elif dataset is not None and root is not None:
            scores = _dataset_scores(prediction, dataset, root, setting, view, meaning)
        else:
            raise ConfigError("no ground truth", expected="--sequence DIR, or --dataset NAME --root DIR")
    if as_json is not None:
        scores.write_json(as_json)
    typer.echo(scores.markdown() if markdown else scores.text())


def _refuse_unused(given: Sequence[str]) -> None:
    """Raise ConfigError for options that would be ignored. given: the parameters on the command line."""
    against = [name for name in _USED_WITH if name in given]
    if len(against) > 1:
        raise ConfigError("one thing to score against at a time", got=" and ".join(map(_option, against)))
    for chosen in against:
        known = {chosen, *_USED_WITH[chosen], "as_json", "markdown"}
        unused = [_option(name) for name in given if name not in known]
        if unused:
            usable = ", ".join(map(_option, _USED_WITH[chosen]))
            what = f"{_option(chosen)} has no use for {', '.join(unused)}"
            raise ConfigError(what, expected=usable, hint="Leave it out")


def _option(name: str) -> str:
    return _NAMES.get(name, f"--{name.replace('_', '-')}")


def _self_scores(result: Path, masks: Path | None, plot: Path | None) -> SelfScores:
    from stf_depth.evaluation import evaluate_self

    scores = evaluate_self(result, masks=masks)
    if plot is not None:
        scores.plot(plot)
    return scores


def _sequence_scores(
    prediction: Path, sequence: Path, frame_map: Path | None, meaning: dict[str, str | None]
) -> ClipScores:
    from stf_depth.evaluation import evaluate_sequence
    from stf_depth.evaluation.sequences import read_frame_map

    mapping = None if frame_map is None else read_frame_map(frame_map)
    return evaluate_sequence(
        prediction,
        sequence,
        representation=meaning["representation"],
        ambiguity=meaning["ambiguity"],
        frame_map=mapping,
    )


def _dataset_scores(
    predictions: Path, dataset: str, root: Path, setting: str | None, view: str, meaning: dict[str, str | None]
) -> ClipScores:
    from stf_depth.evaluation import ScoreOptions, evaluate_dataset

    options = ScoreOptions.of({"view": view})
    return evaluate_dataset(
        dataset,
        root,
        predictions,
        setting=setting,
        representation=meaning["representation"],
        ambiguity=meaning["ambiguity"],
        options=options,
    )
