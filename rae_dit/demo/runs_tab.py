"""The page's tab of runs: a table, curves, differing settings and pictures, while they train."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from rae_dit.demo.curves import draw_curves
from rae_dit.demo.drawing import message_of
from rae_dit.demo.runs import RunsFolder, differences, scores
from rae_dit.demo.runs_table import HEADERS, cells
from rae_dit.demo.shelf import Shelf

SECONDS = 5  # between two looks at the runs
SHOWN = 8  # runs that are chosen at first
LARGEST_PICTURE = 2**25  # bytes
PICTURES = 12  # of a run, the newest
TURNS = {"concurrency_limit": 1, "concurrency_id": "runs", "show_progress": "hidden"}
LOSS = "train/loss"
WIDTHS = (12, 14, 14, 9, 9, 12, 12, 10, 8)  # of the columns of `HEADERS`, in percent


@dataclasses.dataclass(frozen=True)
class RunsView:
    """What the tab shows.

    Attributes:
        message: what is wrong with runs, in one line.
        chosen: runs that are compared.
        table: rows of `HEADERS`.
        metrics: names that can be drawn.
        curves: picture of the chosen metric.
        scores: picture of FID, or Frechet distance, by step; None where there is none.
        differences: field, then the value in each of the chosen runs.
    """

    message: str
    chosen: list[str]
    table: list[list[str]]
    metrics: list[str]
    curves: np.ndarray
    scores: np.ndarray | None
    differences: list[list[str]]


def view_runs(folder: RunsFolder, chosen: Sequence[str] | None, metric: str) -> RunsView:
    """Reads the runs and draws the chosen ones.

    Args:
        folder: the runs.
        chosen: names; None for those that wrote metrics last.
        metric: to draw.

    Raises:
        ConfigError: a chosen run is not there.
    """
    names = folder.names()
    rows = [folder.row(name) for name in names]
    problems = [row.problem for row in rows if row.problem]
    if chosen is None:
        ages = {row.name: row.age for row in rows if row.age is not None and not row.problem}
        chosen = sorted(sorted(ages, key=lambda name: ages[name])[:SHOWN])
    logs = {name: folder.log(name).series for name in chosen}
    metrics = sorted({name for series in logs.values() for name in series}) or [LOSS]
    curves = {name: series.get(metric, []) for name, series in logs.items()}
    judged = {
        f"{name} {score.removeprefix('eval/')}": series[score]
        for name, series in logs.items()
        for score in scores(series)[:1]
    }
    configs = {}
    for name in chosen:
        try:
            configs[name] = folder.config(name)
        except ValueError:  # the table says it
            configs[name] = {}
    return RunsView(
        "; ".join(problems) if names else f"no runs below {folder.root}",
        list(chosen),
        cells(rows),
        metrics,
        draw_curves(curves, metric, logarithmic="loss" in metric),
        draw_curves(judged, "distance to real images", logarithmic=False) if judged else None,
        differences(configs),
    )


def runs_tab(folder: RunsFolder, page: gr.Blocks, shelf: Shelf) -> None:
    """Lays out the tab.

    Args:
        folder: the runs.
        page: that the tab is part of.
        shelf: for the files that it shows.
    """
    names = folder.names()
    gr.Markdown(f"Runs below `{folder.root}`")
    follow = gr.Checkbox(True, label=f"Follow: read again every {SECONDS} s", elem_id="follow")
    table = gr.Dataframe(
        headers=HEADERS,
        interactive=False,
        wrap=True,
        column_widths=[f"{share}%" for share in WIDTHS],
        elem_id="runs",
        label="Runs",
    )
    with gr.Row():
        chosen = gr.Dropdown(names, value=[], multiselect=True, label="Compare", elem_id="chosen")
        metric = gr.Dropdown(
            [LOSS], value=LOSS, allow_custom_value=True, label="Curve of", elem_id="metric"
        )
    with gr.Row():
        curves, judged = (
            gr.Image(
                show_label=False,
                interactive=False,
                buttons=["fullscreen", "download"],
                height=340,
                elem_id=name,
            )
            for name in ("curves", "scores")
        )
    unequal = gr.Dataframe(
        interactive=False, wrap=True, label="Settings that differ", elem_id="differences"
    )
    with gr.Row():
        drawn = gr.Dropdown(names, value=None, label="Samples of the EMA of", elem_id="drawn")
    pictures = gr.Gallery(
        label="by step, newest first",
        columns=3,
        interactive=False,
        buttons=["fullscreen", "download"],
        elem_id="by_step",
    )
    message = gr.Textbox(label="Message", interactive=False, elem_id="messageRuns")
    seen = gr.State(())
    timer = gr.Timer(SECONDS)
    shown = [message, table, chosen, drawn, metric, curves, judged, unequal]

    def refresh(runs: list[str], name: str) -> list[Any]:
        return refreshed(folder, runs or [], name, shelf)

    def look(always: bool, run: str, before: tuple[str, ...]) -> tuple[Any, Any]:
        return new_pictures(folder, run, () if always else before, shelf)

    def begin() -> list[Any]:
        return refreshed(folder, None, LOSS, shelf)

    page.load(begin, None, shown, api_visibility="private", **TURNS)
    for event in (timer.tick, chosen.change, metric.change):
        event(refresh, [chosen, metric], shown, api_visibility="private", **TURNS)
    for event, always in ((drawn.change, True), (timer.tick, False)):
        event(
            functools.partial(look, always),
            [drawn, seen],
            [pictures, seen],
            api_visibility="private",
            **TURNS,
        )
    follow.change(
        lambda on: gr.Timer(active=bool(on)), follow, timer, queue=False, api_visibility="private"
    )


def refreshed(folder: RunsFolder, runs: list[str] | None, metric: str, shelf: Shelf) -> list[Any]:
    """Returns the values of the tab's fields; a mistake is a message.

    Args:
        folder: the runs.
        runs: that are chosen; None chooses them.
        metric: to draw.
        shelf: for the files that it shows.
    """
    try:
        view = view_runs(folder, runs, metric)
    except Exception as error:
        return [message_of(error), *[gr.skip()] * 7]
    names = [row[0] for row in view.table]
    headers = ["field", *view.chosen]
    first = view.chosen[0] if view.chosen else None
    return [
        view.message,
        view.table,
        gr.Dropdown(choices=names) if runs is not None else gr.Dropdown(names, value=view.chosen),
        gr.Dropdown(choices=names) if runs is not None else gr.Dropdown(names, value=first),
        gr.Dropdown(choices=view.metrics),
        shelf.image(view.curves),
        gr.Image(
            value=None if view.scores is None else shelf.image(view.scores),
            visible=view.scores is not None,
        ),
        gr.Dataframe(value=view.differences, headers=headers),
    ]


def new_pictures(
    folder: RunsFolder, run: str | None, before: tuple[str, ...], shelf: Shelf
) -> tuple[Any, tuple[str, ...]]:
    """Returns the newest pictures of a run, if they are not those of before, and their names."""
    if not run:
        return [], ()
    try:
        found = folder.pictures(run)[:PICTURES]
    except ValueError:
        return [], ()
    names = (run, *(path.name for _, path in found))
    if names == before:
        return gr.skip(), names
    files = [(step, path, content_of(path)) for step, path in found]
    images = [
        (shelf.keep(content, path.name), f"step {step:,}")
        for step, path, content in files
        if content
    ]
    return images, names


def content_of(path: Path) -> bytes | None:
    """Returns the content of a PNG file; None where it is being removed, damaged or huge."""
    try:
        if path.stat().st_size > LARGEST_PICTURE:
            return None
        with Image.open(path, formats=("PNG",)) as picture:
            picture.verify()
        return path.read_bytes()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
