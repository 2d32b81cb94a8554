"""``stf-depth demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    folder: Annotated[Path, typer.Option(help="Where the clip and its result go.")] = Path("demo_output"),
) -> int:
    """Make a small clip on the spot and run the main job on it: offline, without any network."""
    from stf_depth.cli.run import execute
    from stf_depth.synthetic import demo_clip, write_video

    clip = folder / "input" / "demo.mp4"
    if not clip.is_file():
        clip.parent.mkdir(parents=True, exist_ok=True)
        write_video(demo_clip(), clip)
    code = execute(
        [clip],
        output_dir=folder / "output",
        working_dir=folder / "working",
        preset="offline",
        overrides={},
        options={},
        delivery={"exports": ""},
    )
    typer.echo(f"Open {folder / 'output' / 'demo'}: depth.mp4, comparison.mp4, report.html")
    return code
