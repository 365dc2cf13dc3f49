"""report.html: one file that opens offline, asks for nothing, and runs no code but its own."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from mwanda.system.cache import cache_folder
from mwanda.system.files import write_text


FILE = "report.html"
SNIPPET = "Object.assign(window, { vegaEmbed, vegaLite });"
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
    from mwanda.comparison.charts import charts

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
        "{{charts}}": _json(charts()),
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
    """Return Vega, Vega-Lite and Vega-Embed as one script; making it takes seconds, so that it is kept in the cache."""
    digest = hashlib.sha256(f"{SNIPPET} {version('vl-convert-python')} {version('altair')}".encode()).hexdigest()[:16]
    kept = cache_folder() / "report" / f"vega-{digest}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        pass
    import altair
    import vl_convert

    line = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    made = vl_convert.javascript_bundle(SNIPPET, vl_version=line)
    script = str(made).replace("</script", "<\\/script").replace("<!--", "<\\!--")
    write_text(kept, script)
    return script
