import re
from pathlib import Path

import pandas as pd
import pytest
from support import ROOT
from support.finished_runs import finish

from focal_lab import report
from focal_lab.sweep.plan.plan import make_plan

(EXAMPLE,) = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/report.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.fixture
def sweep(out: Path) -> Path:
    """A finished sweep of the window size in ./runs; Focal-Tiny at 14 is best."""
    for name in ("sweeps", "experiments"):
        Path(name).symlink_to(ROOT / name)
    path = Path("sweeps/window_size.yaml")
    for number, run in enumerate(make_plan(path, out=out).runs):
        finish(out, run.id, seed=run.seed, metrics={"top1": 80.0 + number})
    return path


def test_the_example_of_the_documentation_runs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLE, {})
    printed = capsys.readouterr().out
    assert "('Focal-Tiny', '14') % {'0123abc': 12}" in printed
    assert re.search(r"^Swin-Tiny +7 .* \d\d\.\d ± \d+\.\d ", printed, re.MULTILINE)
    assert "focal_micro" in printed


def test_a_table_has_labels_as_index_metrics_as_columns_and_the_rest_in_attrs(sweep: Path, out: Path) -> None:
    table = report.sweep_table(sweep, out, seeds=2)
    assert table.index.names == ["backbone", "window_size"]
    top1 = table["top1"]
    assert set(top1["n"]) == {2}
    assert top1.loc[("Swin-Tiny", "7"), ["mean", "paper"]].to_list() == pytest.approx([80.5, 81.2])
    assert table.attrs["units"] == {"params": "M", "gmacs": "", "top1": "%", "ap_box": "", "ap_mask": ""}
    assert any("95 % interval over seeds" in note for note in table.attrs["notes"])
    assert len(table.attrs["claims"]) == 3
    assert table.attrs["provenance"]["versions"] == {"torch": {"2.14.1": 8}}


def test_the_runs_are_one_long_table(sweep: Path) -> None:
    runs = report.runs_table()
    assert isinstance(runs, pd.DataFrame)
    assert len(runs) == 12
    assert set(runs["state"]) == {"finished"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        report.nothing  # noqa: B018
