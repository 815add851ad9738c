"""The page in a browser: how soon it is there, how soon a key is seen, whether anything grows.

    python -m benchmarks.play [--world car-racing] [--compile] [--steps 1000]

Needs chromium (Debian's package) and playwright. Writes benchmarks/results/play.json and the table
of docs/how-to/play.md from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from worldsim.core import WorldError
from worldsim.flags import refuse_repeated
from worldsim.store.provenance import provenance

from .page import put

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PRESSES, STEPS_TO_SEE, CONNECTIONS = 60, 3, 1000
GOALS = {"first_frame_s": 2.0, "key_seen_after_steps": 3, "input_to_frame_p95_ms": 100.0}
ROWS = (
    ("page to first picture, worst of 5", "{first_frame_s:.1f} s", "< 2 s"),
    ("steps until a key changes the picture", "{key_seen_after_steps}", "<= 3"),
    ("key to picture, median", "{input_to_frame_p50_ms:.0f} ms", ""),
    ("key to picture, 95th percentile", "{input_to_frame_p95_ms:.0f} ms",
     "< 100 ms where a step is faster than the pace"),
    ("a step; the world's pace", "{step_ms:.0f} ms; {pace_ms:.0f} ms", ""),
    ("server's memory after n and 2n steps",
     "{server_mib_after_1:.0f}, {server_mib_after_2:.0f} MiB (n = {steps:,})", "the same"),
    ("page's memory, likewise", "{page_heap_mib_after_1:.1f}, {page_heap_mib_after_2:.1f} MiB",
     "the same"),
    ("connections in a row, each with a dream of its own",
     "{connections:,} ({connections_a_second:.0f} a second), {connections_grown_mib:+.0f} MiB",
     "the server lives"),
)  # fmt: skip
PROBE = """(key) => new Promise((resolve) => {
  if (!running) return resolve(null);
  const begun = performance.now(), [sent, drawn] = [window.send, window.drawChunk];
  const done = (took) => { release(key); Object.assign(window, { send: sent, drawChunk: drawn }); resolve(took); };
  let under = false;
  window.send = (message) => { under ||= (message.keys || []).includes(key); sent(message); };
  window.drawChunk = (...shown) => {
    drawn(...shown);
    if (under) requestAnimationFrame(() => done(performance.now() - begun));
    else if (now.over) done(null);
  };
  press(key);
})"""  # noqa: E501
"""Milliseconds from a key's press to the first picture of a step under it, null at an end."""
WALK = """async (count) => {
  for (let i = 0; i < count; i++) {
    const before = now.step;
    if (now.over) reset(); else step();
    while (now.step === before) await new Promise((go) => setTimeout(go, 1));
  }
}"""


def main(world: str = "car-racing", compile: bool = False, steps: int = 1000,
         out: Path = Path("benchmarks/results/play.json"),
         page: Path | None = Path("docs/how-to/play.md")) -> None:  # fmt: skip
    """Measure the page on one world and keep the figures beside those of other worlds."""
    if not CHROMIUM.exists():
        raise WorldError("browser: expected chromium: apt install chromium")
    with served(world, compile) as (address, process), browser() as chromium:
        figures = {
            "first_frame_s": first_frame(chromium, address),
            **keys(chromium, address),
            **growth(chromium, address, process.pid, steps),
            **connections(address, process.pid),
        }
    known = json.loads(out.read_text()) if out.exists() else {}
    name = f"{world}, compiled" if compile else world
    known[name] = {"figures": figures, "goals": GOALS, "provenance": provenance()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(known, indent=1) + "\n")
    if page is not None:
        put(page, table({name: row["figures"] for name, row in known.items()}))
    print(json.dumps(figures, indent=1))


