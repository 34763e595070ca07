"""The page in a real Chromium, Debian's, driven by playwright. Skipped where one is missing; CI has both."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import FakePlan, fail, finish, run_id
from support.plotted_runs import grid_plan, many_plan, train

from focal_lab.report.html.page import page
from focal_lab.report.table.build import build_table

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>'&"

# Every visible text with the contrast of its colour against the first background behind it that is not clear.
CONTRASTS = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    const words = walker.currentNode.textContent.trim();
    const silent = ["SCRIPT", "STYLE", "NOSCRIPT"].includes(parent.tagName);
    if (!words || silent || !parent.checkVisibility()) continue;
    const style = getComputedStyle(parent);
    const color = parse(parent.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(color), light(behind(parent))].sort((x, y) => y - x);
    found.push([words.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # the sandbox needs a user of its own
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


class Shown:
    """A page in a browser, and what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        values: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"}
        self.context = browser.new_context(**(values | context))
        self.tab = self.context.new_page()
        self.tab.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.resolve().as_uri())

    def column(self, table: str, index: int) -> list[str]:
        """The words of a column, from top to bottom."""
        cells = self.tab.locator(f"#{table} tbody tr td:nth-child({index + 1})").all_inner_texts()
        return [cell.strip() for cell in cells]

    def heading(self, table: str, text: str) -> Any:
        """A heading that sorts."""
        return self.tab.locator(f"#{table} thead th").filter(has_text=re.compile(f"^{re.escape(text)}$"))


def written(plan: Any, out: Path, refresh: float | None = None) -> Path:
    table = build_table(plan, out)
    path = Path("page.html")
    path.write_text(page(table, plan, out, refresh=refresh), encoding="utf-8")
    return path


@pytest.fixture
def grid(out: Path) -> FakePlan:
    """Twelve runs, one of which failed."""
    plan = grid_plan()
    train(plan, out, epochs=4)
    (out / run_id(3, 2) / "result.json").unlink()
    fail(out, run_id(3, 2))
    return plan


def test_a_page_of_a_hundred_runs_loads_without_errors_or_requests(
    out: Path, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = many_plan()
    train(plan, out)
    path = written(plan, out)
    shown = Shown(browser, path)
    assert shown.complaints == []
    assert shown.requests == [path.resolve().as_uri()]
    timing = json.loads(shown.tab.evaluate("JSON.stringify(performance.getEntriesByType('navigation')[0])"))
    with capsys.disabled():
        print(
            f"\n100 runs: {path.stat().st_size / 1e3:.0f} kB, "
            f"DOMContentLoaded {timing['domContentLoadedEventEnd']:.0f} ms, "
            f"interactive {timing['domInteractive']:.0f} ms, loaded {timing['loadEventEnd']:.0f} ms"
        )
    assert timing["domInteractive"] > 0


def test_a_click_sorts_by_numbers_up_down_and_back(out: Path, grid: FakePlan, browser: Any) -> None:
    shown = Shown(browser, written(grid, out))
    heading = shown.heading("table", "Top-1 (%)")
    index = shown.tab.locator("#table thead th").all_inner_texts().index("Top-1 (%)")
    before = shown.column("table", index)
    numbers = sorted(before, key=lambda words: float(words.split()[0]))
    for direction, expected in (("ascending", numbers), ("descending", numbers[::-1]), ("none", before)):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == direction
        assert shown.column("table", index) == expected
    assert shown.complaints == []


def test_the_keyboard_sorts_too_and_only_one_column_is_the_sorted_one(
    out: Path, grid: FakePlan, browser: Any
) -> None:
    shown = Shown(browser, written(grid, out))
    shown.heading("table", "window size").get_by_role("button").focus()
    shown.tab.keyboard.press("Enter")
    assert shown.column("table", 1) == ["7", "7", "14", "14"]
    shown.tab.keyboard.press("Space")
    assert shown.column("table", 1) == ["14", "14", "7", "7"]
    shown.tab.keyboard.press("Shift+Tab")
    shown.tab.keyboard.press("Enter")
    assert shown.column("table", 0) == ["Focal-Tiny"] * 2 + ["Swin-Tiny"] * 2
    sorts = [th.get_attribute("aria-sort") for th in shown.tab.locator("#table thead th").all()]
    assert sorts[0] == "ascending"
    assert set(sorts[1:]) == {"none"}


def test_rows_without_a_number_stay_last(out: Path, mixed: FakePlan, browser: Any) -> None:
    shown = Shown(browser, written(mixed, out))
    index = shown.tab.locator("#table thead th").all_inner_texts().index("Top-1 (%)")
    for _ in range(2):
        shown.heading("table", "Top-1 (%)").get_by_role("button").click()
        column = shown.column("table", index)
        assert [word[0].isdigit() for word in column] == [True] * 3 + [False] * 3


def test_a_phone_scrolls_tables_and_not_the_page(out: Path, browser: Any) -> None:
    plan = many_plan(seeds=2)
    train(plan, out, epochs=3)
    fail(out, run_id(19, 1), last="x" * 500)
    (out / run_id(19, 1) / "result.json").unlink()
    shown = Shown(browser, written(plan, out), viewport={"width": 390, "height": 844}, is_mobile=True)
    shown.tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert shown.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    boxes = shown.tab.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"
    )
    assert boxes > 0


