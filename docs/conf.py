"""Sphinx makes the site: `make site`. Sources lie in the whole project, and pages as they do.

Notebooks are read as they were run at a profile (`-D profile=laptop`, see `clsp_utils.book.site`).
"""

import importlib
import os
import re
import shutil
from importlib import resources
from pathlib import Path

import nbformat
from PIL import Image
from sphinx.application import Sphinx

from clsp_utils.book.run_notebooks import find_notebooks
from clsp_utils.book.site import notebook_page, used_names
from clsp_utils.config import PROJECT, home

NOTEBOOKS = find_notebooks(PROJECT / "notebooks")
PLAY = home("build", "play")
GITHUB = os.environ.get(
    "GITHUB_REPOSITORY", ""
)  # owner/name, where a workflow of it builds the site

project = "CLSP companion"
author = "The CLSP companion developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "*.md", "benchmarks/*.md"]
exclude_patterns = ["README.md", ".*", "artifacts", "build", "data", "lab", "play"]
nitpicky = True
# Types of other packages have their own sites, which a build without a network cannot ask.
nitpick_ignore_regex = [("py:.*", r"(?!clsp_utils).*")]
default_role = "code"  # docstrings quote code with single backticks
add_module_names = False
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # shapes and ranges are in the text
python_maximum_signature_line_length = 80

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = [
    "_static",
    str(resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"),
]
html_css_files = ["site.css"]
html_extra_path = ["_root"]
html_copy_source = True  # the download of a page: a notebook as it is stored
mathjax_path = "tex-svg.js"  # the copy of MathJax that is installed: no script from elsewhere
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the sidebar has a search field
}
if GITHUB:
    html_theme_options |= {
        "repository_url": f"https://github.com/{GITHUB}",
        "use_repository_button": True,
    }

nb_execution_mode = "off"
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "colon_fence", "substitution"]
myst_dmath_double_inline = True  # as JupyterLab draws $$
myst_heading_anchors = 4
myst_update_mathjax = False


def literal(text: str) -> str:
    """Text in which Markdown finds no signs of its own."""
    return re.sub(r"([\\`*_\[\]<>$|])", r"\\\1", text)


def gallery() -> str:
    """The figures of the laptop profile, each a link to the notebook that draws it."""
    pages = {path.name[:2]: f"../notebooks/{path.name}" for path in NOTEBOOKS}
    shown = []
    for path in sorted((PROJECT / "figures").glob("*.png")):
        caption = literal(Image.open(path).text["Description"])
        shown.append(f"[![{caption}](../figures/{path.name})]({pages[path.name[:2]]})")
    return "\n\n".join(shown)


def section(title: str) -> str:
    """A section of the README, its links as they are from docs/."""
    readme = (PROJECT / "README.md").read_text("utf-8")
    text = readme.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.sub(r"\]\((?!https:)", "](../", text)


if PLAY.exists():
    play = '<a href="../play/index.html">Mix the middles in your own browser</a>, with no install.'
else:
    play = "This copy of the site was built without the page that runs the UNet in your browser."
myst_substitutions = {"gallery": gallery(), "play": play}


def tell(app: Sphinx) -> None:
    """Says which pages will have no outputs."""
    executed = home("build", app.config.profile, "notebooks")
    missing = [path.stem for path in NOTEBOOKS if not (executed / path.name).exists()]
    if missing:
        print(
            f"Not run at the profile {app.config.profile}: {', '.join(missing)}. Their pages have "
            f"no outputs; `make everything` runs them."
        )


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Changes the text of a page before it is parsed."""
    path = Path(app.env.doc2path(name))
    if path.suffix == ".ipynb":
        copy = home("build", app.config.profile, "notebooks", path.name)
        app.env.note_dependency(str(copy))
        executed = nbformat.read(copy, as_version=4) if copy.exists() else None
        page = notebook_page(nbformat.reads(source[0], as_version=4), executed)
        source[0] = nbformat.writes(page)
        return
    source[0] = re.sub(r"\{section\}`(.*?)`", lambda found: section(found[1]), source[0])
    source[0] = re.sub(
        r"\[([^\]]*)\]\((?!https:|#)([^)#]+)[^)]*\)",
        lambda link: link[0] if inside(path, link[2]) else outside(path, link),
        source[0],
    )
    if name == "docs/api":
        source[0] += rooms()


def inside(page: Path, link: str) -> bool:
    """Whether a link leads to another page, or to a picture."""
    target = (page.parent / link).resolve()
    return target.suffix in (".md", ".ipynb", ".png") and target != PROJECT / "README.md"


def outside(page: Path, link: re.Match) -> str:
    """What stands for a link to a file that is no page: a link to GitHub, or its text alone."""
    path = (page.parent / link[2]).resolve().relative_to(PROJECT)
    return f"[{link[1]}](https://github.com/{GITHUB}/blob/HEAD/{path})" if GITHUB else link[1]


def rooms() -> str:
    """What notebooks use of the package, room by room."""
    text = ""
    for module, names in used_names(NOTEBOOKS).items():
        room = importlib.import_module(module)
        for name in names:  # rooms import some of it when it is asked for
            setattr(room, name, getattr(room, name))
        text += (
            f"\n## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n"
            f"   :members: {', '.join(names)}\n   :imported-members:\n```\n"
        )
    return text


def add_play(app: Sphinx, error: Exception | None) -> None:
    """Copies the page that runs the UNet in a browser, where it was built, with a way back."""
    if PLAY.exists():
        folder = Path(app.outdir, "play")
        shutil.copytree(PLAY, folder, dirs_exist_ok=True)
        text = (folder / "index.html").read_text("utf-8")
        back = '<nav><a href="../docs/index.html">CLSP companion</a></nav>'
        (folder / "index.html").write_text(text.replace("<h1>", f"{back}\n<h1>"), "utf-8")


def setup(app: Sphinx) -> None:
    """Tells Sphinx of what is made here."""
    app.add_config_value("profile", "laptop", "env", str)
    app.connect("builder-inited", tell)
    app.connect("source-read", read)
    app.connect("build-finished", add_play)