def table(worlds: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a figure, a column a world."""
    lines = [["", *worlds, "goal"], ["---"] * (len(worlds) + 2)]
    for name, text, goal in ROWS:
        lines.append([name, *(text.format(**figures) for figures in worlds.values()), goal])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextmanager
def served(world: str, compile: bool = False) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server as its users start it: its page's address and its process."""
    command = [sys.executable, "-m", "worldsim", "play", world, "--no-browser"]
    command += ["--compile"] if compile else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(line.strip() for line in process.stdout if "http://" in line)
        yield address, process
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with import_module("playwright.sync_api").sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


def opened(chromium: Any, address: str) -> Any:
    """A page that shows its first frame."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_selector("body[data-step='0']")
    return page


def first_frame(chromium: Any, address: str) -> float:
    """Seconds from opening the page to its first picture, the second time, of five the worst."""
    opened(chromium, address).close()
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        page = opened(chromium, address)
        seconds.append(time.perf_counter() - begun)
        page.close()
    return round(max(seconds), 3)


def keys(chromium: Any, address: str) -> dict[str, Any]:
    """After how many steps a key changes the picture, and how long a press takes to be seen."""
    page = opened(chromium, address)
    look = "document.getElementById('dream').toDataURL()"
    key = page.evaluate("world.keys[0].key")
    pictures: dict[bool, list[str]] = {}
    for held in (False, True):
        page.evaluate("goTo(0)")
        page.wait_for_selector("body[data-step='0']")
        page.evaluate(f"{'press' if held else 'release'}({key!r})")
        pictures[held] = []
        for step in range(1, STEPS_TO_SEE + 1):
            page.click("#one")
            page.wait_for_selector(f"body[data-step='{step}']")
            pictures[held].append(page.evaluate(look))
    pairs = zip(pictures[False], pictures[True], strict=True)
    seen = next((i for i, (idle, moved) in enumerate(pairs, 1) if idle != moved), None)
    page.evaluate(f"release({key!r}); play(true)")
    waits: list[float] = []
    while len(waits) < PRESSES:
        page.wait_for_timeout(37 + 13 * (len(waits) % 5))  # not in step with the world
        if page.evaluate("!running"):
            page.evaluate("reset()")
            page.wait_for_selector("body[data-step='0']")
            page.evaluate("play(true)")
        elif (waited := page.evaluate(PROBE, key)) is not None:
            waits.append(waited)
    step_ms, pace_ms = page.evaluate("[now.took, 1000 / world.rate]")
    page.close()
    return {
        "key_seen_after_steps": seen,
        "input_to_frame_p50_ms": round(float(np.percentile(waits, 50)), 1),
        "input_to_frame_p95_ms": round(float(np.percentile(waits, 95)), 1),
        "step_ms": round(step_ms, 1),
        "pace_ms": round(pace_ms, 1),
        "presses": PRESSES,
    }


def growth(chromium: Any, address: str, pid: int, steps: int) -> dict[str, Any]:
    """Memory of server and browser, after as many steps to warm up and after as many again."""
    page = opened(chromium, address)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    sizes = []
    for _ in range(2):
        page.evaluate(WALK, steps)
        devtools.send("HeapProfiler.collectGarbage")
        metrics = {
            m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]
        }
        sizes.append((rss(pid), metrics["JSHeapUsedSize"] / 2**20, metrics["Nodes"]))
    page.close()
    names = ("server_mib", "page_heap_mib", "page_nodes")
    grown = {f"{name}_after_{n}": round(s, 1) for n, size in enumerate(sizes, 1)
             for name, s in zip(names, size, strict=True)}  # fmt: skip
    return {"steps": steps, **grown}


def connections(address: str, pid: int) -> dict[str, Any]:
    """A thousand connections in a row, and what the server holds before and after."""
    connect = import_module("websockets.sync.client").connect
    base, _, token = address.partition("/#")
    url = f"ws://{base.removeprefix('http://')}/play?token={token}&session="
    before, begun = rss(pid), time.perf_counter()
    for _ in range(CONNECTIONS):
        with connect(url, origin=base, max_size=2**22) as socket:
            socket.recv(timeout=10)
    return {
        "connections": CONNECTIONS,
        "connections_a_second": round(CONNECTIONS / (time.perf_counter() - begun), 1),
        "connections_grown_mib": round(rss(pid) - before, 1),
    }


def rss(pid: int) -> float:
    """MiB that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 2**10


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))
