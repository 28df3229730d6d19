"""The page of a run: figures with their captions, errors, nothing that breaks out of the HTML."""

import base64
import re

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from clsp_utils.book.report import report_page

PICTURE = base64.b64encode(b"a picture").decode()


def entry(name, error=None):
    status = "failed" if error else "ok"
    parameters = {"profile": "smoke", "overrides": {"study.methods": ["<b>"]}}
    return {
        "name": name,
        "status": status,
        "seconds": 61.5,
        "peak_mb": 1234,
        "error": error,
        "parameters": parameters,
    }


def drawn(folder, name, *metadata):
    """An executed notebook with a picture per metadata."""
    outputs = [
        new_output("display_data", {"image/png": f"{PICTURE}\n"}, metadata={"image/png": one})
        for one in metadata
    ]
    cells = [new_code_cell("draw()", outputs=[new_output("stream", text="x"), *outputs])]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


def test_page_shows_each_figure_with_its_caption_as_alternative_text(tmp_path):
    drawn(tmp_path, "01_one", {"alt": 'Twelve "anchors" & w < 1.'}, {}, {"alt": "Loss."})
    page = report_page([entry("01_one"), entry("02_two")], "smoke", tmp_path)
    alts = re.findall(rf'<img src="data:image/png;base64,{PICTURE}" alt="([^"]*)">', page)
    assert alts == ["Twelve &#34;anchors&#34; &amp; w &lt; 1.", "Loss."]
    assert alts == re.findall("<figcaption>(.*?)</figcaption>", page)
    assert "2 of 2 notebooks ran to their\nend in 123 s" in page
    assert page.count('<td class="number">1234') == 2 and 'href="notebooks/01_one.ipynb"' in page


def test_page_tells_the_error_as_text(tmp_path):
    page = report_page([entry("01_one", "cell 4 failed with <x> & y")], "gpu", tmp_path)
    assert "<pre>cell 4 failed with &lt;x&gt; &amp; y</pre>" in page
    assert '<td class="failed">failed' in page and "0 of 1" in page
    assert "<b>" not in page and "profile gpu" in page
