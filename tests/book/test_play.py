"""The page on which a browser samples: the images of Python, and a reader who turns every knob."""

import functools
import http.server
import shutil
import subprocess
import threading

import numpy as np
import pytest
import torch
from networks_of_others import one_sentence

from clsp_utils.book import play
from clsp_utils.config import PROJECT, ConfigError, UNetShape
from clsp_utils.data import to_diffusion_range
from clsp_utils.diffusion import build_unet, sample
from clsp_utils.pipeline import Companion, InterpolatedBank, Profile
from clsp_utils.positives import interpolate
from clsp_utils.runtime import generator, missing_for_onnx

SEED, K, STEPS = 3, 2, 10
PATIENCE = 120_000  # milliseconds, on a busy machine

pytestmark = pytest.mark.slow


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def companion(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLSP_HOME", str(tmp_path_factory.mktemp("home")))
        yield Companion("smoke")


@pytest.fixture(scope="module")
def page(browser, companion, tmp_path_factory):
    """The folder of the page, and how many bytes a browser loads."""
    if missing := missing_for_onnx():
        pytest.skip(f"the extra export is missing: {missing}")
    if not play.RUNTIME.is_dir():
        if not shutil.which("npm"):
            pytest.skip("there is no npm here, which brings ONNX Runtime")
        subprocess.run(["npm", "ci", "--prefix", PROJECT / "play", "--silent"], check=True)
    folder = tmp_path_factory.mktemp("play")
    return folder, play.write_page(companion, folder)


@pytest.fixture(scope="module")
def address(page):
    """Where a server of plain files offers the page."""
    handler = functools.partial(QuietHandler, directory=page[0])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def tab(browser, address):
    """A page of the browser, 390 pixels wide; whatever appears on its console is a failure."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(PATIENCE)
    tab, said = context.new_page(), []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    yield tab
    context.close()
    assert said == []


# The same numbers ---------------------------------------------------------------------------------

IN_THE_BROWSER = """async ({ bytes, settings, noise }) => {
  const { load } = await import("./networks.js");
  const { interpolate } = await import("./sampler.js");
  const { toBytes, toNumbers } = await import("./pictures.js");
  window.networks ??= await load(16);
  const next = (rows) => (n) => {
    const row = Float32Array.from(rows.shift());
    if (row.length !== n) throw new Error(`${n} numbers are asked for, ${row.length} are given`);
    return row;
  };
  const given = { branch: next(noise.branch), anchor: next(noise.anchor) };
  let last;
  for await (last of interpolate(window.networks, toNumbers(bytes), settings, given));
  return {
    bytes: Array.from(toBytes(last.clean, 256)),
    shares: await window.networks.judge(toBytes(last.clean, 256)),
    left: noise.branch.length + noise.anchor.length,
  };
}"""


@pytest.fixture(scope="module")
def same_tab(browser, address):
    """One for all comparisons, so that the networks are loaded once."""
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto(address + "play.json")  # an empty page of the same origin
    yield tab
    tab.close()


def drawn(shape, times, *names):
    """Normal numbers as `times` calls draw them one after the other, as lists."""
    g = generator(*names)
    return [torch.randn(shape, generator=g).flatten().tolist() for _ in range(times)]


def in_python(unet, image, how):
    """K candidates, uint8 (K, 16, 16, 3)."""
    if not how["silent"]:
        given = (how["w"], how["below"] or 1, K, STEPS, how["eta"], SEED, "fp32")
        return interpolate(unet, image[None], *given)[0]
    g = generator(SEED, "noise branch")
    noise = torch.randn(K, 3, 16, 16, generator=g)

    def silence(features, t):
        return features._replace(h=torch.zeros_like(features.h))

    return sample(unet, noise, STEPS, how["eta"], g, "fp32", silence).numpy()


PLAIN = {"w": 0.1, "below": 1000, "silent": False, "eta": 0}


@pytest.mark.parametrize("how, n_anchor", [
    (PLAIN, 10), (PLAIN | {"w": 1}, 0), (PLAIN | {"w": 0}, 10), (PLAIN | {"below": 500}, 5),
    (PLAIN | {"silent": True}, 0), (PLAIN | {"eta": 1, "below": 400}, 4),
], ids=["w = 0.1", "w = 1", "w = 0", "window", "silent", "eta = 1"])  # fmt: skip
def test_the_browser_draws_what_python_draws(companion, same_tab, how, n_anchor):
    image = companion.data.study_images(play.N_ANCHORS).images[7]
    found = same_tab.evaluate(IN_THE_BROWSER, {
        "bytes": image.flatten().tolist(),
        "settings": {**how, "steps": STEPS, "k": K},
        "noise": {
            "branch": drawn((K, 3, 16, 16), 1 + STEPS * how["eta"], SEED, "noise branch"),
            "anchor": drawn((1, 3, 16, 16), n_anchor, SEED, "anchor noise"),
        },
    })  # fmt: skip
    expected = in_python(companion.unet, image, how)
    here = np.array(found["bytes"]).reshape(expected.shape)
    assert np.abs(here - expected.astype(int)).max() <= 1
    assert found["left"] == 0 and expected.std() > 5
    judge = play.Classifier(companion.judge.network, companion.judge.statistics)
    with torch.inference_mode():
        shares = judge(torch.from_numpy(here.astype(np.uint8))).softmax(1).numpy()
    np.testing.assert_allclose(found["shares"], shares, atol=1e-4)


def test_settings_differ_in_what_they_draw(companion):
    """Else the comparisons above would show nothing."""
    image = companion.data.study_images(play.N_ANCHORS).images[7]
    hows = [PLAIN, {**PLAIN, "w": 1}, {**PLAIN, "below": 500}, {**PLAIN, "silent": True}]
    drawn_by = [in_python(companion.unet, image, how).astype(int) for how in hows]
    for i, one in enumerate(drawn_by):
        for other in drawn_by[:i]:
            assert np.abs(one - other).max() > 3


def test_both_directions_of_pixels_agree(companion, same_tab):
    image = companion.data.study_images(play.N_ANCHORS).images[0]
    there = same_tab.evaluate(
        """async (bytes) => {
          const { toBytes, toNumbers } = await import("./pictures.js");
          const x = toNumbers(bytes);
          return [Array.from(x), Array.from(toBytes(x, bytes.length / 3))];
        }""",
        image.flatten().tolist(),
    )
    expected = to_diffusion_range(torch.from_numpy(image[None])).flatten()
    np.testing.assert_allclose(there[0], expected, atol=1e-6)
    assert there[1] == image.flatten().tolist()


def test_noise_is_standard_normal_and_repeats(same_tab):
    draw = (
        "async ([seed, name]) => Array.from((await import('./noise.js')).normals(seed, name)(1e4))"
    )
    x, again, seed, name = (
        np.array(same_tab.evaluate(draw, given))
        for given in ([0, "a"], [0, "a"], [1, "a"], [0, "b"])
    )
    assert np.array_equal(x, again)
    for one in (x, seed, name):
        assert abs(one.mean()) < 0.04 and abs(one.std() - 1) < 0.04
        assert abs((one**4).mean() - 3) < 0.4 and abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.04
    for other in (seed, name):
        assert abs(np.corrcoef(x, other)[0, 1]) < 0.04


# A reader -----------------------------------------------------------------------------------------


def finished(tab):
    """What stands there once all candidates are drawn."""
    status = tab.get_by_role("status").filter(has_text="The judge sees")
    status.wait_for()
    return status.inner_text()


def pictures(tab):
    """All candidates, as they are on the screen."""
    return tab.locator("#pictures canvas").evaluate_all(
        "all => all.slice(1).map((one) => one.toDataURL())"
    )


def changes(tab, key):
    """Presses a key; waits for the images that follow, which are others, and returns them."""
    before = pictures(tab)
    tab.get_by_role("status").evaluate("(status) => { status.textContent = ''; }")
    tab.keyboard.press(key)
    finished(tab)
    after = pictures(tab)
    assert after != before
    return after


def test_every_knob_turns_by_keyboard_and_a_link_repeats(tab, address):
    tab.goto(address + "#steps=5")
    said = finished(tab)
    assert "(5 steps, " in said and "of 6 candidates" in said
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    labels = tab.locator("#pictures canvas").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert len(labels) == 7 and labels[6].startswith("candidate 6: ")

    tab.get_by_role("radio").first.focus()
    changes(tab, "ArrowRight")
    tab.keyboard.press("Tab")
    changes(tab, "ArrowRight")
    assert tab.get_by_label("Mix weight").input_value() == "0.15"
    tab.keyboard.press("Tab")
    changes(tab, "End")
    assert "at every step: 0.15 of the sample's" in tab.locator("#now").inner_text()
    tab.keyboard.press("Tab")
    changes(tab, "ArrowDown")
    tab.keyboard.press("Tab")
    changes(tab, "ArrowUp")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    changes(tab, "Enter")
    tab.keyboard.press("Tab")
    silent = changes(tab, "Space")
    assert "the middle is zero" in tab.locator("#now").inner_text()

    for part in ("anchor=1&w=0.15&below=1000&steps=10&eta=0&seed=", "&silent=on"):
        assert part in tab.url
    link = tab.url
    tab.goto("about:blank")
    tab.goto(link)
    finished(tab)
    assert pictures(tab) == silent


def test_what_the_address_cannot_have_is_said(tab, address):
    tab.goto(address + "#steps=7&w=3&seed=-1&anchor=99&colour=red")
    refused = "steps=7, w=3, seed=-1, anchor=99, colour"
    assert finished(tab).startswith(f"The address asks for {refused}, which this page cannot do.")
    assert tab.get_by_label("Seed").input_value() == "0"
    assert tab.get_by_role("radio").first.is_checked()
    tab.get_by_label("Seed").fill("1.5")
    tab.get_by_role("status").filter(has_text="The seed must be a whole number from 0").wait_for()


@pytest.mark.parametrize("name", ["play.json", "judge.onnx", "onnxruntime.wasm.gzip"])
def test_what_cannot_be_loaded_is_named(browser, address, name):
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.route(f"**/{name}", lambda route: route.fulfill(status=404))
    tab.goto(address)
    tab.get_by_role("status").filter(has_text=f"{name} could not be loaded (404).").wait_for()
    tab.close()


# The files ----------------------------------------------------------------------------------------


def test_the_laptop_profile_loads_less_than_10_mb(page):
    unet = build_unet(UNetShape(), 16)
    judge = 4 * 310_000  # the bytes of its weights
    assert page[1] + 4 * sum(one.numel() for one in unet.parameters()) + judge < 10e6


def test_the_page_begins_with_the_settings_of_the_laptop_profile(tab, address):
    bank = Profile("laptop").stage(InterpolatedBank)
    tab.goto(address)
    chosen = {name: tab.locator(f"#{name}").input_value() for name in ("w", "below")}
    assert chosen == {"w": f"{bank.mix_weight:g}", "below": str(bank.mix_below)}
    finished(tab)


def test_without_npm_it_says_how(monkeypatch, tmp_path):
    monkeypatch.setattr(play, "RUNTIME", tmp_path / "nothing")
    with pytest.raises(ConfigError, match="nothing' is missing: `make play` brings it") as error:
        play.write_page(None, tmp_path / "play")
    one_sentence(error)
    assert not (tmp_path / "play").exists()
