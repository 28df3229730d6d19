"""JupyterLab as `make lab` starts it, and kernels as papermill does: on localhost, with a token."""

import ipaddress
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from homes import below, clsp, kernel_of, kill_all

ROOT = Path(__file__).parents[2]


def listening(process):
    """Addresses at which a process and all below it accept connections."""
    found = set()
    for one in [psutil.Process(process.pid), *below(process)]:
        with suppress(psutil.Error):  # it has just ended
            connections = one.net_connections("inet")
            found |= {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def assert_local(addresses):
    assert addresses and all(
        ipaddress.ip_address(address.ip).is_loopback for address in addresses
    ), addresses


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The Makefile's own command, with this Python and no browser: (process, address, token)."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("CLSP_HOME", str(tmp_path / "home"))
    here = {"open_browser": False, "allow_root": True, "port": 0}
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/jupyter_server_config.json").write_text(json.dumps({"ServerApp": here}))
    said = subprocess.run(
        ["make", "-n", "-o", ".venv/ready", "lab", f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [command] = [line for line in said.splitlines() if "clsp_utils lab" in line]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command.split(), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end, found = time.monotonic() + 60, None
        while not found and time.monotonic() < end and process.poll() is None:
            found = re.search(r"(http://[^/\s]+)/\S*\?token=(\w+)", (tmp_path / "log").read_text())
            time.sleep(0.1)
        assert found, (tmp_path / "log").read_text()
        yield process, *found.groups()
    finally:  # a server without a token must not stay either
        kill_all([*below(process), process])
        process.wait()


def ask(url, token=None, method="GET", data=None):
    request = urllib.request.Request(url, method=method, data=data)
    if token:
        request.add_header("Authorization", f"token {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@pytest.mark.slow
@pytest.mark.item("9 servers", "JupyterLab")
def test_lab_listens_on_localhost_alone_and_asks_for_a_token(lab):
    process, address, token = lab
    assert len(token) >= 32
    assert ask(f"{address}/api/contents")[0] == 403, "without a token"
    assert ask(f"{address}/api/contents", "0" * 48)[0] == 403, "with a wrong one"
    assert ask(f"{address}/api/contents", token)[0] == 200
    status, kernel = ask(f"{address}/api/kernels", token, "POST", b"{}")
    assert status == 201 and json.loads(kernel)["id"]
    time.sleep(2)
    assert_local(listening(process))


@pytest.mark.slow
@pytest.mark.item("9 servers", "kernels of papermill")
def test_papermill_kernels_listen_on_localhost_alone(tmp_path):
    run = clsp(tmp_path, "run", "01", "--profile", "smoke")
    kernel = kernel_of(run)
    assert kernel
    time.sleep(2)
    addresses = listening(run)
    kill_all([run, *below(run)])
    run.communicate()
    assert_local(addresses)
