import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.finished_runs import FakePlan, finish, make_plan, run_id

from focal_lab.report.formats.latex import latex, long_latex, table_latex
from focal_lab.report.table.build import build_table
from focal_lab.report.table.long_table import runs_table

NASTY = r"\ { } ~ ^ < > | \" # $ % & _ ± – — … × ≥ 100% a_b [x] éü 漢"  # noqa: RUF001
# TeX's first fonts do not tell what their joined letters are.
LIGATURES = str.maketrans({"\x1c": "fi", "\x1b": "ff", "\x1d": "fl"})
DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx}
\usepackage[landscape,a2paper,margin=1cm]{geometry}
\begin{document}
%s
\end{document}
"""


NARROW = DOCUMENT.replace("[landscape,a2paper,margin=1cm]", "[a4paper]")


def compiled(text: str, folder: Path, document: str = DOCUMENT) -> str:
    """The text of the page that pdflatex makes of a table, which fits it."""
    if not shutil.which("pdflatex") or not shutil.which("pdftotext"):
        pytest.skip("needs pdflatex and pdftotext (texlive-latex-recommended and poppler-utils)")
    folder.mkdir(exist_ok=True)
    (folder / "page.tex").write_text(document % text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull \\hbox" not in made.stdout
    read = subprocess.run(
        ["pdftotext", "-layout", "page.pdf", "-"], cwd=folder, capture_output=True, text=True, check=True
    )
    return read.stdout.translate(LIGATURES)


def test_a_table_with_everything_that_can_happen_compiles(out: Path, mixed: FakePlan, tmp_path: Path) -> None:
    page = compiled(table_latex(build_table(mixed, out)), tmp_path / "latex")
    assert re.search(r"Swin-Tiny +7 +28\.29 +4\.494 +4\.5 +84\.2 ± 3\.1 +81\.2 +\+3\.0", page)
    assert "my_<b>*|[red]" in page
    assert "Classification" in page


def test_a_wide_table_fits_the_page_of_a_paper_and_names_metrics_as_its_headings_do(
    out: Path, tmp_path: Path
) -> None:
    factors = {"backbone": ["Swin-Tiny", "Focal-Tiny"], "detector": ["RetinaNet", "Mask R-CNN"]}
    columns = ("params", "gmacs", "ap_box", "ap50_box", "ap75_box", "ap_mask", "ap50_mask", "ap75_mask")
    plan = make_plan(factors, paper="table12_coco_1x_full", tasks=("detection",), columns=columns)
    for cell in range(4):
        for seed in range(3):
            metrics = {key: 40.0 + seed for key in columns if key.startswith("ap")}
            finish(out, run_id(cell, seed, "detection"), task="detection", metrics=metrics)
    text = table_latex(build_table(plan, out))
    assert r"textasciicircum" not in text
    assert r" & AP$^b$$_{50}$ & " in text
    page = compiled(text, tmp_path / "latex", NARROW)
    assert "ResNeXt101-64x4d" in page


def test_all_runs_compile(out: Path, mixed: FakePlan, tmp_path: Path) -> None:
    page = compiled(long_latex(runs_table(out)), tmp_path / "latex")
    assert run_id(0, 0) in page


def test_special_characters_compile_and_show(out: Path, tmp_path: Path) -> None:
    plan = make_plan({NASTY: [NASTY, "[first] after a line's end"]}, columns=("top1",), seeds=(0, 1))
    for seed in (0, 1):
        finish(out, run_id(1, seed))
    page = compiled(table_latex(build_table(plan, out)), tmp_path / "latex")
    for shown in ("100%", "a_b", "[x]", "[first]", "#", "~"):
        assert shown in page


def test_every_character_that_means_something_is_escaped() -> None:
    assert latex("50% of a_b & c#d $e {f}") == r"50\% of a\_b \& c\#d \$e \{f\}"
    assert latex("a\n  b") == "a b"
    assert latex("漢") == "?"
    assert latex("--out a--b – c") == r"-{}-out a-{}-b -- c"  # noqa: RUF001
    assert latex("``x'' --- ,,") == "`{}`x'{}' -{}-{}- ,{},"


def test_rows_are_grouped_by_their_first_factor_and_columns_by_task(out: Path) -> None:
    plan = make_plan(
        {"backbone": ["Swin-Tiny", "Focal-Tiny"], "window_size": ["7", "14"]}, paper="table8_window_size"
    )
    text = table_latex(build_table(plan, out))
    assert (
        text.count("\n\\midrule\n") == 2 + 1
    )  # below the heading, between the backbones, of the comparisons
    assert text.count("Focal-Tiny & 7") == 2  # in the table and in the comparisons
    assert "\n & 14 & " in text
    assert r"\multicolumn{2}{c}{Classification}" in text
    assert r"\multicolumn{2}{c}{Detection}" in text
