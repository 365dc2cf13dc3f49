"""As much of the W3C's WebDriver protocol as the tests need, spoken to Debian's chromedriver."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--lang=en",
)


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and its page."""

    folder: Path
    page: Path


class Browser:
    """A headless Chromium that remembers what its console said and what it asked the network for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        command = ["chromedriver", "--port=0", f"--log-path={self.folder / 'driver.log'}"]
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.driver.stdout is not None
        line = next(line for line in self.driver.stdout if "successfully" in line)
        self.address = f"http://127.0.0.1:{line.rstrip('.').split('port')[-1].strip().rstrip('.')}"
        options = {"args": [*OPTIONS, f"--user-data-dir={self.folder / 'profile'}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/session/{session['sessionId']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.communicate(timeout=20)

    def open(self, page: Path, width: int = 1200, height: int = 900, *, dark: bool = False, media: str = "") -> None:
        """Open a page in a window of this size, and wait until all of its charts are drawn."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.logs("browser"), self.logs("performance")
        self._send("POST", "/url", {"url": page.as_uri()})
        self.settle()

    def settle(self) -> None:
        """Wait until every chart that is shown has been drawn."""
        drawn = "return [...document.querySelectorAll('.chart:not([hidden])')].every(each => each.querySelector('svg'))"
        self.until(drawn)

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until a script returns something true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.05)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": arguments})

    def run_async(self, script: str) -> Any:
        """Return what a script hands to its last argument."""
        return self._send("POST", "/execute/async", {"script": script, "args": []})

    def choose(self, identifier: str, value: str) -> None:
        """Choose a value in a list, as a person would."""
        found = self.run(
            "const list = document.getElementById(arguments[0]); list.value = arguments[1];"
            "list.dispatchEvent(new Event('change', {bubbles: true})); return list.value",
            identifier,
            value,
        )
        assert found == value
        self.settle()

    def press(self, keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """Return what was logged since the last call: `browser` (the console) or `performance` (the network)."""
        found: list[dict[str, Any]] = self._send("POST", "/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.logs("performance")]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what can be seen, or the whole page, as PNG."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send a command of Chromium's own protocol."""
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _send(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:1500]}") from None
