"""The page of `ubf report` in headless Chromium: a pixel is chosen by mouse, keyboard, finger and address."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, find_browser
from page_reader import Spectra, read_page, read_spectra
from test_report import EVIL, evil_page, real_images
from tiny import NM, tiny_synth

from ubf_augment.metrics import spectral_angles
from ubf_augment.report import write_report

CHART = "document.querySelector('#chart .line.own').getAttribute('d')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with Browser(program) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, names = real_images(24)
    folder = tmp_path_factory.mktemp("report")
    synth = tiny_synth()
    return write_report(
        synth, folder, real=x, wavelengths=NM, labels=names, seed=4, evaluate=0, progress=False
    )


@pytest.fixture(scope="module")
def spectra(page: Path) -> Spectra:
    return read_spectra(read_page(page))


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.resize(1280, 900)
    browser.open(page)
    return browser


def text(browser: Browser, selector: str) -> str:
    return str(browser.run(f"document.querySelector({json.dumps(selector)}).textContent"))


def spectrum(browser: Browser) -> list[float]:
    """The drawn spectrum, read off band by band with the keyboard."""
    browser.run("document.querySelector('#chart svg').focus()")
    values = []
    for _ in NM:
        browser.press("ArrowRight", 39)
        values.append(float(text(browser, "#legend .own .readout")))
    browser.run("document.activeElement.blur()")
    return values


def nearest_real(found: Spectra, picture: int, own: np.ndarray) -> tuple[int, float]:
    """Picture and angle of the nearest spectrum in another real picture."""
    others = [k for k, p in enumerate(found.data["pictures"]) if p["kind"] == "real" and k != picture]
    angles = {}
    for k in others:
        pixels = torch.from_numpy(found.images[k]).flatten(1).T
        angles[k] = float(spectral_angles(torch.from_numpy(own).expand_as(pixels), pixels).min())
    best = min(angles, key=angles.__getitem__)
    return best, angles[best]


def test_a_click_shows_the_spectrum_of_the_pixel_and_its_nearest_real_one(
    opened: Browser, spectra: Spectra
) -> None:
    before = opened.run(CHART)
    for tile, column, row in ((2, 6, 1), (1, 0, 7)):  # a synthetic and a real image of 8 × 8 pixels
        opened.click(f"[data-picture='{tile}']", (column + 0.5) / 8, (row + 0.5) / 8)
        assert opened.run(CHART) != before
        before = opened.run(CHART)
        picture = spectra.data["pictures"][tile]
        assert text(opened, "#chosen") == f"Field, {picture['kind']} {picture['number']}"
        assert text(opened, "#where").startswith(f"column {column}, row {row} ")
        own = spectra.images[tile][:, row, column]
        np.testing.assert_allclose(spectrum(opened), own, atol=6e-5)
        best, angle = nearest_real(spectra, tile, own)
        near = spectra.data["pictures"][best]
        assert float(text(opened, "#legend .angle").rstrip("°")) == pytest.approx(angle, abs=0.006)
        name = f"{spectra.data['rows'][near['row']]}, real {near['number']}"
        assert text(opened, "#legend .jump").startswith(name)
        assert name in text(opened, "#said")
    shares = [
        float(v) for v in opened.run("[...document.querySelectorAll('.value')].map((e) => e.textContent)")
    ]
    np.testing.assert_allclose(shares, spectra.abundances[1][:, 7, 0], atol=0.0051)


def test_the_nearest_real_pixel_can_be_visited(opened: Browser) -> None:
    opened.click("[data-picture='2']", 0.4, 0.4)
    name = re.match(r"(.*) \((\d+), (\d+)\)", text(opened, "#legend .jump"))
    assert name is not None
    opened.click("#legend .jump")
    assert text(opened, "#chosen") == name[1]
    assert text(opened, "#where").startswith(f"column {name[2]}, row {name[3]} ")


def test_keys_choose_images_and_pixels(opened: Browser, spectra: Spectra) -> None:
    opened.run("document.querySelector('.tile').focus()")
    opened.press("Tab", 9)
    opened.press("Enter", 13)
    assert text(opened, "#chosen") == "Field, real 2"
    assert opened.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    for _ in range(9):
        opened.press("ArrowLeft", 37)
    opened.press("ArrowDown", 40, shift=True)
    assert text(opened, "#where").startswith("column 0, row 7 ")
    np.testing.assert_allclose(spectrum(opened), spectra.images[1][:, 7, 0], atol=6e-5)
    opened.run("document.querySelector('#view').focus()")
    opened.press("PageDown", 34)
    opened.press("ArrowUp", 38)
    assert text(opened, "#chosen") == "Field, synthetic 1"
    assert text(opened, "#where").startswith("column 0, row 6 ")
    assert "column 0, row 6" in opened.run("document.querySelector('#view').getAttribute('aria-label')")


def test_an_address_names_a_pixel(opened: Browser, page: Path, spectra: Spectra) -> None:
    opened.open(page, "#pixel=3,5,2")
    assert text(opened, "#where").startswith("column 5, row 2 ")
    np.testing.assert_allclose(spectrum(opened), spectra.images[3][:, 2, 5], atol=6e-5)
    opened.run("document.querySelector('#view').focus()")
    opened.press("ArrowRight", 39)
    assert opened.run("location.hash") == "#pixel=3,6,2"
    opened.open(page, "#pixel=99,5,2")
    assert text(opened, "#chosen") == "Field, synthetic 1"


def test_equal_brightness_scales_the_nearest_spectrum(opened: Browser) -> None:
    opened.click("[data-picture='3']", 0.2, 0.8)
    near = "document.querySelector('#chart .line.near').getAttribute('d')"
    before, own = opened.run(near), opened.run(CHART)
    opened.click("#even")
    assert opened.run(near) != before
    assert opened.run(CHART) == own


def test_endmembers_are_drawn_and_one_can_be_brought_forward(opened: Browser) -> None:
    lines = (
        "[...document.querySelectorAll('#materials-chart .line')].map((e) => e.classList.contains('faded'))"
    )
    assert opened.run(lines) == [False] * 3
    opened.click("#materials-legend li:nth-child(2) button")
    assert opened.run(lines) == [True, True, False]  # the chosen one is drawn last, above the others
    assert text(opened, "#materials-legend [aria-pressed='true']") == "tree"


def test_it_fits_a_phone_and_obeys_a_finger(
    browser: Browser, page: Path, spectra: Spectra, tmp_path: Path
) -> None:
    browser.resize(360, 740, touch=True)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth") == 360
    browser.tap("[data-picture='3']", 0.05, 0.05)
    assert text(browser, "#where").startswith("column 0, row 0 ")
    np.testing.assert_allclose(spectrum(browser), spectra.images[3][:, 0, 0], atol=6e-5)
    tile, chart = (
        browser.run(f"document.querySelector('{s}').getBoundingClientRect().top")
        for s in ('[data-picture="11"]', "#chart")
    )
    browser.place("[data-picture='11']")
    assert 0 <= browser.run("document.querySelector('#chart').getBoundingClientRect().top") < 200
    assert chart < tile


def test_dark_and_light(browser: Browser, page: Path) -> None:
    grounds = []
    for dark in (False, True):
        browser.resize(800, 600, dark=dark)
        browser.open(page)
        colour = browser.run("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(v) for v in re.findall(r"\d+", colour)))
    assert grounds[0] > 600 > 150 > grounds[1]


def test_nothing_is_asked_for_and_nothing_fails(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(page)
    evil = evil_page(tmp_path)
    browser.open(evil)
    assert browser.run("window.hacked === undefined")
    assert EVIL in text(browser, "#chosen")
    assert browser.run("[...document.querySelectorAll('h3')].map((e) => e.textContent)")[0] == EVIL
    assert browser.complaints == []
    allowed = {"about:blank", page.resolve().as_uri(), evil.resolve().as_uri()}
    assert {r for r in browser.requests if not r.startswith("data:image/png")} <= allowed


def test_without_real_images_the_nearest_endmember_is_shown(browser: Browser, tmp_path: Path) -> None:
    synth = tiny_synth()
    browser.resize(1280, 900)
    browser.open(write_report(synth, tmp_path, evaluate=0, progress=False), "#pixel=2,3,3")
    found = read_spectra(read_page(tmp_path / "index.html"))
    own = torch.from_numpy(found.images[2][:, 3, 3])[None]
    angles = [float(spectral_angles(own, e[None].double())) for e in synth.endmembers.spectra[:2]]
    best = int(np.argmin(angles))
    assert "nearest endmember" in text(browser, "#legend .near")
    assert text(browser, "#legend .near").endswith(synth.endmembers.names[best])
    assert float(text(browser, "#legend .angle").rstrip("°")) == pytest.approx(angles[best], abs=0.006)
