import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.finished_runs import FakePlan, config, finish, make_plan, run_id

from focal_lab._version import __version__
from focal_lab.report.formats.render import (
    LONG_FORMATS,
    TABLE_FORMATS,
    csv,
    flat_table,
    long_json,
    long_text,
    parquet,
    table_json,
    table_markdown,
    table_text,
)
from focal_lab.report.html.page import page
from focal_lab.report.table.build import build_table
from focal_lab.report.table.long_table import runs_table, sweep_runs_table

SUFFIX = {"text": "txt", "markdown": "md", "latex": "tex", "csv": "csv", "json": "json"}
Golden = Callable[[str, str], None]


@pytest.fixture
def complete(out: Path) -> FakePlan:
    """Table 8 as a finished sweep leaves it."""
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}
    plan = make_plan(factors, paper="table8_window_size")
    for cell in range(4):
        for seed in range(3):
            finish(out, run_id(cell, seed), metrics={"top1": 84 + cell + (-0.6, 0.1, 0.5)[seed]})
    return plan


@pytest.mark.parametrize("name", sorted(SUFFIX))
def test_a_table_with_everything_that_can_happen_looks_as_agreed(
    name: str, out: Path, mixed: FakePlan, golden: Golden
) -> None:
    golden(f"table.{SUFFIX[name]}", str(TABLE_FORMATS[name](build_table(mixed, out))))


@pytest.mark.parametrize("name", sorted(SUFFIX))
def test_all_runs_look_as_agreed(name: str, out: Path, mixed: FakePlan, golden: Golden) -> None:
    golden(f"long.{SUFFIX[name]}", str(LONG_FORMATS[name](runs_table(out))))


def test_a_page_with_everything_that_can_happen_looks_as_agreed(
    out: Path, mixed: FakePlan, golden: Golden
) -> None:
    """Its words and their order: style, script and plots are looked at in a browser."""
    html = page(build_table(mixed, out), mixed, out, plots=())
    html = re.sub(
        r"<(style|script)\b.*?</\1>|<meta http-equiv[^>]*>|<time .*?</time>", "", html, flags=re.DOTALL
    )
    html = html.replace(f"focal-lab {__version__}", "focal-lab")
    golden("page.html", re.sub(r"\n\s*\n+", "\n", html))


def test_parquet_has_the_types_and_values_agreed(out: Path, mixed: FakePlan, golden: Golden) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    read = pq.read_table(io.BytesIO(parquet(flat_table(build_table(mixed, out)))))
    types = {field.name: str(field.type) for field in read.schema}
    golden("table.parquet.json", json.dumps({"types": types, "rows": read.to_pylist()}, indent=1) + "\n")


def test_a_terminal_of_100_columns_shows_table_8_unbroken(
    out: Path, complete: FakePlan, golden: Golden
) -> None:
    text = table_text(build_table(complete, out), 100)
    assert max(map(len, text.splitlines())) <= 100
    assert "87.0 ± 1.4" in text
    golden("table_100_columns.txt", text)


@pytest.mark.parametrize("width", [1, 40, 80, 100, None])
def test_no_number_and_no_column_is_lost_however_narrow_the_terminal(
    width: int | None, out: Path, mixed: FakePlan
) -> None:
    table = table_text(build_table(mixed, out), width).partition("─")[2]
    for word in ("85.5 ± 6.4 (n=2)", "28.29", "4.494", "82.1", "40.5", "2/3:", "my_<b>*|[red]"):
        assert word in table


def test_failed_missing_and_corrupt_cells_are_visible(out: Path, mixed: FakePlan) -> None:
    lines = table_text(build_table(mixed, out)).splitlines()
    assert any(re.search(r"Focal-Tiny +14 +failed .* 0/3: 3 failed$", line) for line in lines)
    assert any(re.search(r"7 +corrupt .* 0/3: 1 corrupt, 2 missing$", line) for line in lines)
    assert any(re.search(r"14 +missing .* 0/3: 3 missing$", line) for line in lines)
    assert any(re.search(r"88\.5 \(n=1\) .* 1/3: 1 failed, 1 corrupt$", line) for line in lines)


def test_shared_runs_are_marked_in_their_row(out: Path) -> None:
    plan = make_plan({"window_size": ["7", "14"]}, columns=("top1",), seeds=(0,))
    shared = replace(plan, runs=(plan.runs[0], replace(plan.runs[1], id=run_id(0, 0))))
    finish(out, run_id(0, 0))
    text = table_text(build_table(shared, out))
    assert "1/1 shared" in text


