"""Debian's Chromium without a window, asked over its DevTools protocol what it makes of a page."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
# Sideways: how far the page can be scrolled, and which elements stick out of it that no box of their own scrolls.
MEASURE = """(() => {
  const wide = document.documentElement.clientWidth, out = [];
  const scrolls = element => {
    for (let e = element.parentElement; e; e = e.parentElement)
      if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)) return true;
    return false;
  };
  for (const e of document.body.querySelectorAll('*')) {
    const box = e.getBoundingClientRect();
    if (box.width && (box.right > wide + 1 || box.left < -1) && !scrolls(e)) out.push(e.tagName + '.' + e.className);
  }
  return {scroll: document.documentElement.scrollWidth - wide, out: out.slice(0, 5),
          paper: getComputedStyle(document.body).backgroundColor, title: document.title,
          scripts: document.scripts.length, text: document.body.innerText};
})()"""


def find_chromium() -> str:
    """The browser's path; without one the test is skipped, and fails where CI is said to be."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium; .ci/run installs it")
        pytest.skip("needs Chromium: apt-get install chromium")
    return found


class Browser:
    """A tab. Events that tell of something wrong are kept: see ``look``."""

    def __init__(self, socket):
        self._socket, self._number, self._events = socket, 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict:
        """Calls a method of the protocol and returns its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv())
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self._events.append(told)

    def look(self, page: Path | str, *, width: int, dark: bool = False, folded: bool = False) -> dict:
        """Opens a page, a file or an address, and measures it; what is folded is opened first, unless told otherwise.

        Returns:
          MEASURE's, and ``console`` (what was complained of) and ``requests`` (addresses other than the page's own and
          ``data:``).
        """
        self._events.clear()
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        opened = self.call("Page.navigate", url=address)
        # The browser's own page about a failure is faultless.
        assert "errorText" not in opened, opened
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(json.loads(self._socket.recv()))
        if not folded:
            self.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        measured = self.evaluate(MEASURE)
        measured["console"] = [
            event["params"]
            for event in self._events
            if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        ]
        asked = [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        measured["requests"] = [url for url in asked if url != address and not url.startswith("data:")]
        return measured

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, which the page itself has none of."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self) -> bytes:
        """A PNG of the whole page as it stands."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def printed(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own, with an empty profile; ends with the block."""
    program = find_chromium()
    if os.environ.get("CI") != "true":
        pytest.importorskip("websocket")
    import websocket

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process)
            # A proxy of the environment's is for other hosts than this one.
            with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/json", timeout=60) as answer:
                tabs = json.load(answer)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            socket = websocket.create_connection(address, timeout=120, http_no_proxy=["127.0.0.1"])
            with contextlib.closing(socket):
                yield Browser(socket)
        finally:
            process.kill()


def _port(file: Path, process: subprocess.Popen) -> int:
    """The port that the browser writes down once it listens."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, f"the browser ended with status {process.returncode}"
        if file.is_file() and (lines := file.read_text().split()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError("the browser did not start within two minutes")
