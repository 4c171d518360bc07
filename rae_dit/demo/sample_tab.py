"""The page's tab of samples: one or two columns of settings, images, the way from noise."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from rae_dit.demo.catalog import Catalog
from rae_dit.demo.drawing import Choice, View, draw, message_of
from rae_dit.demo.model import Model
from rae_dit.demo.settings import class_choices, methods
from rae_dit.demo.shelf import Shelf

DEVICE = {"concurrency_limit": 1, "concurrency_id": "device"}  # visitors take turns
FIELDS = 7  # of a column, those of `Choice`


def sample_tab(catalog: Catalog, model: Model, shelf: Shelf) -> list[gr.Dropdown]:
    """Lays out the tab.

    Args:
        catalog: models to choose from.
        model: the first one, loaded.
        shelf: for the files that it shows.

    Returns:
        The two fields of a model, whose choices grow while a run trains.
    """
    with gr.Row():
        classes = gr.Dropdown(
            class_choices(model.class_names),
            multiselect=True,
            allow_custom_value=True,
            label="Classes (none: all of them)",
            info="names, numbers or ranges such as 3-5",
            scale=3,
            elem_id="classes",
        )
        number = gr.Number(8, label="Images", precision=None, elem_id="number")
        seed = gr.Number(0, label="Seed", precision=None, elem_id="seed")
    compare = gr.Checkbox(False, label="Compare two settings, with the same noise", elem_id="two")
    with gr.Row():
        with gr.Column():
            fields_a = column("A", catalog, model)
        with gr.Column(visible=False) as second:
            fields_b = column("B", catalog, model)
    with gr.Row():
        start = gr.Button("Draw", variant="primary", elem_id="draw")
        stop = gr.Button("Cancel", elem_id="cancel")
    message = gr.Textbox(label="Message", interactive=False, elem_id="message")
    with gr.Row():
        gallery_a = images("A")
        gallery_b = images("B", visible=False)
    strip_a = way("A")
    strip_b = way("B", visible=False)
    commands = gr.Textbox(
        label="Commands that make these images",
        interactive=False,
        lines=2,
        buttons=["copy"],
        elem_id="command",
    )
    download = gr.DownloadButton("PNG files (zip)", interactive=False, elem_id="download")
    shown = [message, gallery_a, gallery_b, strip_a, strip_b, commands, download]

    def press(
        classes: list[str], number: Any, seed: Any, compare: bool, *fields: Any
    ) -> Iterator[tuple[Any, ...]]:
        chosen = [Choice(*fields[:FIELDS])] + [Choice(*fields[FIELDS:])] * bool(compare)
        for view in draw(catalog, chosen, classes=classes or [], number=number, seed=seed):
            yield outputs(view, shelf)

    drawing = start.click(
        press,
        [classes, number, seed, compare, *fields_a, *fields_b],
        shown,
        show_progress="minimal",
        api_visibility="private",
        **DEVICE,
    )
    stop.click(
        lambda: "canceled; images that were being made end with their batch",
        None,
        message,
        cancels=[drawing],
        queue=False,
        api_visibility="private",
    )
    compare.change(
        lambda two: [gr.update(visible=bool(two))] * 3,
        compare,
        [second, gallery_b, strip_b],
        queue=False,
        api_visibility="private",
    )
    for fields in (fields_a, fields_b):
        fields[0].change(
            lambda name: defaults_of(catalog, name),
            fields[0],
            [message, *fields[1:]],
            api_visibility="private",
            **DEVICE,
        )
    return [fields_a[0], fields_b[0]]


def column(name: str, catalog: Catalog, model: Model) -> list[Any]:
    """Lays out the settings of one column, in the order of `Choice`."""
    sample = model.sample
    chosen = gr.Dropdown(
        catalog.names(),
        value=catalog.names()[0],
        allow_custom_value=True,
        label=f"Model {name}",
        elem_id=f"model{name}",
    )
    with gr.Row():
        method = gr.Dropdown(
            methods(model), value=sample.method, label="Solver", elem_id=f"method{name}"
        )
        steps = gr.Number(sample.num_steps, label="Steps", elem_id=f"steps{name}")
    with gr.Row():
        guidance = gr.Dropdown(
            model.guidance_kinds,
            value=chosen_guidance(model),
            label="Guidance",
            elem_id=f"guidance{name}",
        )
        scale = gr.Number(sample.cfg_scale, label="Scale (1 is none)", elem_id=f"scale{name}")
    with gr.Row():
        low = gr.Number(sample.cfg_interval[0], label="Guided from time", elem_id=f"low{name}")
        high = gr.Number(sample.cfg_interval[1], label="to time", elem_id=f"high{name}")
    return [chosen, method, steps, guidance, scale, low, high]


def images(name: str, *, visible: bool = True) -> gr.Gallery:
    """Lays out the images of a column."""
    return gr.Gallery(
        label=f"Images {name}",
        columns=4,
        height=420,
        object_fit="contain",
        format="png",
        interactive=False,
        visible=visible,
        buttons=["fullscreen", "download"],
        elem_id=f"gallery{name}",
    )


def way(name: str, *, visible: bool = True) -> gr.Image:
    """Lays out the strip of a column."""
    return gr.Image(
        label=f"From noise to image, the first of {name}",
        format="png",
        interactive=False,
        visible=visible,
        buttons=["fullscreen", "download"],
        elem_id=f"strip{name}",
    )


def chosen_guidance(model: Model) -> str:
    """Returns the kind of guidance that a model's config samples with."""
    kind = model.sample.guidance
    guided = model.sample.cfg_scale != 1 and kind in model.guidance_kinds
    return kind if guided else "none"


def defaults_of(catalog: Catalog, name: str) -> list[Any]:
    """Returns a message and the settings of another model for the fields of its column."""
    try:
        model = catalog.load(name)
    except Exception as error:
        return [message_of(error), *[gr.skip()] * (FIELDS - 1)]
    sample = model.sample
    kinds = gr.Dropdown(choices=model.guidance_kinds, value=chosen_guidance(model))
    low, high = sample.cfg_interval
    solver = gr.Dropdown(choices=methods(model), value=sample.method)
    return ["", solver, sample.num_steps, kinds, sample.cfg_scale, low, high]


def outputs(view: View, shelf: Shelf) -> tuple[Any, ...]:
    """Returns the values of the tab's fields for a view."""
    strips = [None if strip is None else shelf.image(strip) for strip in view.strips]
    ready = view.archive is not None
    path = None if view.archive is None else shelf.keep(view.archive, "images.zip")
    return (
        view.message,
        shown_in(view, 0, shelf),
        shown_in(view, 1, shelf),
        *[*strips, None, None][:2],
        "\n".join(view.commands),
        gr.DownloadButton(value=path, interactive=ready),
    )


def shown_in(view: View, column: int, shelf: Shelf) -> list[tuple[str, str]]:
    """Returns file and caption of each image of a column."""
    return [(shelf.image(image), caption) for image, caption in view.gallery(column)]
