"""The page's tab of reconstructions: a picture, its reconstruction, their difference."""

from pathlib import Path
from typing import Any

import gradio as gr

from rae_dit.demo.catalog import Catalog
from rae_dit.demo.drawing import message_of
from rae_dit.demo.images import enlarged
from rae_dit.demo.sample_tab import DEVICE
from rae_dit.demo.shelf import Shelf
from rae_dit.demo.uploads import read_picture, reconstruct

Answer = tuple[str, str | None, str | None, str | None]


def reconstruct_tab(catalog: Catalog, shelf: Shelf, most_bytes: int) -> gr.Dropdown:
    """Lays out the tab; returns the field of the model.

    Args:
        catalog: models to choose from.
        shelf: for the files that it shows.
        most_bytes: size of a picture's file that is allowed.
    """
    names = catalog.names()
    with gr.Row():
        model = gr.Dropdown(
            names, value=names[0], allow_custom_value=True, label="Model", elem_id="modelR"
        )
        upload = gr.File(
            label=f"A picture, at most {most_bytes / 1e6:.0f} MB",
            file_types=["image"],
            type="filepath",
            elem_id="upload",
        )
    message = gr.Textbox(label="Message", interactive=False, elem_id="messageR")
    with gr.Row():
        shown = [
            gr.Image(
                label=label,
                interactive=False,
                buttons=["fullscreen", "download"],
                height=300,
                elem_id=f"picture{number}",
            )
            for number, label in enumerate(("What the model sees", "Reconstruction", "Difference"))
        ]

    def answer(name: str, path: Any) -> Answer:
        return reconstruction(catalog, name, path, shelf, most_bytes=most_bytes)

    for event in (upload.change, model.change):
        event(answer, [model, upload], [message, *shown], api_visibility="private", **DEVICE)
    return model


def reconstruction(
    catalog: Catalog, name: str, path: str | None, shelf: Shelf, *, most_bytes: int
) -> Answer:
    """Returns message, original, reconstruction and difference; a mistake is a message."""
    if not path:
        return "", None, None, None
    try:
        model = catalog.load(name)
        picture = read_picture(Path(path), model.image_size, most_bytes=most_bytes)
        made = reconstruct(model, picture)
    except Exception as error:
        return message_of(error), None, None, None
    pictures = (made.original, made.result, made.difference)
    original, result, difference = (shelf.image(enlarged(image)) for image in pictures)
    return made.text, original, result, difference
