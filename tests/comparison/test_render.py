"""Tables as text: what is in bold, how LaTeX is escaped, and that CSV reads back."""

import math
import re

from pandas import DataFrame
from synthetic_results import results

from mwanda.comparison import render
from mwanda.comparison.configurations import configurations
from mwanda.comparison.records import Run
from mwanda.comparison.tables import sections
from mwanda.comparison.tidy import tidy


def tight(text: str) -> str:
    """Return Markdown without the blanks that only align its columns."""
    return re.sub(" +", " ", text)


def table(*runs: Run) -> render.Table:
    every = configurations(runs)
    (section,) = sections(every, tidy(every), None)
    return render.comparison(section)


def run(criterion: str, seed: int = 0, ratio: float = 2.0, **more: object) -> Run:
    ratios = {"eng_Latn": ratio, "swh_Latn": 2 * ratio}
    return Run("run", results(criterion, seed=seed, ratios=ratios, **more))  # type: ignore[arg-type]


def test_markdown_has_a_row_for_each_configuration_and_the_best_in_bold() -> None:
    text = render.markdown(table(run("wanda"), run("wanda", 1, 2.2), run("mwanda", ratio=1.5), run("mwanda", 1, 1.5)))
    lines = tight(text).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| mwanda | 2 |")
    assert "**2.12 ± 0.00**" in lines[2]
    assert "2.97 ± 0.20" in lines[3]
    assert "**" not in lines[3]


def test_best_is_only_among_those_that_remove_as_much() -> None:
    text = render.markdown(
        table(run("wanda", sparsity=0.3, ratio=1.1), run("wanda", sparsity=0.7), run("mwanda", sparsity=0.7, ratio=1.9))
    )
    bold = {line.split("|")[1].strip() for line in text.splitlines() if "**" in line}
    assert bold == {"mwanda, 0.7"}


def test_latex_is_escaped_and_complete() -> None:
    text = render.latex(table(run("wanda"), run("owl_cwl & 50 %")), "A_caption")
    assert r"owl\_cwl \& 50 \%" in text
    assert r"\caption{A\_caption}" in text
    assert not re.search(r"(?<!\\)[_%]", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\\begin\{tabular\}\{(l+r+)\}", text)
    assert columns
    assert all(len(re.split(r"(?<!\\)&", row)) == len(columns[1]) for row in rows)


def test_a_cell_is_one_cell_whatever_is_in_it() -> None:
    text = tight(render.plain(DataFrame({"run": ["a"], "why": ["first | second\nthird"]}), words=2))
    assert text.splitlines()[2:] == [r"| a | first \| second third |"]


def test_numbers() -> None:
    assert [render.number(each) for each in (None, math.inf, 3.14159, 314.159, 31415.9)] == [
        "–",
        "∞",
        "3.14",
        "314.2",
        "31416",
    ]
