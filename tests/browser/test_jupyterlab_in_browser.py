"""JupyterLab in a real browser: a reader opens the tour and notebook 10, runs them, and plays."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from browsing import TOO_LONG
from paths import ROOT

NOTEBOOKS = ROOT / "notebooks"

RUN_ALL = """async () => {
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  await jupyterapp.commands.execute('notebook:run-all-cells');
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server on 127.0.0.1 over a copy of two notebooks; its address."""
    home = tmp_path_factory.mktemp("lab")
    for name in ("00_tour", "10_deformable_attention"):
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA")}
    environment = {**os.environ, **private, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(NOTEBOOKS.parent)
    # Cells that are out of sight are in the page all the same.
    tracker = home / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    words = '{"windowingMode": "none"}'
    (tracker / "tracker.jupyterlab-settings").write_text(words, encoding="utf8")
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    quiet = ["labextension", "disable", "--level=user"]
    quiet += ["@jupyterlab/apputils-extension:announcements"]
    jupyter = [sys.executable, "-m", "jupyter"]
    subprocess.run([*jupyter, *quiet], env=environment, capture_output=True, check=False)
    options = ["--LabApp.expose_app_in_browser=True", "--IdentityProvider.token=", "--no-browser"]
    options += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--allow-root"]
    options += ["--LabApp.extension_manager=readonly", f"--ServerApp.root_dir={home}"]
    server = subprocess.Popen(
        [*jupyter, "lab", *options], env=environment, stdout=subprocess.DEVNULL, stderr=-2
    )
    address = f"http://127.0.0.1:{port}"
    wait_for(address + "/api")
    yield address
    server.terminate()
    server.wait(300)


def wait_for(address):
    end = time.monotonic() + TOO_LONG / 1000
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no answer from {address}")


def opened(tab, lab, name):
    """The notebook, all its cells run."""
    tab.goto(f"{lab}/doc/tree/{name}.ipynb")
    tab.wait_for_function("window.jupyterapp?.shell?.currentWidget?.context")
    tab.evaluate(RUN_ALL)


def test_the_tour_runs_and_its_explorer_answers_a_click(tab, lab):
    opened(tab, lab, "00_tour")
    canvas = tab.locator(".xp canvas[role=application]")
    canvas.wait_for(state="visible")
    canvas.scroll_into_view_if_needed()
    tab.wait_for_function("document.querySelector('.xp canvas[role=application]').drawn")
    readout = tab.locator(".xp-readout")
    before = readout.inner_text()
    box = canvas.bounding_box()
    for x, y in ((0.3, 0.3), (0.7, 0.7), (0.5, 0.5), (0.2, 0.8)):
        canvas.click(position={"x": x * box["width"], "y": y * box["height"]})
        if readout.inner_text() != before:
            break
    assert readout.inner_text() != before
    tab.get_by_role("slider", name="layer").press("ArrowLeft")
    assert "layer" in tab.locator(".xp").inner_text()


def test_a_slider_in_notebook_10_draws_another_picture(tab, lab):
    opened(tab, lab, "10_deformable_attention")
    handle = tab.locator(".noUi-handle").first
    handle.wait_for(state="visible")
    handle.scroll_into_view_if_needed()
    number, picture = tab.locator(".widget-readout").first, tab.locator("img.widget-image").first
    picture.wait_for(state="visible")
    before = number.inner_text(), picture.get_attribute("src")
    handle.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function(
        "before => document.querySelector('img.widget-image').src != before", arg=before[1]
    )
    assert number.inner_text() != before[0]
    assert picture.get_attribute("src") != before[1]
