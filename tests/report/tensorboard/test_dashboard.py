import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image
from support.events_of_runs import hparams_rows, note, read_tree, swept, train
from support.finished_runs import fail, make_plan, start
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar import layout_pb2

from focal_lab.cli import main
from focal_lab.errors import UserError
from focal_lab.report.tensorboard.command import Dashboard
from focal_lab.report.tensorboard.fill import fill
from focal_lab.report.tensorboard.log_dir import updating
from focal_lab.report.tensorboard.naming import ShownRun, ShownSweep, folder_name, unique_names

ROOT = Path("runs/tensorboard/all")
OVERVIEW = "overview "


def make(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["dashboard", "--no-serve", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["dashboard", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def folders(root: Path = ROOT) -> set[str]:
    """Where event files are, but for the overview."""
    found = {str(path.parent.relative_to(root)) for path in root.rglob("events.out.*")}
    return {name for name in found if not name.startswith(OVERVIEW)}


def overview(root: Path = ROOT) -> str:
    (name,) = [path.name for path in root.glob(f"{OVERVIEW}*")]
    return name


def test_runs_are_grouped_by_sweep_and_named_by_cell(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(out, backbone=["Swin", "Focal"], window_size=["7"])
    printed = make(capsys)
    assert printed == f"4 runs of 1 sweep in {ROOT}\ntensorboard --logdir {ROOT}\n"
    names = {f"window_size/{cell} 7 seed {seed}" for cell in ("Swin", "Focal") for seed in (0, 1)}
    means = {f"window_size/{cell} 7 mean of 2 seeds" for cell in ("Swin", "Focal")}
    assert folders() == names | means


def test_event_files_are_linked_and_not_copied_and_can_be_moved_with_the_runs(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = swept(out)
    make(capsys)
    links = [path for path in ROOT.rglob("events.out.*") if path.is_symlink()]
    assert len(links) == len(plan.runs)
    assert all(not os.path.isabs(os.readlink(link)) for link in links)
    out.rename("moved")
    moved = [Path("moved") / link.relative_to("runs") for link in links]
    assert {link.resolve().parent.name for link in moved} == {run.id for run in plan.runs}
    assert all(link.exists() for link in moved)


def test_a_run_of_two_sweeps_is_under_each(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = swept(out)
    other = make_plan({"size": ["small"]}, seeds=(0,), name="sizes")
    note(out, other)  # its only run is the first one of the other sweep
    assert other.runs[0].id == plan.runs[0].id
    make(capsys)
    assert {"sizes/small seed 0", "window_size/7 seed 0"} <= folders()
    _, rows = hparams_rows(ROOT)
    assert rows["small seed 0, sizes"][1] == rows["7 seed 0, window_size"][1]


def test_tasks_are_named_if_a_sweep_has_several(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan({"window_size": ["7"]}, seeds=(0,), tasks=("classification", "detection"))
    note(out, plan)
    for run in plan.runs:
        train(out, run.id)
    make(capsys)
    assert folders() == {"window_size/7 seed 0 classification", "window_size/7 seed 0 detection"}


def test_runs_of_no_sweep_are_shown_apart(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(out, "cla000900000")
    assert make(capsys).startswith("1 run in ")
    assert folders() == {"other runs/focal_micro cla000900000"}
    _, rows = hparams_rows(ROOT)
    ((values, _),) = rows.values()
    assert (values["backbone"], values["depths"]) == ("focal_micro", "[1, 1, 2, 1]")


def test_hparams_have_one_row_per_run_with_labels_and_real_final_metrics(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = swept(out, backbone=["Swin", "Focal"], window_size=["7", "14"])
    make(capsys)
    columns, rows = hparams_rows(ROOT)
    assert len(rows) == len(plan.runs) == 8
    values, metrics = rows["Focal 14 seed 1, window_size"]
    run = plan.runs[-1].id
    expected = {"backbone": "Focal", "window_size": "14", "seed": "1", "task": "classification"}
    assert values == expected | {"sweep": "window_size", "run": run}
    assert metrics["test/top1"] == pytest.approx(87.0)
    assert metrics["test/loss"] == pytest.approx(0.4)
    assert metrics["usage/params_m"] == pytest.approx(28.288354)
    assert metrics["usage/train_seconds"] == pytest.approx(61.5)
    assert all(value >= 0 for _, found in rows.values() for value in found.values())
    known = {column.name: column for column in columns.hparam_infos}
    # those come first that differ, and the tab shows the first five only; nothing of Lightning's own
    assert {name for name, column in known.items() if column.differs} == {"backbone", "window_size", "seed"}
    assert "lr" not in known
    assert list(known["window_size"].domain_discrete) == ["7", "14"]
    assert "Top-1 (%)" in {column.display_name for column in columns.metric_infos}


def test_a_factor_that_is_called_like_a_column_of_ours_keeps_its_own(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(out, seed=["a", "b"], run=["c"])
    make(capsys)
    _, rows = hparams_rows(ROOT)
    values, _ = rows["a c seed 1, window_size"]
    assert (values["seed"], values["factor.seed"], values["factor.run"]) == ("1", "a", "c")


def test_a_running_run_has_its_row_and_no_metrics_until_it_has_ended(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = swept(out, seeds=1)
    train(out, "cla000000000", finished=False)
    shutil.rmtree(out / plan.runs[0].id)
    train(out, plan.runs[0].id, finished=False)
    make(capsys)
    _, rows = hparams_rows(ROOT)
    assert rows["7 seed 0, window_size"][1] == {}
    assert "val/top1" in read_tree(ROOT)["window_size/7 seed 0"]
    train(out, plan.runs[0].id, 66.0)
    make(capsys)
    _, rows = hparams_rows(ROOT)
    assert rows["7 seed 0, window_size"][1]["test/top1"] == pytest.approx(66.0)


def test_a_result_without_an_event_file_still_has_its_row(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = swept(out, seeds=1)
    for path in (out / plan.runs[0].id).glob("events.*"):
        path.unlink()
    fail(out, "cla000500000")
    start(out, "cla000600000")
    make(capsys)
    _, rows = hparams_rows(ROOT)
    assert rows["7 seed 0, window_size"][1]["test/top1"] == pytest.approx(80.0)
    assert folders() == {"window_size/7 seed 0", "window_size/14 seed 0"}


def test_cells_have_the_means_of_their_finished_seeds(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(out)
    make(capsys)
    found = read_tree(ROOT)["window_size/7 mean of 2 seeds"]
    assert set(found) == {"mean/val/top1", "mean/train/loss", "mean/lr"}
    # the seeds end with 80 and 81, the value of top1 - 10 + step at step 10
    assert found["mean/val/top1"] == [(4, 75.5), (9, 80.5)]


def test_the_layout_compares_cells_and_runs(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(out)
    make(capsys)
    ((_, message),) = read_tree(ROOT)[overview()]["custom_scalars__config__"]
    layout = layout_pb2.Layout.FromString(message)
    charts = {
        category.title: [list(chart.multiline.tag) for chart in category.chart]
        for category in layout.category
    }
    assert charts == {
        "Cells: means over seeds": [["^mean/val/top1$"], ["^mean/train/loss$"], ["^mean/lr$"]],
        "Runs": [["^val/top1$"], ["^train/loss$"], ["^lr$"]],
    }


def test_stale_files_are_removed_and_foreign_files_kept(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = swept(out, seeds=1)
    make(capsys)
    mine = ROOT / "window_size/7 seed 0/notes.txt"
    mine.write_text("mine")
    (ROOT / "window_size/stale seed 7").mkdir()
    (ROOT / "window_size/stale seed 7/events.out.tfevents.1.x").symlink_to("nowhere")
    for run in plan.runs:
        shutil.rmtree(out / run.id)
    train(out, "cla000900000")
    make(capsys)
    assert folders() == {"other runs/focal_micro cla000900000"}
    assert sorted(ROOT.glob("window_size/*")) == [mine.parent]
    assert mine.read_text() == "mine"


def test_making_it_again_writes_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(out)
    make(capsys)

    def state() -> dict[Path, tuple[int, int]]:
        files = (path for path in ROOT.rglob("*") if not path.is_dir())
        return {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in files}

    before = state()
    make(capsys)
    assert state() == before


def test_several_starts_at_once_do_no_harm(out: Path) -> None:
    swept(out)
    boards = [Dashboard(out) for _ in range(4)]
    wrong: list[BaseException] = []

    def work(board: Dashboard) -> None:
        try:
            board.refresh()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(board,)) for board in boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(hparams_rows(ROOT)[1]) == 4
    assert {path.name for path in ROOT.rglob(".*")} == {".lock"}


def test_a_refresh_shows_new_runs_and_a_new_sweep_and_does_nothing_without_changes(out: Path) -> None:
    swept(out, seeds=1)
    board = Dashboard(out)
    assert board.refresh()
    assert not board.refresh()
    first = overview()
    plan = make_plan({"window_size": ["7", "14"]}, seeds=range(2))
    note(out, plan)
    train(out, plan.runs[1].id, 95.0, seed=1)
    assert board.refresh()
    assert "window_size/7 seed 1" in folders()
    assert "window_size/7 mean of 2 seeds" in folders()
    assert hparams_rows(ROOT)[1]["7 seed 1, window_size"][1]["test/top1"] == pytest.approx(95.0)
    swept(out, name="depth", depth=["2-2", "2-4"])
    assert board.refresh()
    assert overview() != first
    assert "depth" in {column.name for column in hparams_rows(ROOT)[0].hparam_infos}
    assert board.summary.endswith("of 2 sweeps")


def test_an_error_during_an_update_is_reported_once_and_the_update_repeated(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(out)
    board = Dashboard(out)

    def broken() -> bool:
        raise UserError("is being edited", file="sweeps/a.yaml")

    monkeypatch.setattr(board, "refresh", broken)
    board.try_refresh()
    board.try_refresh()
    assert capsys.readouterr().err == "focal-lab: dashboard: not up to date: sweeps/a.yaml: is being edited\n"


def test_a_sweep_whose_file_is_gone_is_shown_without_its_table(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(out)
    assert main(["dashboard", "--no-serve"]) == 0
    assert (
        "window_size is shown without its table: gone.yaml: there is no such sweep file"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "missing"), "missing: does not exist (train some: focal-lab sweep"),
        ((), "runs: holds no runs yet (train some: focal-lab sweep"),
        (("--out", "file"), "file: is not a folder"),
    ],
)
def test_a_folder_without_runs_is_refused_in_one_line(
    out: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    Path("file").write_text("")
    assert message in refused(capsys, *arguments)


def test_bad_arguments_are_refused_in_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(out)
    assert "nothing: there is no such sweep file" in refused(capsys, "nothing", "--no-serve")
    assert "--port: 70000 is not 0 to 65535" in refused(capsys, "--port", "70000")
    assert "--host: cannot listen on 203.0.113.7" in refused(capsys, "--host", "203.0.113.7")
    assert "--host: cannot listen on no such host" in refused(capsys, "--host", "no such host")


def test_a_log_directory_that_cannot_be_written_is_refused_in_one_line(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(out)
    (out / "tensorboard").write_text("")
    assert "cannot be written to" in refused(capsys, "--no-serve")


def test_labels_become_names_of_folders() -> None:
    assert folder_name("a/b\n c") == "a-b c"
    assert folder_name("../x") == "-x"
    assert folder_name(" .. ") == "unnamed"
    assert folder_name("Größe 7") == "Größe 7"
    long = folder_name("ü" * 400)
    assert len(long.encode()) <= 255
    assert unique_names(["ü" * 400, "ü" * 401]) == [long, f"{long} (2)"]
    assert unique_names(["a/b", "a-b", "a/b"]) == ["a-b", "a-b (2)", "a-b (3)"]


def fill_with_table(out: Path, top1: float = 80.0) -> None:
    """Two finished cells with a table, one of its labels full of special characters."""
    plan = make_plan({"window_size": ["7", "<b>*|$~"]}, seeds=range(2), columns=("params", "gmacs", "top1"))
    for place, run in enumerate(plan.runs):
        train(out, run.id, top1 + place, seed=run.seed)
    runs = tuple(
        ShownRun(run.id, f"{place}", run.cell.labels, run.task, run.seed)
        for place, run in enumerate(plan.runs)
    )
    shown = ShownSweep("window_size", runs, plan)  # type: ignore[arg-type]
    with updating(ROOT) as log_dir:
        fill(log_dir, [shown], out, [])


def test_the_sweep_has_its_table_as_text_and_its_plots_as_images(out: Path) -> None:
    fill_with_table(out)
    tags = read_tree(ROOT)["window_size"]
    ((_, markdown),) = tags.pop("table")
    shown = markdown_to_safe_html(markdown)
    assert "<td>&lt;b&gt;*|$~</td>" in shown
    assert "80.5" in shown
    assert "<th" in shown
    assert tags
    for tag, ((_, value),) in tags.items():
        assert tag.startswith("plots/")
        with Image.open(io.BytesIO(value.image.encoded_image_string)) as image:
            assert image.size == (value.image.width, value.image.height)


def test_a_sweep_whose_table_cannot_be_made_is_shown_without_it(out: Path) -> None:
    plan = make_plan({"window_size": ["7"]}, seeds=(0,), paper="nonsense")
    train(out, plan.runs[0].id)
    runs = (ShownRun(plan.runs[0].id, "7 seed 0", {"window_size": "7"}, "classification", 0),)
    warnings: list[str] = []
    sweep = ShownSweep("window_size", runs, plan)  # type: ignore[arg-type]
    with updating(ROOT) as log_dir:
        fill(log_dir, [sweep], out, warnings)
    assert folders() == {"window_size/7 seed 0"}
    (warning,) = warnings
    assert "window_size is shown without its table: sweeps/window_size.yaml: paper: 'nonsense'" in warning


def test_a_changed_result_replaces_table_and_plots(out: Path) -> None:
    fill_with_table(out)
    before = {path.name for path in (ROOT / "window_size").glob("events.*")}
    fill_with_table(out, 90.0)
    after = {path.name for path in (ROOT / "window_size").glob("events.*")}
    assert len(before) == len(after) == 2
    assert not before & after


def test_neither_torch_nor_tensorflow_is_imported(out: Path) -> None:
    swept(out)
    code = (
        "import sys; from focal_lab.cli import main; main(['dashboard', '--no-serve']);"
        "print([name for name in ('torch', 'tensorflow', 'lightning') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"
