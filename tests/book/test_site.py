"""Pages of notebooks: outputs of the run beside the stored text, and what a page cannot do."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from clsp_utils.book.site import EXPLORE, notebook_page, used_names


def cell(name, source, *tags, outputs=(), count=None):
    outputs = [new_output("stream", text=text) for text in outputs]
    metadata = {"tags": list(tags)}
    return new_code_cell(source, id=name, metadata=metadata, outputs=outputs, execution_count=count)


def stored():
    cells = [
        new_markdown_cell("# Title"),
        cell("a", "1", "parameters"),
        cell("b", "2"),
        cell("c", "x = 3", "01.1", "solution", "skip-execution"),
        cell("d", "def draw(): ...", "skip-execution"),
        cell("e", "from ipywidgets import IntSlider", "skip-execution"),
        new_markdown_cell("The end."),
    ]
    return new_notebook(cells=cells)


def executed(*cells, **parameters):
    papermill = {"parameters": {"profile": "smoke", "overrides": {}, **parameters}, "duration": 6.6}
    return new_notebook(cells=cells, metadata={"papermill": papermill})


RUN = (
    cell("a", "1", "parameters", outputs=["one"], count=1),
    cell("injected", 'profile = "smoke"', "injected-parameters", count=2),
    cell("b", "2", outputs=["two"], count=3),
)


def texts(page):
    return [out.text for one in page.cells for out in one.get("outputs", [])]


def test_page_has_the_stored_cells_and_the_outputs_of_the_run():
    page = notebook_page(stored(), executed(*RUN, seed=3))
    assert [one.source for one in page.cells if one.cell_type == "code"] == ["1", "2", "x = 3"]
    assert texts(page) == ["one", "two"]
    assert page.cells[1].source == (
        "*Outputs of a run with `profile='smoke'`, `seed=3`, which took 7 s.*"
    )
    nbformat.validate(page)


def test_page_of_a_run_that_was_stopped_says_so():
    stopped = executed(*RUN)
    stopped.metadata.papermill.duration = None  # as papermill leaves it
    assert notebook_page(stored(), stopped).cells[1].source == (
        "*Outputs of a run with `profile='smoke'`, which did not come to its end.*"
    )


def test_page_of_a_notebook_that_was_not_run_says_so():
    page = notebook_page(stored(), None)
    assert not texts(page) and page.cells[1].source.startswith("*Not run yet: `make everything`")


@pytest.mark.parametrize(
    "run",
    [
        RUN[:2],
        (*RUN[:2], cell("b", "2 + 2", outputs=["four"], count=3)),
        (*RUN[:2], cell("b", "2")),
    ],
    ids=["of the beginning", "of another text", "that ended before"],
)
def test_outputs_that_belong_to_no_cell_are_left_out_and_counted(run):
    page = notebook_page(stored(), executed(*run))
    assert texts(page) == ["one"]
    assert "took 7 s. 1 of 2 cells are without: " in page.cells[1].source


def test_what_is_for_the_screen_becomes_a_sentence_and_a_solution_is_folded():
    page = notebook_page(stored(), executed(*RUN))
    *_, solution, prepares, explore, end = page.cells
    assert "hide-input" in solution.metadata.tags
    assert solution.metadata.mystnb == {"code_prompt_show": "Show a solution"}
    assert explore.cell_type == "markdown" and explore.source == EXPLORE and not prepares.source
    assert not {"outputs", "execution_count"} & explore.keys()
    assert end.source == "The end."


def test_a_figure_keeps_its_caption_as_alternative_text():
    figure = new_output("display_data", {"image/png": "eA=="})
    figure.metadata = {"image/png": {"alt": "Twelve anchors."}}
    run = cell("b", "2", count=3)
    run.outputs = [new_output("stream", text="x"), figure]
    page = notebook_page(stored(), executed(run))
    assert page.cells[3].metadata.mystnb == {"image": {"alt": "Twelve anchors."}}


def test_names_that_notebooks_use_of_the_package(tmp_path):
    sources = {
        "01_one": "import torch\nfrom clsp_utils.data import b, a\nfrom numpy import c",
        "02_two": "def f():\n    from clsp_utils.data import c\nfrom clsp_utils.book import d",
    }
    for name, source in sources.items():
        cells = [new_markdown_cell("from clsp_utils.data import z"), new_code_cell(source)]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    found = used_names(sorted(tmp_path.iterdir()))
    assert found == {"clsp_utils.book": ["d"], "clsp_utils.data": ["a", "b", "c"]}