def test_a_phone_shows_the_verdicts_of_a_claim_without_scrolling(
    out: Path, grid: FakePlan, browser: Any
) -> None:
    shown = Shown(browser, written(grid, out), viewport={"width": 390, "height": 844}, is_mobile=True)
    verdicts = shown.tab.locator("#claim td.verdict").all()
    assert len(verdicts) == 2
    for verdict in verdicts:
        box = verdict.bounding_box()
        assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(
    scheme: str, out: Path, mixed: FakePlan, browser: Any
) -> None:
    shown = Shown(browser, written(mixed, out), color_scheme=scheme)
    shown.tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    contrasts = shown.tab.evaluate(CONTRASTS)
    assert len(contrasts) > 150
    assert [pair for pair in contrasts if pair[1] < 4.5] == []


def test_light_and_dark_look_different_and_plots_follow(out: Path, grid: FakePlan, browser: Any) -> None:
    path = written(grid, out)
    colors, screenshots = [], []
    for scheme in ("light", "dark"):
        shown = Shown(browser, path, color_scheme=scheme)
        colors.append(
            shown.tab.evaluate(
                "[getComputedStyle(document.body).backgroundColor, "
                "getComputedStyle(document.querySelector('svg.plot text')).fill]"
            )
        )
        screenshots.append(shown.tab.locator("svg.plot").first.screenshot())
    (light_paper, light_ink), (dark_paper, dark_ink) = colors
    assert light_paper != dark_paper
    assert light_ink != dark_ink
    assert screenshots[0] != screenshots[1]


def test_plots_have_names_and_ids_of_their_own(out: Path, grid: FakePlan, browser: Any) -> None:
    shown = Shown(browser, written(grid, out))
    names = [plot.get_attribute("aria-labelledby") for plot in shown.tab.locator("svg.plot").all()]
    titles = [shown.tab.locator(f"[id='{name}']").inner_text() for name in names]
    assert titles[0] == "Top-1 (%) against multiply-accumulates"
    assert len(set(titles)) == len(titles) == 4
    twice = shown.tab.evaluate(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((part) => part.id);"
        " return ids.filter((id, place) => ids.indexOf(id) !== place); })()"
    )
    assert twice == []
    dangling = shown.tab.evaluate(
        "[...document.querySelectorAll('svg use, a')].map((part) => part.getAttribute('href'))"
        ".filter((link) => !document.getElementById(link.slice(1)))"
    )
    assert dangling == []


def test_print_shows_everything(out: Path, grid: FakePlan, browser: Any) -> None:
    shown = Shown(browser, written(grid, out), color_scheme="dark")
    folder = shown.tab.get_by_text(f"runs/{run_id(3, 0)}")
    assert not folder.is_visible()
    shown.tab.emulate_media(media="print")
    assert folder.is_visible()
    assert shown.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not shown.tab.locator("nav").is_visible()
    assert shown.tab.pdf(format="A4").startswith(b"%PDF")


