"""report.html: one file that opens offline, asks for nothing, and runs no code but its own."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from mwanda.system.cache import cache_folder
from mwanda.system.files import write_text


FILE = "report.html"
SNIPPET = "window.vegaEmbed = vegaEmbed;"
SCRIPTS = ("data.js", "table.js", "sections.js", "page.js")
HOW = "An interactive report (report.html) comes with `pip install 'mwanda[report]'`."


def available() -> bool:
    """Return whether the packages of the extra `report` are there."""
    try:
        version("altair")
        version("vl-convert-python")
    except PackageNotFoundError:
        return False
    return True


def write_html(path: Path, data: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all."""
    write_text(path, html(data))


def html(data: Mapping[str, Any]) -> str:
    """Return the page.

    Its policy allows the two scripts and the style sheet that are in it, known by their hashes, and nothing else: no
    request, no other script, no code made from text.
    """
    folder = files("mwanda.comparison") / "page"
    style, template = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "template.html"))
    own = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    own = f'"use strict";\n(() => {{\n{own}\n}})();\n'
    library = _library()
    scripts = " ".join(map(_source, (library, own)))
    parts = {
        "{{policy}}": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src {scripts}; style-src {_source(style)}",
        "{{style}}": style,
        "{{library}}": library,
        "{{own}}": own,
        "{{charts}}": _charts(),
        "{{data}}": _json(data),  # last: nothing is looked for in what runs are called
    }
    for mark, text in parts.items():
        before, _, after = template.partition(mark)
        template = before + text + after
    return template


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """Return JSON that can stand in a page: nothing in it ends the element that holds it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _library() -> str:
    """Return Vega and Vega-Embed as one script."""

    def made() -> str:
        import altair
        import vl_convert

        line = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
        script = str(vl_convert.javascript_bundle(SNIPPET, vl_version=line))
        return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")

    return _kept("vega.js", SNIPPET, made)


def _charts() -> str:
    """Return the charts as Vega, so that the page has nothing to compile."""

    def made() -> str:
        import altair
        import vl_convert

        from mwanda.comparison.charts import charts

        line = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
        return _json({name: vl_convert.vegalite_to_vega(chart, vl_version=line) for name, chart in charts().items()})

    source = (files("mwanda.comparison") / "charts.py").read_text(encoding="utf-8")
    return _kept("charts.json", source, made)


def _kept(name: str, source: str, make: Callable[[], str]) -> str:
    """Return a text that takes seconds to make and depends on nothing but its source and two packages."""
    key = f"{source} {version('vl-convert-python')} {version('altair')}"
    path = cache_folder() / "report" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{name}"
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        text = make()
        write_text(path, text)
        return text
