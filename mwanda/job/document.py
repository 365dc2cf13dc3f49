"""docs/results.md, made from the types of results.json: `python -m mwanda.job.document > docs/results.md`."""

from typing import Any, get_args, is_typeddict

from mwanda.job.record import Results
from mwanda.job.typed import entries, name_of


INTRODUCTION = """# results.json

What a run leaves in its folder, key by key. Made from the types in `mwanda/job/record.py`, to which a test holds both:

    python -m mwanda.job.document > docs/results.md

JSON has neither infinity nor NaN: null stands for both. Keys may be added under the same `schema`.

"""


def document() -> str:
    """Return, in Markdown, a table for results.json and for each typed dictionary in it, keys in their order."""
    return INTRODUCTION + "\n".join(line for each in kinds(Results) for line in _section(each))


def _section(kind: Any) -> list[str]:
    lines = [f"## {kind.__name__}", "", str(kind.__doc__).strip(), ""]
    lines += ["| key | type | unit | meaning | absent, null or empty |", "|---|---|---|---|---|"]
    for each in entries(kind):
        said = {"absent": each.key.absent, "null": each.key.null, "`{}`": each.key.empty}
        when = "; ".join(f"{name}: {reason}" for name, reason in said.items() if reason)
        cells = (f"`{each.name}`", name_of(each.type, each.key.by), each.key.unit, each.key.meaning, when)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def kinds(kind: Any) -> list[Any]:
    """Return a typed dictionary and all within it, each once, before those that it is made of."""
    found = [kind]
    for each in found:  # which grows
        inside = [part for entry in entries(each) for part in _within(entry.type)]
        found += [part for part in dict.fromkeys(inside) if part not in found]
    return found


def _within(kind: Any) -> list[Any]:
    return [kind] if is_typeddict(kind) else [part for each in get_args(kind) for part in _within(each)]


if __name__ == "__main__":
    print(document(), end="")
