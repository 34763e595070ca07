import argparse
import base64
import io
import json
import re
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.finished_runs import FakePlan, config, fail, finish, make_plan, run_id
from support.plotted_runs import grid_plan, many_plan, search_plan, train

from focal_lab.errors import UserError
from focal_lab.report.formats.grid import table_grid, table_sections
from focal_lab.report.html import write_page as writing
from focal_lab.report.html.attention_images import attention_images
from focal_lab.report.html.page import page, tone
from focal_lab.report.html.run_details import run_groups
from focal_lab.report.html.write_page import write_page
from focal_lab.report.table.build import build_table
from focal_lab.report.table.records import row_name

EVIL = """<script>alert("1")</script>&'{{ 7 * 7 }}"""


@pytest.fixture
def grid(out: Path) -> FakePlan:
    plan = grid_plan()
    train(plan, out, epochs=3)
    return plan


def html_of(plan: Any, out: Path, **options: Any) -> str:
    return page(build_table(plan, out), plan, out, **({"plots": ()} | options))


def options(**given: Any) -> argparse.Namespace:
    values = {"output": None, "open": False, "watch": None, "strict": False, "suite": None}
    return argparse.Namespace(**(values | {"tasks": None, "seeds": None, "set": []} | given))


def test_the_page_has_its_parts_in_order(out: Path, grid: FakePlan) -> None:
    html = html_of(grid, out, plots=None)
    found = re.findall(r'<section[^>]*aria-labelledby="(\w+)-title"', html)
    assert found == ["claim", "results", "plots", "runs", "provenance"]
    assert html.count("<svg") == 4
    for word in (
        "table 8",
        "Inconclusive",
        "A larger window helps both",
        "0123abc",
        "2 CPU cores",
        "torch 2.14.1",
    ):
        assert word in html
    assert "<code>focal-lab sweep sweeps/window_size.yaml</code>" in html
    assert "<code>focal-lab report sweeps/window_size.yaml --format html</code>" in html


