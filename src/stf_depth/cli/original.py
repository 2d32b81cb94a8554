"""``python run.py``, the original interface.

Its own options are ``--input_dir``, ``--output_dir``, ``--working_dir`` and ``--visualize``, which turns the images
**off**; every option of ``stf-depth run`` works as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import typer

from stf_depth.cli.common import guarded
from stf_depth.cli.run import run

__all__ = ["main", "translate"]

_EPILOG = "Every option of 'stf-depth run' works here too (see: stf-depth run --help); the default preset is seed."


def main(arguments: Sequence[str] | None = None) -> int:
    """Process every video in the input folder; returns the exit code."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(run)
    return guarded(command, translate(sys.argv[1:] if arguments is None else arguments))


def translate(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``stf-depth run`` that mean the same.

    >>> translate(["--input_dir", "A", "--visualize", "--depth", "motion"])[-4:]
    ['--no-visualize', 'A', '--depth', 'motion']
    """
    parser = argparse.ArgumentParser(
        prog="run.py", description="Fused depth for every video in a folder.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--input_dir", default="./data/input", help="folder of videos")
    parser.add_argument("--output_dir", default="./data/output", help="results, one folder a video")
    parser.add_argument(
        "--working_dir", default="./data/working", help="images and cached inference, one folder a video"
    )
    parser.add_argument("--visualize", action="store_true", help="turn the visualisations OFF (they are on without it)")
    parser.add_argument("--mode", default="offline", help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args(list(arguments))
    folders = ["--output-dir", known.output_dir, "--working-dir", known.working_dir]
    images = ["--no-visualize"] if known.visualize else []
    # A stream keeps nothing to infer from again.
    cache = [] if known.mode == "causal" else ["--inference-pickle"]
    return ["--preset", "seed", "--mode", known.mode, *cache, *folders, *images, known.input_dir, *rest]