def test_without_colour_there_is_no_escape_code_and_with_it_there_is(
    out: Path, mixed: FakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = build_table(mixed, out)
    assert "\x1b" not in table_text(table, 100)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31mfailed" in table_text(table, 100, color=True).replace("[1;31m", "[31m")


def test_markdown_escapes_every_special_character_of_a_label(out: Path) -> None:
    label = r"a|b*c_d<e>f`g[h]i\j~k$l&m"
    plan = make_plan({"my_factor": [label, "two\nlines"]}, columns=("top1",), seeds=(0,))
    lines = table_markdown(build_table(plan, out)).splitlines()
    (row,) = [line for line in lines if line.startswith("| a")]
    cells = re.split(r"(?<!\\)\|", row)
    assert len(cells) == 5  # an empty one at each end, label, top-1, runs
    assert re.sub(r"\\(.)", r"\1", cells[1]).strip() == label
    assert re.search(r"(?<!\\)[*_<>`$~&\[\]]", cells[1]) is None
    assert any(line.startswith("| two lines |") for line in lines)


def test_the_csv_has_a_column_for_mean_spread_n_and_paper(out: Path, mixed: FakePlan) -> None:
    rows = pd.read_csv(io.StringIO(csv(flat_table(build_table(mixed, out)))))
    numbers = [float(rows[f"top1_{part}"][0]) for part in ("mean", "sd", "n", "paper")]
    assert numbers == [84.25, 1.25, 3.0, 81.2]
    assert pd.isna(rows["top1_mean"][3])
    assert list(rows["failed"]) == [0, 0, 1, 3, 0, 0]
    assert rows["backbone"][4] == "my_<b>*|[red]"


def test_the_csv_prints_numbers_in_full() -> None:
    # 851.61328125 MiB are a number of bytes: the digits of float32 would be others
    numbers = [82.69999694824219, 851.61328125, 1 / 3, 1e300, float("nan")]
    text = csv(pd.DataFrame({"top1": numbers}))
    assert text == 'top1\n82.69999694824219\n851.61328125\n0.3333333333333333\n1e+300\n""\n'


def test_a_factor_called_like_a_column_has_one_of_its_own(out: Path) -> None:
    frame = flat_table(build_table(make_plan({"data": ["a", "b"]}, columns=("top1",)), out))
    assert list(frame["factor.data"]) == ["a", "b"]
    assert frame["data"].isna().all()


def test_a_table_without_rows_has_headings(out: Path) -> None:
    table = replace(build_table(make_plan({"a": ["b"]}), out), rows=(), factors=())
    assert "#Params (M)  GMACs  Top-1 (%)  AP^b  AP^m  Runs\n" in table_text(table)
    assert csv(flat_table(table)).startswith("params_mean,")


def test_the_json_holds_every_seed_and_every_run(out: Path, mixed: FakePlan) -> None:
    table = json.loads(table_json(build_table(mixed, out)))
    assert table["rows"][0]["entries"]["top1"]["values"] == {"0": 84.25, "1": 85.5, "2": 83.0}
    assert [run["state"] for run in table["rows"][2]["runs"]] == ["finished", "failed", "corrupt"]
    assert table["columns"][0]["key"] == "params"


def test_what_is_no_number_is_null_in_json() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    runs = pd.DataFrame({"run": ["a0"], "top1": [float("nan")], "loss": [None], "seed": [0]})
    (row,) = json.loads(long_json(runs), parse_constant=refuse)
    assert (row["top1"], row["loss"], row["seed"]) == (None, None, 0)


def test_a_result_with_a_nan_is_a_corrupt_one_in_the_table(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, columns=("top1",), seeds=(0,))
    finish(out, run_id(0, 0))
    path = out / run_id(0, 0) / "result.json"
    path.write_text(path.read_text().replace("87.5", "NaN"))
    assert build_table(plan, out).rows[0].entries["top1"].status == "corrupt"


def test_a_sweeps_long_text_shows_labels_and_states(out: Path, mixed: FakePlan) -> None:
    text = long_text(sweep_runs_table(mixed, out))
    assert re.search(rf"{run_id(2, 1)} +Focal-Tiny +7 +classification +1 +failed", text)
    assert f"- failed: {run_id(2, 1)}: NaN loss at step 12" in text


def test_the_long_text_shows_the_settings_that_tell_runs_apart(out: Path) -> None:
    for run, size in (("a0", 7), ("b0", 14)):
        finish(out, run, config=config({"border": "wrap", "window_size": size}))
    header, _, first, second = long_text(runs_table(out)).splitlines()
    assert re.match(r"run +backbone +window size +task ", header)
    assert re.match(r"a0 +focal_micro +7 ", first)
    assert re.match(r"b0 +focal_micro +14 ", second)


def test_options_of_the_backbone_come_before_other_settings_that_differ(out: Path) -> None:
    options = [{"window_size": 7}, {"window_size": 14, "use_shift": True}]
    for number, changes in enumerate(options):
        finish(out, f"r{number}", config=config(changes, lr=0.001 * (1 + number), num_classes=10 + number))
    header, _, first, second = long_text(runs_table(out)).splitlines()
    assert re.match(r"run +backbone +window size +use shift +task ", header)
    assert re.match(r"r0 +focal_micro +7 +– ", first)  # noqa: RUF001
    assert re.match(r"r1 +focal_micro +14 +True ", second)


def test_a_terminal_shows_the_latest_of_very_many_runs_and_says_so(out: Path) -> None:
    for number in range(250):
        finish(out, f"r{number}", finished=f"2026-01-01T{number:05d}")
    text = long_text(runs_table(out))
    assert "r249" in text
    assert "r49 " not in text
    assert "The latest 200 of 250 runs; all of them: --format csv." in text
