"""The demo page's server, and the page in a headless browser; needs rae_dit[demo].

The browser's part also needs playwright and a Chromium:
pip install playwright gradio; apt-get install chromium
"""

import http.client
import json
import shutil
import time
import zipfile
from urllib.parse import urlsplit

import numpy as np
import pytest
from support.demo_model import empty_model

from rae_dit.demo import catalog as demo_catalog
from rae_dit.demo import drawing
from rae_dit.demo.catalog import Catalog
from rae_dit.demo.guard import ENVELOPE, UPLOADS_KEPT
from rae_dit.demo.images import Strip
from rae_dit.demo.parts import Parts
from rae_dit.demo.runs import RunsFolder
from rae_dit.demo.shelf import Shelf

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'rae_dit[demo]'")

MOST = 100_000  # bytes of an upload
SIZE = 8
SLOW = 9  # a seed


def fake_images(model, settings):
    """Images whose gray tells the seed and the number, four at a time."""
    for first in range(0, settings.number, 4):
        time.sleep(0.3 if settings.seed == SLOW else 0)
        numbers = range(first, min(first + 4, settings.number))
        yield np.stack(
            [np.full((SIZE, SIZE, 3), 10 * settings.seed + n, np.uint8) for n in numbers]
        )


def fake_strip(model, settings):
    frames = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    return Strip(np.array([1.0, 0.5, 0.0]), frames, frames)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(tmp_path_factory, uploads):
    """A served page of a model that computes nothing; its address."""
    from rae_dit.demo.page import build_page, launch_settings

    folder = tmp_path_factory.mktemp("page")
    run = folder / "runs/a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text('{"objective": "flow_matching", "optim": {"max_steps": 9}}')
    (run / "metrics.jsonl").write_text('{"step": 5, "train/loss": 0.25}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setattr(demo_catalog, "load_model", lambda source, parts: empty_model())
        patch.setattr(drawing, "make_images", fake_images)
        patch.setattr(drawing, "make_strip", fake_strip)
        page = build_page(
            Catalog(["RUN"], Parts()),
            RunsFolder(folder / "runs"),
            shelf=Shelf(folder),
            most_bytes=MOST,
        )
        page.launch(**launch_settings("127.0.0.1", None, MOST, uploads))
        yield page.local_url.rstrip("/")
        page.close()


def ask(address, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_the_server_listens_to_this_machine_and_names_no_other(address):
    assert address.startswith("http://127.0.0.1:")
    status, headers, _ = ask(address, "GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", __file__])
def test_no_file_of_the_disk_is_served(address, path):
    assert ask(address, "GET", f"/gradio_api/file={path}")[0] == 403


def test_no_function_is_offered_to_programs(address):
    assert json.loads(ask(address, "GET", "/gradio_api/info")[2])["named_endpoints"] == {}


@pytest.mark.parametrize(
    ("name", "status"), [("evil.example", 400), ("localhost", 200), ("[::1]", 200)]
)
def test_a_name_of_another_site_that_leads_here_is_refused(address, name, status):
    port = urlsplit(address).port
    assert ask(address, "GET", "/config", Host=f"{name}:{port}")[0] == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("null", 403), ("", 200), ("own", 200)]
)
def test_another_site_sends_nothing(address, origin, status):
    origins = {"Origin": address if origin == "own" else origin} if origin else {}
    assert upload(address, 1000, **origins) == status


def upload(address, size, **headers):
    """Status of an upload of so many bytes, each time another file."""
    content = f"{time.monotonic_ns():<20}".encode().ljust(size, b"0")
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x"
    return ask(address, "POST", "/gradio_api/upload", body, Content_Type=kind, **headers)[0]


def test_a_large_upload_is_refused(address):
    assert upload(address, 1000) == 200
    assert upload(address, MOST + 1000) == 413
    assert upload(address, MOST + 2 * ENVELOPE) == 413


def test_uploads_are_bounded_together(address, uploads):
    room = UPLOADS_KEPT * (MOST + ENVELOPE)
    for _ in range(room // MOST + 5):
        assert upload(address, MOST) == 200
    sizes = [path.stat().st_size for path in uploads.rglob("*") if path.is_file()]
    assert room - 2 * (MOST + ENVELOPE) < sum(sizes) <= room


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, address):
    """The page, open; fails if it asked another address or a script of it failed."""
    page = browser.new_page()
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#draw")
    yield page
    page.close()
    others = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert (others, failed) == ([], [])


def message(page, words, field="#message"):
    page.wait_for_function(
        "([field, words]) => document.querySelector(`${field} textarea`).value.includes(words)",
        arg=[field, words],
        timeout=15000,
    )
    return page.input_value(f"{field} textarea")


def test_images_are_drawn_and_taken_away(page, tmp_path):
    page.fill("#number input", "6")
    page.fill("#seed input", "3")
    page.check("#two input")
    page.click("#draw")
    message(page, "6 of 6 images in")
    page.wait_for_function("document.querySelectorAll('#galleryA img').length >= 6")
    page.wait_for_function(
        "[...document.querySelectorAll('#galleryB img')].every(i => i.naturalWidth > 0)"
    )
    page.wait_for_selector("#stripA img")
    command = page.input_value("#command textarea")
    assert command.count("--number=6 --seed=3") == 2
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "images.zip")
    with zipfile.ZipFile(tmp_path / "images.zip") as file:
        assert len(file.namelist()) == 2 * (6 + 1)


def test_bad_input_gets_a_line(page):
    page.fill("#number input", "1000000")
    page.click("#draw")
    assert message(page, "number: got 1000000; expected").endswith("the command below makes more")
    page.fill("#number input", "")
    page.click("#draw")
    message(page, "number: got None; expected")


def test_drawing_can_be_canceled(page):
    page.fill("#number input", "64")
    page.fill("#seed input", str(SLOW))
    page.click("#draw")
    message(page, "of 64 images")
    page.click("#cancel")
    message(page, "canceled")
    page.wait_for_timeout(1500)
    assert "canceled" in page.input_value("#message textarea")
    page.fill("#seed input", "1")
    page.click("#draw")
    message(page, "64 of 64 images in")


def test_two_visitors_at_once(page, browser, address):
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#draw")
    for visitor, seed in ((page, "1"), (other, "2")):
        visitor.fill("#seed input", seed)
        visitor.click("#draw")
    for visitor, seed in ((page, "1"), (other, "2")):
        message(visitor, "8 of 8 images in")
        assert f"--seed={seed}" in visitor.input_value("#command textarea")
    other.close()


def test_runs_are_listed(page):
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_function("document.body.innerText.includes('5 of 9')", timeout=15000)
    page.wait_for_function("document.querySelectorAll('#curves img').length == 1")


def test_an_upload_that_is_no_picture_gets_a_line(page, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"no picture")
    page.get_by_role("tab", name="Reconstruction").click()
    page.set_input_files("#upload input[type=file]", path)
    assert message(page, "picture: got", "#messageR").startswith("picture: got a file that is none")
