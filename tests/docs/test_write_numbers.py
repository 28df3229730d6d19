"""Numbers in the documents are those of the committed tables."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def numbers(monkeypatch):
    """The module, which is in no package."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("write_numbers")


def test_documents_say_what_the_tables_say(numbers):
    """`make numbers` mends what fails here."""
    for sentence in numbers.sentences():
        text = (ROOT / sentence.document).read_text()
        assert numbers.rewritten(text, sentence) == text, sentence.template


def test_findings_of_the_readme_have_no_number_that_is_typed(numbers):
    text = (ROOT / "README.md").read_text()
    for sentence in numbers.sentences():
        if sentence.document == "README.md":
            template = re.sub(r"\{[^}]*\}", "{}", sentence.template)
            blank = sentence._replace(template=template, values=("#",) * len(sentence.values))
            text = numbers.rewritten(text, blank)
    (findings,) = re.findall(r"\n## What we found.*?\n(.*?)\n\[All results", text, re.S)
    assert findings.count("#") > 20
    assert not re.findall(r".{0,20}\d+.{0,20}", re.sub(r"w = [\d.]+|95 %", "", findings))


def replaced(numbers, text, template, *values):
    return numbers.rewritten(text, numbers.Sentence("x.md", template, values))


def test_only_numbers_are_replaced_over_line_breaks_and_as_words(numbers):
    text = "At 3 we have\n  -0.5 (0.1 to 2),\nTwo of nine. At 3 it ends."
    template = "have {:+.1f} ({:.1f} to {:.0f}), {} of {}."
    new = replaced(numbers, text, template, 1.26, 0.04, 11, "One", "twelve")
    assert new == "At 3 we have\n  +1.3 (0.0 to 11),\nOne of twelve. At 3 it ends."


@pytest.mark.parametrize("text, times", [("nothing", 0), ("w is 1. w is 2.", 2)])
def test_sentence_that_stands_there_not_once_is_named(numbers, text, times):
    with pytest.raises(ValueError, match=rf"x\.md has {times} times.*w is \{{:d\}}"):
        replaced(numbers, text, "w is {:d}.", 3)
