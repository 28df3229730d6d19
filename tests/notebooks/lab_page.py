"""JupyterLab in a real browser, as a reader has it."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import urlopen

from clsp_utils.book.lab import SETTINGS

OUTPUT = ".widget-interact .jp-OutputArea"  # what stands below the controls
SECONDS = 300  # that all cells of a notebook may take
WAIT = 120_000  # milliseconds for anything else

OPEN = """async name => {
    const app = window.jupyterapp;
    await app.restored;
    window.panel = await app.commands.execute('docmanager:open', {path: name});
    await panel.context.ready;
    await panel.sessionContext.ready;
}"""
RUN_ALL = """async seconds => {
    const late = new Promise((_, no) => setTimeout(() => no('it takes too long'), 1000 * seconds));
    await Promise.race([window.jupyterapp.commands.execute('runmenu:run-all'), late]);
    const cells = [...panel.content.model.cells].filter(cell => cell.type === 'code');
    const outputs = cells.flatMap(cell => cell.outputs.toJSON());
    const errors = outputs.filter(output => output.output_type === 'error');
    return {
        errors: errors.map(error => `${error.ename}: ${error.evalue}`),
        left_out: cells.filter(cell => cell.executionCount === null).length,
    };
}"""
# The controls are in the last of the cells for readers.
SHOW = """() => {
    const cells = panel.content.widgets;
    const tags = cells.map(cell => cell.model.getMetadata('tags') ?? []);
    const last = tags.findLastIndex(own => own.includes('interactive'));
    return panel.content.scrollToItem(last, 'start');
}"""
CLOSE = """async () => {
    await panel.context.save();
    await panel.sessionContext.shutdown();
    panel.dispose();
}"""

# The key that moves a control; at its upper end a slider goes down.
KEY = """part => {
    if (part.tagName === 'BUTTON') return 'Enter';
    if (part.type === 'checkbox') return 'Space';
    if (part.tagName !== 'DIV') return 'ArrowUp';
    const at = name => Number(part.getAttribute(`aria-value${name}`));
    return at('now') < at('max') ? 'ArrowUp' : 'ArrowDown';
}"""


@contextmanager
def jupyterlab(folder, place, **environment):
    """A server on the notebooks of a folder; gives its address. `place` is for its own files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = [f"JUPYTER_{name}" for name in own] + ["IPYTHONDIR"]
    own += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    environment |= {name: str(place / name) for name in own}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        "--expose-app-in-browser", f"--ServerApp.root_dir={folder}",
        f"--LabApp.app_settings_dir={SETTINGS}",
    ]  # fmt: skip
    with open(place / "server.log", "w") as log:
        server = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urlopen(f"{address}/api").close()
                break
            except OSError:
                assert server.poll() is None, (place / "server.log").read_text()
                time.sleep(0.2)
        yield f"{address}/lab"
    finally:
        server.terminate()
        server.wait()


class LabPage:
    """JupyterLab in a page, with a notebook at a time, and what the console said of it."""

    def __init__(self, browser, address):
        self.page, self.console = browser.new_page(viewport={"width": 1200, "height": 1000}), []
        self.page.set_default_timeout(WAIT)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("console", self._keep_error)
        self.page.goto(address)
        self.page.wait_for_function("window.jupyterapp")

    def _keep_error(self, message):
        if message.type == "error":
            self.console.append(message.text)

    @contextmanager
    def opened(self, name):
        """A notebook is open inside; in the end it is saved and closed."""
        self.console.clear()
        self.page.evaluate(OPEN, name)
        self.page.wait_for_function("window.jupyterapp.shell.currentWidget === panel")
        try:
            yield self
        finally:
            self.page.evaluate(CLOSE)

    def run_all(self):
        """Errors of its cells, and how many of them were not executed."""
        return self.page.evaluate(RUN_ALL, SECONDS)

    def controls(self):
        """Each control of the notebook, which is scrolled to them."""
        self.page.evaluate(SHOW)
        self.page.wait_for_selector(".widget-interact img")
        self.idle()
        parts = ".noUi-handle", "select", "input", "button:not(.mod-active)"
        return self.page.query_selector_all(", ".join(f".widget-interact {part}" for part in parts))

    def output(self):
        """What stands below the controls."""
        return self.page.inner_html(OUTPUT)

    def move(self, control):
        """Moves a control with the keyboard alone, and waits until the output is another."""
        before = self.output()
        control.focus()
        self.page.keyboard.press(control.evaluate(KEY))
        self.page.wait_for_function(
            f"before => document.querySelector('{OUTPUT}').innerHTML !== before", arg=before
        )
        self.idle()

    def idle(self):
        """Waits until the kernel has nothing to do."""
        self.page.wait_for_function("panel.sessionContext.session.kernel.status === 'idle'")