def test_nothing_is_loaded_from_anywhere(out: Path, grid: FakePlan) -> None:
    html = html_of(grid, out, plots=None)
    addresses = re.findall(r'(?:(?<![\w-])(?:src|href)="|url\()([^")]+)', html)
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    # names, not addresses
    assert set(re.findall(r"https?://[^\s\"<]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src &#39;none&#39;" in html


def test_every_text_is_escaped(out: Path) -> None:
    plan = make_plan({EVIL: [EVIL, "b"]}, claim=EVIL, name="window_size", columns=("top1",), expect=())
    plan = replace(plan, suite=EVIL, sweep=replace(plan.sweep, title=EVIL))
    settings = config({EVIL: EVIL})
    for seed in range(2):
        versions = {"torch": EVIL}
        finish(out, run_id(0, seed), config=settings, hardware=EVIL, versions=versions, git={"commit": EVIL})
        finish(out, run_id(1, seed))
    fail(out, run_id(1, 2), reason=EVIL, last=EVIL)
    html = html_of(plan, out, plots=None, command=EVIL)
    assert html.count("<script>") == 1
    assert "alert(&#34;1&#34;)" in html
    assert "7 * 7" in html
    assert "49" not in re.sub(r"<svg.*?</svg>|\d[\d.:-]+", "", html, flags=re.DOTALL)


def test_cells_hold_the_raw_number_that_sorts_them(out: Path, grid: FakePlan) -> None:
    table = build_table(grid, out)
    backbone, window, *numbers = table_grid(table)
    place = [strip.heading for strip in numbers].index("Top-1 (%)")
    measured, paper, difference = numbers[place : place + 3]
    entries = [row.entries["top1"] for row in table.rows]
    assert list(measured.numbers) == [entry.mean for entry in entries]
    assert list(paper.numbers) == [81.2, 82.1, 82.2, 82.3]
    assert list(difference.numbers) == [entry.difference for entry in entries]
    assert (backbone.numbers, window.numbers) == ((), (7.0, 14.0, 7.0, 14.0))
    assert 'data-value="28.288354"' in html_of(grid, out)


def test_comparisons_and_claims_hold_their_raw_numbers(out: Path, grid: FakePlan) -> None:
    table = build_table(grid, out)
    baseline, effects, claim = table_sections(table)
    assert (baseline.name, effects.name, claim.name) == ("baseline", "effects-top1", "claim")
    for section in (baseline, claim):
        assert {strip.heading for strip in section.strips if strip.numbers} >= {"n", "paper"}
    (p_strip,) = [strip for strip in claim.strips if strip.heading == "p"]
    assert list(p_strip.numbers) == [answer.p_holm for answer in table.answers]
    (p_strip,) = [strip for strip in baseline.strips if strip.heading == "p"]
    holm = [comparison.p_holm for row in table.rows if (comparison := row.entries["top1"].compared)]
    assert list(p_strip.numbers) == holm


def test_what_failed_is_marked_by_a_sign_a_word_and_a_tone(out: Path, mixed: FakePlan) -> None:
    marks = {cell: tone(cell) for strip in table_grid(build_table(mixed, out)) for cell in strip.cells}
    assert marks["failed"] == ("bad", "✕")
    assert marks["missing"] == ("warn", "○")
    assert marks["corrupt"] == ("bad", "✕")
    assert marks["1/3: 1 failed, 1 corrupt"] == ("bad", "✕")


def test_a_folder_is_not_marked_by_words_in_its_path(out: Path) -> None:
    plan, folder = grid_plan(), out / "failed-ideas"
    train(plan, folder, epochs=3)
    assert f'<td class="folder">{folder / run_id(0, 0)}</td>' in html_of(plan, folder)


def test_failures_have_their_reason_and_last_lines(out: Path, mixed: FakePlan) -> None:
    (out / run_id(2, 2) / "log.txt").write_text("\x1b[31mred\x1b[0m\ndisk full\n\n")
    html = html_of(mixed, out)
    section = html[html.index('id="failures"') : html.index('id="runs"')]
    assert section.count("<article") == 6
    assert "NaN loss at step 12" in section
    assert "<pre tabindex" in section
    assert "epoch 1\nloss=nan</pre>" in section
    assert "Focal-Tiny / 7, classification, seed 1" in section
    assert "red\ndisk full</pre>" in section


def test_runs_list_the_settings_that_differ_from_the_baseline_of_their_task(
    out: Path, grid: FakePlan
) -> None:
    groups = run_groups(build_table(grid, out), grid, out)  # type: ignore[arg-type]
    assert [row_name(row) for row, _ in groups] == [
        "Swin-Tiny / 7",
        "Swin-Tiny / 14",
        "Focal-Tiny / 7",
        "Focal-Tiny / 14",
    ]
    (own,) = groups[0][1]
    assert (own.against, own.settings) == (None, [])
    (part,) = groups[3][1]
    assert part.against == "Swin-Tiny / 7"
    assert set(part.settings) == {
        ("model.backbone_options.window_size", "7", "14"),
        ("model.backbone_options.depths", "2-2-2-2", "2-2-5-2"),
    }
    assert list(part.runs[-1].cells) == [f"runs/{run_id(3, seed)}" for seed in range(3)]


def test_each_task_is_compared_with_its_own_baseline(out: Path) -> None:
    plan = grid_plan(tasks=("classification", "detection"), seeds=(0,))
    train(plan, out, epochs=2)
    for cell in range(4):
        finish(out, run_id(cell, 0, "detection"), task="detection", config=config({}, lr=0.1 + cell))
    parts = run_groups(build_table(plan, out), plan, out)[1][1]  # type: ignore[arg-type]
    assert [part.task for part in parts] == ["classification", "detection"]
    assert parts[1].settings == [("model.lr", "0.1", "1.1")]


def test_settings_of_a_run_without_a_result_are_those_planned(out: Path) -> None:
    plan: Any = make_plan({"window_size": ["7", "14"]}, seeds=(0,))
    finish(out, run_id(0, 0), config=config({"window_size": 7}))
    planned = replace(plan.runs[1], config=config({"window_size": 14}))
    plan = replace(plan, runs=(plan.runs[0], planned))
    (part,) = run_groups(build_table(plan, out), plan, out)[1][1]
    assert part.settings == [("model.backbone_options.window_size", "7", "14")]


def test_published_rows_are_not_cells(out: Path) -> None:
    plan = make_plan({"backbone": ["Swin-Tiny", "Focal-Tiny"]}, paper="table2_imagenet1k", seeds=(0,))
    train(plan, out, epochs=2)
    html = html_of(plan, out)
    assert "<b>2</b> cells" in html
    assert html.count("<details") == 2
    assert "ResNet-50" in html


def test_an_empty_sweep_has_a_page(out: Path) -> None:
    html = html_of(grid_plan(), out, plots=None)
    assert "0</b> of 12 runs finished" in html
    assert "<svg" not in html
    assert "too few seeds" in html


def test_the_page_of_a_search_has_its_pareto_front(out: Path) -> None:
    plan = search_plan()
    train(plan, out, epochs=2)
    html = html_of(plan, out, plots=None)
    assert "Pareto front: Validation Top-1 (%) against GMACs" in html
    assert "12</b> of 12 runs finished" in html


def test_metrics_have_the_same_names_in_headings_comparisons_and_runs(out: Path) -> None:
    plan = grid_plan(tasks=("detection",), expect=(), columns=("ap_box", "ap50_box"))
    for run in plan.runs:
        metrics = {"ap_box": 40.0 + run.seed, "ap50_box": 60.0, "ap_small_box": 20.0}
        finish(out, run.id, task="detection", metrics=metrics)
    html = html_of(plan, out)
    assert "AP^" not in html.partition("</main>")[0]
    assert ">APᵇ₅₀</td>" in html
    assert ">APᵇₛ</th>" in html


def test_only_a_watched_page_reloads_itself(out: Path, grid: FakePlan) -> None:
    for refresh, is_there in ((None, False), (10.0, True)):
        html = html_of(grid, out, refresh=refresh)
        assert ('http-equiv="refresh"' in html) is is_there
        assert ("data-refresh" in html.partition("<head>")[0]) is is_there
        assert (">watching<" in html) is is_there


def test_a_hundred_runs_are_less_than_two_megabytes(out: Path) -> None:
    plan = many_plan()
    train(plan, out)
    html = html_of(plan, out, plots=None)
    assert len(plan.runs) == 100
    assert len(html.encode()) < 500_000


def draw_image(path: Path, width: int, height: int, *, noise: bool = False) -> None:
    import numpy as np
    from PIL import Image

    pixels = (
        np.random.default_rng(0).integers(0, 256, (height, width, 3))
        if noise
        else np.zeros((height, width, 3))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype("uint8")).save(path)


def test_images_of_an_inspected_run_are_in_its_page(out: Path, grid: FakePlan) -> None:
    folder = out / "inspect" / run_id(2, 0)
    for name in ("stage_1.png", "mass.png", "secret.png"):
        draw_image(folder / name, 40, 30)
    draw_image(out / "elsewhere.png", 40, 30)
    assert attention_images(build_table(grid, out), out) == ([], 0)  # still being written
    listed = [
        {"file": "stage_1.png", "caption": EVIL},
        {"file": "mass.png", "caption": "mass"},
        {"file": "../../elsewhere.png", "caption": "elsewhere"},
    ]
    (folder / "inspect.json").write_text(json.dumps({"pictures": listed}))
    ((row, run, images),), left_out = attention_images(build_table(grid, out), out)
    assert (row_name(row), run, left_out) == ("Focal-Tiny / 7", run_id(2, 0), 0)
    assert [(one.caption, one.width, one.height) for one in images] == [
        (EVIL, 40, 30),
        ("mass", 40, 30),
    ]
    html = html_of(grid, out)
    assert html.count("<script>") == 1
    assert html.count('<img src="data:image/webp;base64,') == 2


def test_large_images_are_made_smaller_or_left_out_with_a_note(out: Path) -> None:
    from PIL import Image

    plan = many_plan()
    for cell in range(20):
        finish(out, run_id(cell, 0))
        folder = out / "inspect" / run_id(cell, 0)
        for number in range(3):
            draw_image(folder / f"{number}.png", 900, 600, noise=number == 2 and cell < 5)
        listed = [{"file": f"{number}.png", "caption": ""} for number in range(3)]
        (folder / "inspect.json").write_text(json.dumps({"pictures": listed}))
    (out / "inspect" / run_id(0, 0) / "0.png").write_bytes(b"not an image")
    groups, left_out = attention_images(build_table(plan, out), out)
    shown = sum(len(images) for _, _, images in groups)
    assert shown + left_out == 60
    assert shown >= 39
    html = html_of(plan, out)
    assert len(html.encode()) < 2_000_000
    assert f"{left_out} more images would make this page too large" in html
    for _, _, images in groups:
        for one in images:
            raw = base64.b64decode(one.url.partition(",")[2])
            assert Image.open(io.BytesIO(raw)).size == (one.width, one.height)


def test_the_page_is_written_beside_the_runs_or_where_it_is_asked_for(
    out: Path, grid: FakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Any = grid
    write_page(lambda: plan, out, options())
    assert capsys.readouterr().out == "runs/reports/window_size.html\n"
    given = options(
        output=Path("here/page.html"), seeds=3, set=["a=1"], tasks=["classification"], suite="digits"
    )
    write_page(lambda: plan, out, given)
    html = Path("here/page.html").read_text()
    assert "--format html --suite digits --tasks classification --seeds 3 --set a=1</code>" in html
    assert html.endswith("</html>\n") or html.endswith("</html>")


def test_a_page_that_cannot_be_written_is_a_users_error(out: Path, grid: FakePlan) -> None:
    plan: Any = grid
    Path("taken").touch()
    with pytest.raises(UserError, match=r"^--output: cannot write taken/page.html: "):
        write_page(lambda: plan, out, options(output=Path("taken/page.html")))
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"^--watch: .* is not a number of seconds; use 1 or more"):
            write_page(lambda: plan, out, options(watch=seconds))


def test_open_shows_the_page_and_says_where_it_is(
    out: Path, grid: FakePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Any = grid
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) is not None)
    write_page(lambda: plan, out, options(open=True))
    captured = capsys.readouterr()
    assert opened == [(out / "reports" / "window_size.html").resolve().as_uri()]
    assert captured.out.strip() == opened[0]
    assert "no browser found" in captured.err


def test_strict_names_what_is_missing_and_exits_with_one(
    out: Path, mixed: FakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Any = mixed
    assert write_page(lambda: plan, out, options(strict=True)) == 1
    assert "Focal-Tiny / 14: 3 failed" in capsys.readouterr().err


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often plots were drawn."""
    calls: list[int] = []
    real = writing.draw_plots

    def draw(table: Any, plan: Any, out: Path) -> Any:
        calls.append(len(calls))
        return real(table, plan, out)

    monkeypatch.setattr(writing, "draw_plots", draw)
    return calls


def test_watching_writes_until_the_last_run_has_ended_and_draws_only_what_changed(
    out: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Any = make_plan({"window_size": ["7", "14"]}, seeds=(0,))
    target = out / "reports" / "window_size.html"
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        seen.append(target.read_text())
        if len(seen) == 2:
            finish(out, run_id(0, 0))
        if len(seen) == 4:
            fail(out, run_id(1, 0))

    monkeypatch.setattr(writing.time, "sleep", sleep)
    write_page(lambda: plan, out, options(watch=2.0))
    assert len(seen) == 4
    assert all('data-refresh="2.0"' in html for html in seen)
    assert "data-refresh" not in target.read_text().partition("<head>")[0]
    assert len(drawn) == 3  # at first, and after each of two events
    assert "all runs have ended" in capsys.readouterr().err


def test_ctrl_c_ends_watching_with_a_page_that_does_not_reload(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: Any = make_plan({"window_size": ["7", "14"]}, seeds=(0,))

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.time, "sleep", interrupt)
    write_page(lambda: plan, out, options(watch=5.0))
    assert "data-refresh" not in (out / "reports" / "window_size.html").read_text().partition("<head>")[0]


def test_a_search_is_watched_until_all_its_trials_have_ended(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Any = search_plan()
    train(whole, out, epochs=2)
    part = replace(whole, cells=whole.cells[:3], runs=whole.runs[:3])
    plans = iter([part, part, whole])
    naps: list[float] = []
    monkeypatch.setattr(writing.time, "sleep", naps.append)
    write_page(lambda: next(plans), out, options(watch=1.0))
    assert naps == [1.0, 1.0]


def test_a_finished_sweep_is_not_watched(out: Path, grid: FakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = grid
    monkeypatch.setattr(writing.time, "sleep", lambda seconds: pytest.fail("nothing will come"))
    write_page(lambda: plan, out, options(watch=5.0))


def test_the_pages_modules_import_neither_torch_nor_pandas() -> None:
    import subprocess

    code = "import sys, focal_lab.report.html.write_page; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "matplotlib", "scipy", "jinja2", "optuna"}.isdisjoint(child.stdout.split())
