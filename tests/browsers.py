"""A real browser for tests of pages: Debian's Chromium, without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, sync_playwright

# It tries to reach its maker's servers otherwise, which has nothing to do with the page.
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Visit:
    """A page that was opened, and all that it asked for or complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))


@contextmanager
def opened(path: Path, *, width: int, colours: Literal["light", "dark"] = "light") -> Iterator[Visit]:
    """Open a file in a window of this width."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_QUIET)
        try:
            visit = Visit(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours))
            visit.page.goto(path.absolute().as_uri())
            yield visit
        finally:
            browser.close()
