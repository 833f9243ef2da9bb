"""A real browser: Debian's chromium, driven by playwright.

Where there is none the tests are skipped on a reader's machine, and fail in CI, which installs it.
"""

import os
import shutil

import pytest
from browsing import TOO_LONG

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


@pytest.fixture(scope="session")
def browser():
    """Chromium, once for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="until playwright is installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        missing = "no chromium on the PATH; un-skipped by: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=FLAGS.split(), timeout=TOO_LONG
        )
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """An empty page that remembers what went wrong on it: `tab.troubles`."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.set_default_timeout(TOO_LONG)
    page.troubles = []
    page.on("console", lambda m: page.troubles.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("requestfailed", lambda request: page.troubles.append(f"failed: {request.url}"))
    yield page
    context.close()
