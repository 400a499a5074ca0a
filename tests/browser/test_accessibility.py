"""Each view can be used by everybody and fits on the screen, in light and dark, on wide and narrow screens.

For the first axe-core is asked, which knows rules that are broken; for the second the page is drawn.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.axe import find_violations, needs_axe
from tests.browser.browsing import Browser, Page, PageWatch, expect, sign_in
from tests.browser.views import ENVIRONMENT, VIEWS, begin_views, fill_views, open_unknown_model
from tests.e2e.harness import Server

DRAWN = [("light", 1280), ("dark", 360)]
LOOKS = [*DRAWN, ("dark", 1280), ("light", 360)]
HEIGHT = 900
NAMES = [view.__name__.removeprefix("open_") for view in VIEWS]


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    """Workers, uploads and a rollout."""
    return ENVIRONMENT


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    """Something for each view."""
    return fill_views


@pytest.fixture(scope="module")
def ready_server(server: Server) -> Server:
    """The server, when all of it is there."""
    begin_views(server)
    return server


@pytest.fixture
def open_view(
    ready_server: Server, open_page: Callable[..., Page], watch: PageWatch
) -> Callable[[Callable[[Page], None]], Page]:
    """Open one view as an operator."""

    def open_one(view: Callable[[Page], None]) -> Page:
        page = open_page(reduced_motion="reduce")
        sign_in(page)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        if view is open_unknown_model:
            watch.allow_status(404)
        view(page)
        return page

    return open_one


def each_look(page: Page, looks: list[tuple[str, int]]) -> Iterator[str]:
    """Give the page one look after another."""
    for scheme, width in looks:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": HEIGHT})
        yield f"{scheme}, {width} wide"


# Colours and widths break rules of their own; both of either are in the first two looks.
@needs_axe
@pytest.mark.parametrize("looks", [DRAWN, pytest.param(LOOKS, marks=pytest.mark.soak)], ids=["some", "all"])
@pytest.mark.parametrize("view", VIEWS, ids=NAMES)
def test_no_rule_is_broken(
    open_view: Callable[..., Page], view: Callable[[Page], None], looks: list[tuple[str, int]]
) -> None:
    page = open_view(view)
    broken: dict[str, str] = {}
    for look in each_look(page, looks):
        for found in find_violations(page):
            broken.setdefault(found, look)
    assert not broken, "\n".join(f"[{look}] {found}" for found, look in broken.items())


@needs_axe
def test_a_broken_rule_is_seen(server: Server, open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect(page.locator("h1")).to_have_text("Models")
    page.evaluate("document.querySelector('h1').after(document.createElement('button'))")
    assert any(found.startswith("button-name: ") for found in find_violations(page))


# --- pictures ---------------------------------------------------------------------------------------------------------

COUNT_COLOURS = """
async (png) => {
    const picture = new Image();
    picture.src = `data:image/png;base64,${png}`;
    await picture.decode();
    const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, picture.width, picture.height).data.buffer);
    const counts = new Map();
    for (let i = 0; i < pixels.length; i += 7) counts.set(pixels[i], (counts.get(pixels[i]) ?? 0) + 1);
    return {colours: counts.size, mostShare: Math.max(...counts.values()) * 7 / pixels.length};
}
"""


@pytest.fixture(scope="module")
def canvas(browser: Browser) -> Iterator[Page]:
    """An empty page to look at pictures with: the server's own may not draw them."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.mark.parametrize("view", VIEWS, ids=NAMES)
def test_a_view_is_drawn_and_fits(open_view: Callable[..., Page], canvas: Page, view: Callable[[Page], None]) -> None:
    page = open_view(view)
    pictures = {}
    for look in each_look(page, DRAWN):
        pictures[look] = picture = page.screenshot(full_page=True, animations="disabled", caret="hide")
        width, height = struct.unpack(">II", picture[16:24])
        assert width == page.viewport_size["width"], f"{look}: {width} pixels are needed"  # no scrolling to the side
        assert height >= HEIGHT
        seen = canvas.evaluate(COUNT_COLOURS, base64.b64encode(picture).decode())
        assert seen["colours"] > 50, look  # letters alone have more
        assert seen["mostShare"] < 0.99, look
    assert len(set(pictures.values())) == len(DRAWN)
