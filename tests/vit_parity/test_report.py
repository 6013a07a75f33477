"""The report is one file that needs nothing else, holds the numbers of the comparison, and works in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.small_configs import COMBINATIONS
from tests.vit_parity.runs import checkpoint, random_batch, replayed_model, run_torch
from vit_parity import Capture, compare_captures
from vit_parity.comparison import Comparison, depth_of
from vit_parity.explain import explain
from vit_parity.report import Extras, write_report
from vit_spec import Preprocessing, VitportError

CONFIG = COMBINATIONS["plain"]
WEIGHTS, IMAGES = checkpoint(CONFIG), random_batch(CONFIG)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def comparison() -> Comparison:
    """B has other GELUs; its name tries to end the page's script."""
    other = replace(WEIGHTS, config=CONFIG.replace(activation="gelu_tanh"))
    truth = Capture("truth", run_torch(WEIGHTS, IMAGES, "float64").activations, IMAGES)
    b = run_torch(other, IMAGES, title="</script><b>B&")
    return compare_captures(
        run_torch(WEIGHTS, IMAGES, title="A"), b, truth=truth, model=replayed_model(WEIGHTS, IMAGES)
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    found, model = comparison(), replayed_model(WEIGHTS, IMAGES)
    extras = Extras(
        CONFIG,
        Preprocessing(size=CONFIG.image_size),
        model,
        [depth_of(run_torch(WEIGHTS, IMAGES, "bfloat16"), found.truth, model)],
        explain(found.b, model),
        {"weights": "0123abcd"},
    )
    path = tmp_path_factory.mktemp("report") / "out.html"
    write_report(found, path, extras)
    return path


class Page(HTMLParser):
    """Tags with their attributes, and the text of the data script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1] == ("script", {"type": "application/json", "id": "data"}):
            self.data += data


def test_nothing_is_fetched(page):
    """No address in any attribute, style or script but the names of SVG and of data."""
    text = page.read_text(encoding="utf-8")
    for tag, attributes in Page(text).tags:
        assert tag not in ("img", "iframe", "object"), tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    addresses = set(re.findall(r"https?://[^\"' ]*", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in text
    assert "@media (prefers-color-scheme: dark)" in text


def test_the_numbers_are_those_of_the_comparison(page):
    """Every row, the first divergence, the cause; counts of the histogram add up to the elements."""
    data = json.loads(Page(page.read_text(encoding="utf-8")).data)
    found = comparison()
    assert data["first_divergence"] == "blocks.0.mlp.act"
    assert "uses tanh GELU" in data["causes"][0]
    assert [row["name"] for row in data["rows"]] == [row.name for row in found.rows]
    for shown, row in zip(data["rows"], found.rows, strict=True):
        assert shown["relative"] == row.difference.relative
        assert sum(shown["histogram"]) == np.prod(row.shape)
    zero = next(shown for shown in data["rows"] if shown["name"] == "embed")
    assert zero["histogram"] == [int(np.prod((2, 16, 24)))], "the embeddings are equal bit for bit"
    names = [line["name"] for line in data["growth"]["lines"]]
    assert names == ["A, float32", "B, float32", "bfloat16", "bound, float32", "bound, bfloat16"]
    assert data["growth"]["stages"] == ["embed", "blocks.0", "blocks.1", "norm", "logits"]
    assert ["SHA-256 of weights", "0123abcd"] in data["facts"]


def test_patches_are_where_they_are_on_the_image(page):
    """Oracle: the relative difference of one token, by hand; the image is the first one, its mean put back."""
    data = json.loads(Page(page.read_text(encoding="utf-8")).data)
    found, heat = comparison(), data["heat"]
    assert np.shape(heat["maps"]["blocks.1"]) == (3, 5)
    a, b = (run.activations["blocks.1"].astype(np.float64)[0, 1 + 7] for run in (found.a, found.b))
    by_hand = np.linalg.norm(b - a) / np.linalg.norm(a)
    assert heat["maps"]["blocks.1"][1][2] == float(f"{by_hand:.3e}")  # the page holds four digits
    image = Image.open(io.BytesIO(base64.b64decode(heat["image"].partition(",")[2])))
    preprocessing = Preprocessing()
    expected = IMAGES[0] * np.array(preprocessing.std) + np.array(preprocessing.mean)
    np.testing.assert_array_equal(np.asarray(image), (expected.clip(0, 1) * 255).round().astype(np.uint8))


def test_numbers_that_json_lacks_do_not_break_the_page(tmp_path):
    """NaN in an activation, and no weights: still strict JSON."""
    run = run_torch(WEIGHTS, IMAGES)
    broken = run.activations["blocks.0"].copy()
    broken[0, 3, 0] = np.nan
    found = compare_captures(run, replace(run, activations=run.activations | {"blocks.0": broken}))
    write_report(found, tmp_path / "out.html", Extras(CONFIG))
    text = Page((tmp_path / "out.html").read_text(encoding="utf-8")).data
    data = json.loads(text, parse_constant=pytest.fail)
    assert next(row for row in data["rows"] if row["name"] == "blocks.0")["relative"] is None


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(VitportError, match="cannot be written"):
        write_report(comparison(), tmp_path / "nowhere" / "out.html")


PROBE = """<script>
const seen = [];
const names = () => [...document.querySelectorAll("#body tr")].map(row => row.firstChild.textContent);
seen.push(["rows", names().length]);
const sort = document.querySelector('th[data-key="relative"] button');
sort.click();
seen.push(["descending", names()[0], document.querySelector('[aria-sort="descending"]').dataset.key]);
sort.click();
seen.push(["ascending", names()[0], document.querySelector('[aria-sort="ascending"]').dataset.key]);
sort.click();
const rows = document.querySelectorAll("#body tr");
rows[0].focus();
seen.push(["focused", document.getElementById("chosen").textContent]);
rows[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
seen.push(["down", document.activeElement === rows[1], document.getElementById("chosen").textContent === names()[1]]);
document.querySelector("#growth circle")?.dispatchEvent(new MouseEvent("mouseenter"));
seen.push(["hover", document.getElementById("tip").textContent]);
const stage = document.getElementById("stage");
stage.value = "blocks.0"; stage.dispatchEvent(new Event("change"));
seen.push(["heat", document.querySelectorAll("#heat rect").length, document.getElementById("heatnote").textContent]);
const tip = () => document.getElementById("tip").textContent;
const hover = chart => {
  document.querySelector(`${chart} rect`)?.dispatchEvent(new MouseEvent("mouseenter"));
  return tip();
};
seen.push(["boxes", hover("#heat"), hover("#ulps")]);
const press = (chart, key) => {
  document.getElementById(chart).focus();
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key }));
  return tip();
};
const arrows = ["ArrowRight", "ArrowDown", "ArrowUp"].map(key => press("heat", key));
seen.push(["arrows", ...arrows, press("ulps", "ArrowRight")]);
seen.push(["image", document.querySelector("#heat image")?.getAttribute("href").slice(0, 15)]);
seen.push(["facts", document.getElementById("facts").textContent]);
seen.push(["paper", getComputedStyle(document.body).backgroundColor]);
seen.push(["side", document.getElementById("sides").textContent, document.querySelectorAll("b").length]);
const probe = document.createElement("pre"); probe.id = "probe"; probe.textContent = JSON.stringify(seen);
document.body.append(probe);
</script></body>"""


def probed(page: Path, tmp_path: Path, *options: str) -> dict[str, list]:
    """What the page's script saw in a browser, which had nothing to say on its console."""
    text = page.read_text(encoding="utf-8").replace("</body>", PROBE)
    (tmp_path / "probe.html").write_text(text, encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        *options,
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, "the page's script failed"
    text = match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return {name: values for name, *values in json.loads(text)}


@pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium, such as Debian's package")
def test_the_page_works_in_a_browser(page, tmp_path):
    """Sorting, choosing by keyboard, hovering, another stage, image and hashes; nothing on the console."""
    seen = probed(page, tmp_path)
    found = comparison()
    by_size = sorted(found.rows, key=lambda row: row.difference.relative)
    assert seen["rows"] == [len(found.rows)]
    assert seen["descending"] == [by_size[-1].name, "relative"]
    assert seen["ascending"][1] == "relative"
    assert next(row for row in found.rows if row.name == seen["ascending"][0]).difference.relative == 0
    assert seen["focused"] == [by_size[-1].name]
    assert seen["down"] == [True, True]
    assert seen["hover"][0].startswith("A, float32 after embed: ")
    assert seen["heat"][0] == 15
    assert "Relative L2 difference" in seen["heat"][1]
    assert seen["side"] == ["A: A \u2013 B: </script><b>B&", 0], "a title is text, never a tag"
    patch = "patch in row {}, column 1: "
    assert seen["boxes"][0].startswith(patch.format(1))
    assert seen["boxes"][1].endswith(" elements from 0 ulp")
    for text, start in zip(seen["arrows"], [patch.format(row) for row in (1, 2, 1)], strict=False):
        assert text.startswith(start), "arrows go from patch to patch"
    assert seen["arrows"][3] == seen["boxes"][1], "and from bar to bar"
    assert seen["image"] == ["data:image/png;"]
    for told in ("SHA-256 of weights0123abcd", f"torch{torch.__version__.partition('+')[0]}", "numpy", "machine"):
        assert told in seen["facts"][0]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium, such as Debian's package")
def test_the_page_is_light_or_dark_as_the_system_is(page, tmp_path):
    """Blink's own setting stands for the system's."""
    papers = [probed(page, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")["paper"] for scheme in (0, 1)]
    assert papers == [["rgb(20, 23, 27)"], ["rgb(255, 255, 255)"]]