def test_print_does_not_break_lines_within_a_state(out: Path, browser: Any) -> None:
    plan = grid_plan(tasks=("detection",), seeds=(0,), expect=(), columns=("ap_box",))
    names = ["ap_box", "ap50_box", "ap75_box", "ap_mask", "ap50_mask", "ap75_mask"]
    for run in plan.runs:
        finish(out, run.id, task="detection", metrics=dict.fromkeys(names, 40.0))
    shown = Shown(browser, written(plan, out), viewport={"width": 690, "height": 900})
    shown.tab.emulate_media(media="print")
    lines = shown.tab.evaluate(
        """[...document.querySelectorAll('#runs td.state > span')].map((state) => {
          const range = document.createRange();
          const words = state.lastChild;
          range.setStart(words, words.data.indexOf('finished'));
          range.setEnd(words, words.data.length);
          return range.getClientRects().length;
        })"""
    )
    assert lines == [1] * 4


def test_labels_are_shown_as_text_and_never_executed(out: Path, browser: Any) -> None:
    plan = grid_plan(factors={"backbone": [EVIL, "b"], EVIL: ["7", "14"]}, expect=(), claim=EVIL, paper=None)
    train(plan, out, epochs=2)
    (out / run_id(1, 0) / "result.json").unlink()
    fail(out, run_id(1, 0), reason=EVIL, last=EVIL)
    shown = Shown(browser, written(plan, out))
    shown.tab.locator("summary").first.click()
    assert shown.complaints == []
    assert len(shown.requests) == 1
    assert "owned" not in shown.tab.title()
    assert shown.tab.locator("img").count() == 0
    assert shown.tab.locator("script").count() == 1
    assert EVIL in shown.tab.locator("blockquote").inner_text()


def test_without_scripts_everything_is_visible_and_no_heading_sorts(
    out: Path, grid: FakePlan, browser: Any
) -> None:
    shown = Shown(browser, written(grid, out), java_script_enabled=False)
    assert shown.tab.locator("#table tbody tr").count() == 4
    assert shown.tab.locator("#table button").count() == 0
    shown.tab.locator("summary").first.click()
    assert shown.tab.get_by_text(f"runs/{run_id(0, 0)}").is_visible()


def test_a_watched_page_keeps_its_state_when_it_reloads(out: Path, grid: FakePlan, browser: Any) -> None:
    path = written(grid, out, refresh=1.5)
    shown = Shown(browser, path)
    assert shown.tab.locator("#watching").inner_text() == "watching"
    heading = shown.heading("table", "window size")
    heading.get_by_role("button").click()
    heading.get_by_role("button").click()
    shown.tab.locator("summary").nth(1).click()
    shown.tab.evaluate("scrollTo({top: 700, behavior: 'instant'})")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<h1>", "<h1>Written again: "), encoding="utf-8")
    shown.tab.get_by_role("heading", name="Written again").wait_for(timeout=30_000)
    shown.tab.wait_for_load_state()  # until then, tables may be missing
    assert shown.column("table", 1) == ["14", "14", "7", "7"]
    assert shown.heading("table", "window size").get_attribute("aria-sort") == "descending"
    assert [part.get_attribute("open") for part in shown.tab.locator("details").all()] == [
        None,
        "",
        None,
        None,
    ]
    assert shown.tab.evaluate("scrollY") == 700
    assert shown.complaints == []
    # the last page rests
    path.write_text(written(grid, out).read_text(encoding="utf-8"), encoding="utf-8")
    shown.tab.locator("html:not([data-refresh])").wait_for(state="attached", timeout=30_000)
    shown.tab.wait_for_load_state()
    assert shown.tab.locator("#watching").count() == 0
    assert shown.column("table", 1) == ["14", "14", "7", "7"]


def test_a_page_that_is_no_longer_rewritten_says_so(out: Path, grid: FakePlan, browser: Any) -> None:
    path = written(grid, out, refresh=1.0)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'data-written="\d+"', 'data-written="1000"', text), encoding="utf-8")
    shown = Shown(browser, path)
    assert shown.tab.locator("#watching").inner_text() == "no longer watching"
