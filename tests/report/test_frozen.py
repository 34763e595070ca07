"""`focal-lab freeze`: an analysis that is written down before it is run."""

import json
import shutil
from pathlib import Path

import pytest
from support import ROOT
from support.finished_runs import finish

from focal_lab.errors import UserError
from focal_lab.report.frozen import frozen_file, frozen_notes, main
from focal_lab.report.table.build import build_table
from focal_lab.sweep.plan.plan import Plan, make_plan


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "sweeps" / "window_size.yaml", tmp_path))


def planned(sweep: Path, seeds: int | None = None) -> Plan:
    return make_plan(sweep, seeds=seeds)


def notes(sweep: Path, seeds: int | None = None) -> str:
    return " ".join(frozen_notes(planned(sweep, seeds)))


def test_a_report_says_that_its_analysis_was_frozen(sweep: Path, tmp_path: Path) -> None:
    assert main([str(sweep), "--out", str(tmp_path / "runs")]) == 0
    assert notes(sweep).startswith("This is the analysis that was frozen on 20")
    assert "had finished" not in notes(sweep)
    table = build_table(planned(sweep), tmp_path / "runs")
    assert [note for note in table.notes if "frozen" in note] == list(frozen_notes(planned(sweep)))


def test_nothing_is_said_about_a_sweep_that_was_not_frozen(sweep: Path) -> None:
    assert notes(sweep) == ""


def test_runs_that_had_finished_are_counted(sweep: Path, tmp_path: Path) -> None:
    finish(tmp_path / "runs", planned(sweep).runs[0].id)
    main([str(sweep), "--out", str(tmp_path / "runs")])
    assert "when 1 of its runs had finished" in notes(sweep)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("seeds: 3", "seeds: 4", "seeds [0, 1, 2, 3], not [0, 1, 2]"),
        ("seeds: 3", "seeds: 3\nmargin: 0.25", 'margins {"top1": 0.25}, not {"top1": 0.5}'),
        ("- Swin-Tiny/14 > Swin-Tiny/7\n", "- Swin-Tiny/7 > Swin-Tiny/14\n", "other expect"),
        ("baseline: {window_size: 7}", "baseline: {window_size: 14}", "baseline {"),
        ("columns: [params, gmacs, top1", "columns: [params, gmacs, top1, top5", "metrics"),
        ("window_size: [7, 14]", "window_size: [14, 7]", "other cells"),
        ("seeds: 3", "seeds: 3\nset: {model.lr: 0.001}", "other runs"),
    ],
)
def test_a_report_names_what_differs_from_the_frozen_analysis(
    sweep: Path, tmp_path: Path, before: str, after: str, said: str
) -> None:
    main([str(sweep), "--out", str(tmp_path / "runs")])
    written = sweep.read_text()
    assert before in written
    sweep.write_text(written.replace(before, after))
    assert notes(sweep).startswith("Not the analysis that was frozen on 20")
    assert said in notes(sweep)


def test_an_edited_record_counts_as_not_frozen(sweep: Path, tmp_path: Path) -> None:
    main([str(sweep), "--out", str(tmp_path / "runs")])
    path = frozen_file(planned(sweep))
    record = json.loads(path.read_text())
    record["analysis"]["margins"]["top1"] = 2.0
    path.write_text(json.dumps(record))
    assert "was edited after it was frozen" in notes(sweep)
    for damaged in ("{", "[]", '{"schema": 1}', '{"schema": 9, "analysis": {}}'):
        path.write_text(damaged)
        assert "counts as not frozen" in notes(sweep)


def test_an_analysis_is_frozen_once(sweep: Path, tmp_path: Path) -> None:
    main([str(sweep), "--out", str(tmp_path / "runs")])
    with pytest.raises(UserError, match="frozen already"):
        main([str(sweep), "--out", str(tmp_path / "runs")])


def test_a_file_that_cannot_be_written_is_named(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("focal_lab.report.frozen.write_atomic", denied)
    with pytest.raises(UserError, match=r"window_size\.frozen\.json: cannot be written: Permission denied$"):
        main([str(sweep), "--out", str(tmp_path / "runs")])


def test_each_suite_has_its_own(sweep: Path, tmp_path: Path) -> None:
    main([str(sweep), "--out", str(tmp_path / "runs")])
    main([str(sweep), "--suite", "imagenet", "--out", str(tmp_path / "runs")])
    names = {frozen_file(make_plan(sweep, suite=suite)).name for suite in ("digits", "imagenet")}
    assert names == {"window_size.frozen.json", "window_size.imagenet.frozen.json"}
    assert "This is the analysis" in " ".join(frozen_notes(make_plan(sweep, suite="imagenet")))


def test_a_search_is_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a search has no analysis"):
        main([str(ROOT / "sweeps" / "learning_rate.yaml"), "--out", str(tmp_path / "runs")])
