"""The page in a real browser, where Debian's chromium is installed."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")

from worldsim.data.encode import write_film  # noqa: E402
from worldsim.play.handover import Company  # noqa: E402
from worldsim.play.server import serve  # noqa: E402
from worldsim.world.point import PointWorld  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium: apt install chromium")


class Right:
    """A policy that pushes to the right."""

    def reset(self, past: object) -> None: ...

    def __call__(self, moment: object) -> np.ndarray:
        return np.array([1, 0], np.float32)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    found: list[str] = []
    world = PointWorld(time_limit=5000)
    args, kwargs = (
        (world, tmp_path_factory.mktemp("plays")),
        {"ready": found.append, "company": Company(policies={"right": Right})},
    )
    threading.Thread(target=serve, args=args, kwargs=kwargs, daemon=True).start()
    for _ in range(200):
        if found:
            break
        time.sleep(0.02)
    return found[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    faults: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.on("console", lambda line: faults.append(line.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_selector("body[data-step='0']")
    yield page
    page.close()
    assert not faults


def at(page: Any, step: int) -> bytes:
    """Wait for a step, and the picture shown then."""
    page.wait_for_selector(f"body[data-step='{step}']", timeout=5000)
    return page.evaluate("document.getElementById('dream').toDataURL()")


def test_keys_steps_rewind_and_branch(page: Any) -> None:
    page.fill("#seed", "3")
    page.click("#reset")
    page.wait_for_selector("body[data-seed='3']")
    start = at(page, 0)
    page.focus("#dream")
    page.keyboard.down("ArrowRight")
    assert page.locator("#pad .held").inner_text().startswith("D")
    pictures = {}
    for step in range(1, 5):
        page.keyboard.press(".")
        pictures[step] = at(page, step)
    assert len({start, *pictures.values()}) == 5
    page.keyboard.press(",")
    page.keyboard.press(",")
    assert at(page, 2) == pictures[2]
    page.click("#one")
    assert at(page, 3) == pictures[3]
    page.keyboard.up("ArrowRight")
    page.click("#one")
    assert at(page, 4) != pictures[4]


def test_it_plays_at_its_own_pace_and_pauses(page: Any) -> None:
    page.click("#run")
    time.sleep(0.8)
    page.click("#run")
    stopped, rate = page.evaluate("now.step"), page.evaluate("world.rate")
    assert 2 <= stopped <= 2 * rate
    time.sleep(0.2)
    assert page.evaluate("now.step") <= stopped + 1
    page.click("#film")
    page.get_by_text("saved").wait_for(timeout=10_000)


def test_a_press_is_answered_at_once_and_one_step_ahead_of_the_pace_at_most(page: Any) -> None:
    page.evaluate("world.rate = 0.05; play(true)")  # a step in twenty seconds
    at(page, 1)
    page.evaluate("press('d')")
    at(page, 2)
    page.evaluate("release('d'); press('a')")
    time.sleep(0.3)
    assert page.evaluate("now.step") == 2


def test_a_dropped_connection_resumes_and_two_tabs_do_not_mix(
    page: Any, browser: Any, address: str
) -> None:
    page.click("#one")
    at(page, 1)
    page.evaluate("socket.close(); el('one').click()")  # while it closes
    at(page, 2)
    page.evaluate("socket.close(); socket.addEventListener('close', () => el('one').click())")
    at(page, 3)  # pressed while there was no connection
    page.evaluate("socket.close(); socket.addEventListener('close', () => el('back').click())")
    at(page, 2)
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("body[data-step='0']")
    other.close()


def test_touch_on_a_narrow_page(browser: Any, address: str) -> None:
    phone = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = phone.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-step='0']")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#pad [data-key=d]").dispatch_event("pointerdown", {"pointerId": 1})
    assert page.evaluate("held") == ["d"]
    phone.close()


def test_a_policy_shows_its_next_action_and_takes_over(page: Any) -> None:
    page.select_option("#policy", "right")
    page.get_by_text("would do next: 1, 0").wait_for()
    assert page.locator("#pad .next").get_attribute("data-key") == "d"
    page.keyboard.press("h")
    page.click("#one")
    at(page, 1)
    assert page.evaluate("now.driver") == "right"
    page.select_option("#policy", "")
    page.locator("#advice").wait_for(state="hidden")
    page.click("#one")
    at(page, 2)
    assert page.evaluate("now.driver") == "keys"


def test_it_begins_at_a_clip(page: Any, tmp_path: Path) -> None:
    """The film's last frames, as many as the world looks back, at the world's rate."""
    white = np.full((30, 80, 80, 3), 250, np.uint8)
    white[:22] = 0
    write_film(tmp_path / "clip.mp4", iter(white), 20.0)
    page.click("#one")
    at(page, 1)
    page.set_input_files("#picture", tmp_path / "clip.mp4")
    page.wait_for_selector("body[data-step='0']", timeout=20_000)
    assert page.evaluate("el('note').textContent") == ""
    page.set_input_files("#picture", Path(__file__))
    page.get_by_text("neither a picture nor a film").wait_for()


@pytest.mark.nightly
def test_a_thousand_steps_leave_nothing_behind(browser: Any, address: str) -> None:
    from benchmarks.play import growth

    grown = growth(browser, address, os.getpid(), 1000)
    assert grown["page_nodes_after_2"] <= grown["page_nodes_after_1"] + 5
    assert grown["page_heap_mib_after_2"] <= grown["page_heap_mib_after_1"] + 1
    assert grown["server_mib_after_2"] <= grown["server_mib_after_1"] + 40
