"""The pages in a real browser: drawn without an error, usable by mouse and keyboard, light and dark."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from lis_lightning.report import find_runs, write_report
from lis_lightning.report.audit_page import write_audit
from lis_lightning.scoring.auditing import audit

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE_NAME = "</script><script>window.hacked = 1</script>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a page from disk with the network cut, and collects what goes wrong in it."""
    contexts = []

    def open_page(path, **options):
        context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.problems = []
        tab.on("console", lambda said: tab.problems.append(said.text) if said.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.on("requestfailed", lambda request: tab.problems.append(request.url))
        tab.goto(path.absolute().as_uri())
        tab.wait_for_selector("html[data-drawn]", timeout=120_000)
        return tab

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def run_page(one_run, tmp_path_factory):
    return write_report(find_runs([one_run]), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def sweep_page(runs, tmp_path_factory):
    return write_report(runs, tmp_path_factory.mktemp("page") / "report.html", title="sweep")


def drawn(tab, figure="curve"):
    """Names of the traces that can be seen, bands left out."""
    return tab.evaluate(
        "name => document.querySelector(`[data-figure=${name}]`).data"
        ".filter(trace => trace.visible !== false && trace.fill !== 'toself').map(trace => trace.name)",
        figure,
    )


def cut_texts(tab):
    """Texts of the figures that reach beyond them, and titles of axes that a legend lies on."""
    return tab.evaluate("""() => [...document.querySelectorAll('.figure')].flatMap((figure) => {
      const box = figure.getBoundingClientRect();
      const legend = figure.querySelector('.legend .bg')?.getBoundingClientRect();
      const under = (r) => legend && r.left < legend.right && legend.left < r.right
        && r.top < legend.bottom && legend.top < r.bottom;
      return [...figure.querySelectorAll('.main-svg text')].filter((text) => {
        const r = text.getBoundingClientRect(), own = text.closest('.legend');
        return r.width && (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1
          || r.bottom > box.bottom + 1 || (!own && under(r)));
      }).map((text) => text.textContent);
    })""")


def check_on_a_phone(tab):
    """No sideways scrolling, and no cut text, at a width of 390 pixels."""
    assert cut_texts(tab) == []
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.wait_for_function("""[...document.querySelectorAll('.figure')].every((figure) =>
      figure.layout.font.size === 11 && figure._fullLayout.width <= 390)""")
    for _ in range(50):  # until all figures are drawn anew
        if not (cut := cut_texts(tab)):
            break
        tab.wait_for_timeout(100)
    assert cut == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_drawn_without_an_error(visit, run_page, sweep_page, scheme):
    for page in (run_page, sweep_page):
        tab = visit(page, color_scheme=scheme)
        figures = tab.locator(".figure")
        assert figures.count() >= 5
        assert tab.locator(".figure .main-svg").count() >= figures.count()
        check_on_a_phone(tab)
        assert tab.problems == []


def test_titles_that_are_markup_stay_text(visit, run_page):
    tab = visit(run_page)
    assert tab.evaluate("window.hacked") is None
    assert tab.locator(".movers .name", has_text="<script>window.hacked").count() > 0
    assert tab.locator(".movers img[src^='data:image/jpeg']").count() >= 5


def test_a_run_that_is_unticked_leaves_every_picture(visit, sweep_page):
    tab = visit(sweep_page)
    label = tab.locator(".toggles label", has_text="good seed 2")
    assert "good seed 2" in drawn(tab)
    before = len(tab.locator(".gauge:visible").all())
    label.click()
    assert "good seed 2" not in drawn(tab)
    assert len(tab.locator(".gauge:visible").all()) == before - 1
    label.click()
    assert "good seed 2" in drawn(tab)


def test_all_and_none_and_layers(visit, sweep_page):
    tab = visit(sweep_page)
    tab.get_by_role("button", name="all", exact=True).click()
    assert sum("seed" in name for name in drawn(tab)) == 6
    tab.get_by_label("gain of cosines only").click()
    assert sum("cosines only" in name for name in drawn(tab)) == 6
    tab.get_by_role("button", name="none", exact=True).click()
    assert not [name for name in drawn(tab) if "seed" in name]
    assert tab.problems == []


def test_ceilings_can_be_hidden(visit, run_page):
    tab = visit(run_page)
    assert "LIS of pairs (estimate)" in drawn(tab)
    tab.get_by_label("LIS of the data aligned to").click()
    assert "LIS of pairs (estimate)" not in drawn(tab)


def test_toggles_work_by_keyboard_and_outlive_a_reload(visit, sweep_page):
    tab = visit(sweep_page)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "To the content"
    for _ in range(12):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.dataset.run") == "0":
            break
    else:
        pytest.fail("the first run cannot be reached by the Tab key")
    name = tab.evaluate("document.activeElement.closest('label').textContent").strip()
    tab.keyboard.press("Space")
    assert name not in drawn(tab)
    tab.reload()
    tab.wait_for_selector("html[data-drawn]", timeout=120_000)
    assert name not in drawn(tab)


def test_light_and_dark_can_be_switched_and_the_pictures_follow(visit, run_page):
    tab = visit(run_page, color_scheme="light")
    ink = "document.querySelector('[data-figure=curve]').layout.font.color"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ink), tab.evaluate(paper)
    tab.get_by_role("button", name="Switch between light and dark").click()
    tab.wait_for_function(f"{ink} !== '{light[0]}'")
    assert tab.evaluate(paper) != light[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(visit, run_page, scheme):
    """WCAG AA: a contrast of 4.5 for text."""
    tab = visit(run_page, color_scheme=scheme)
    contrast = """([ink, paper]) => {
      const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
      const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const light = (name) => of(name).match(/[0-9a-f]{2}/gi).map((two) => channel(parseInt(two, 16) / 255))
        .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
      const [one, two] = [light(ink), light(paper)].sort((a, b) => b - a);
      return (one + 0.05) / (two + 0.05);
    }"""
    for ink in ("--ink", "--soft", "--accent", "--good", "--bad"):
        for paper in ("--paper", "--panel"):
            assert tab.evaluate(contrast, [ink, paper]) >= 4.5, (ink, paper)


def test_a_page_that_follows_a_run_loads_itself_anew(visit, runs, tmp_path):
    page = write_report(runs[:1], tmp_path / "report.html", reload_seconds=0.5)
    tab = visit(page)
    write_report(runs[:1], page, title="a newer page")
    tab.wait_for_function("document.title === 'a newer page'", timeout=60_000)


def test_the_page_of_an_audit_is_drawn_too(visit, split, latents, tmp_path):
    found = audit(split, embeddings={HOSTILE_NAME: latents})
    tab = visit(write_audit(found, tmp_path / "audit.html", title="an audit"))
    assert tab.evaluate("window.hacked") is None
    assert tab.locator(".figure .main-svg").count() >= 1
    check_on_a_phone(tab)
    assert tab.problems == []
