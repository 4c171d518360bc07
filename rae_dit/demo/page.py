"""The demo page put together, and its server."""

import os
import tempfile
from pathlib import Path
from typing import Any

from rae_dit.config import ConfigError
from rae_dit.demo.catalog import Catalog
from rae_dit.demo.runs import RunsFolder

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read while gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

try:
    import gradio as gr
except ImportError as error:  # pragma: no cover
    raise ConfigError(
        f"gradio: got none ({error}); expected pip install 'rae_dit[demo]', or --write=DIR"
    ) from error

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from rae_dit.demo.guard import BoundedUploads, OwnAddressOnly, allowed_hosts
from rae_dit.demo.reconstruct_tab import reconstruct_tab
from rae_dit.demo.runs_tab import runs_tab
from rae_dit.demo.sample_tab import sample_tab
from rae_dit.demo.shelf import Shelf
from rae_dit.storage.places import place

CACHE_SECONDS = 3600  # for which the server keeps images that it has shown

# As many images in a row as the window has room for, below the label.
STYLE = """
#galleryA .grid-wrap, #galleryB .grid-wrap { padding-top: 28px !important; }
#galleryA .grid-container, #galleryB .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)) !important;
}
"""


def build_page(
    catalog: Catalog, runs: RunsFolder | None, *, shelf: Shelf, most_bytes: int
) -> gr.Blocks:
    """Lays out the page.

    Args:
        catalog: models to choose from; the first is loaded.
        runs: runs to show; None for no such tab.
        shelf: for the files that it shows.
        most_bytes: size of an upload that is allowed.
    """
    model = catalog.load(catalog.names()[0])
    cache = (CACHE_SECONDS, CACHE_SECONDS)
    with gr.Blocks(title="rae_dit", analytics_enabled=False, delete_cache=cache) as page:
        choices = []
        if model.generator is not None:
            with gr.Tab("Samples"):
                choices += sample_tab(catalog, model, shelf)
        with gr.Tab("Reconstruction"):
            choices.append(reconstruct_tab(catalog, shelf, most_bytes))
        if runs is not None:
            with gr.Tab("Runs"):
                runs_tab(runs, page, shelf)
        page.load(  # steps that were saved since
            lambda: [gr.Dropdown(choices=catalog.names())] * len(choices),
            None,
            choices,
            queue=False,
            api_visibility="private",
        )
    return page


def serve(
    catalog: Catalog, runs: RunsFolder | None, *, host: str, port: int | None, most_bytes: int
) -> None:
    """Serves the page until it is interrupted.

    Args:
        catalog: models to choose from.
        runs: runs to show.
        host: address to listen at; "127.0.0.1" is this machine alone.
        port: to listen at; None for the first that is free from 7860 on.
        most_bytes: size of an upload that is allowed.

    Raises:
        ConfigError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="rae_dit_demo_") as folder:
        uploads = place(folder) / "uploads"
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # read where the page is built
        shelf = Shelf(place(folder) / "shown")
        page = build_page(catalog, runs, shelf=shelf, most_bytes=most_bytes)
        page.queue(max_size=32)
        try:
            _, address, _ = page.launch(**launch_settings(host, port, most_bytes, uploads))
        except OSError as error:
            raise ConfigError(f"--port: got {port}; expected one that is free ({error})") from error
        print(f"Open {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()


def launch_settings(host: str, port: int | None, most_bytes: int, uploads: Path) -> dict[str, Any]:
    """Returns the arguments of `launch`: no other address is asked, no file of the disk served."""
    plain = gr.themes.Default(
        font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host), www_redirect=False),
        Middleware(OwnAddressOnly),
        Middleware(BoundedUploads, folder=uploads, most_bytes=most_bytes),
    ]
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "inbrowser": False,
        "max_file_size": most_bytes,
        "allowed_paths": [],
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "footer_links": [],
        "theme": plain,
        "css": STYLE,
        "app_kwargs": {"middleware": guards},
    }
