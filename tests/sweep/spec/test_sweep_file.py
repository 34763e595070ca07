from pathlib import Path
from typing import Any

import pytest
from support.small_project import write, write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.spec.sweep_file import Level, find_sweep, label_of, load_sweep, seeds_from

pytestmark = pytest.mark.usefixtures("project")

BACKBONES = {"Swin-Tiny": {"backbone": "swin"}, "Focal-Tiny": {"backbone": "focal_tiny"}}


def refusal(path: Path, suite: str = "digits") -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(path, suite)
    return str(caught.value)


def test_a_sweep_is_found_by_its_path_and_by_its_bare_name() -> None:
    path = write_sweep("window_size")
    assert find_sweep("sweeps/window_size.yaml") == path
    assert find_sweep("window_size") == path
    assert find_sweep(str(path.absolute())) == path.absolute()


def test_a_bare_name_is_a_file_in_the_working_folder_first() -> None:
    write_sweep("mine")
    assert find_sweep("mine") == Path("sweeps/mine.yaml")
    write("mine", "title: mine")
    assert find_sweep("mine") == Path("mine")


@pytest.mark.parametrize("name", ["window_sise", "sweeps/window_sise.yaml", "elsewhere/window_size"])
def test_a_misspelt_sweep_is_refused_with_a_similar_one(name: str) -> None:
    write_sweep("depth")
    write_sweep("window_size")
    with pytest.raises(UserError, match=r"no such sweep file \(did you mean window_size\?\)"):
        find_sweep(name)


@pytest.mark.parametrize("name", ["", "sweeps"])
def test_an_unknown_sweep_is_refused_with_those_that_exist(name: str) -> None:
    write_sweep("depth")
    write_sweep("window_size")
    with pytest.raises(
        UserError, match=r"no such sweep file \(use sweeps/depth.yaml or sweeps/window_size.yaml"
    ):
        find_sweep(name)


def test_an_unknown_sweep_where_there_are_none_is_refused_without_a_list() -> None:
    with pytest.raises(UserError, match=r"^nothing: there is no such sweep file$"):
        find_sweep("nothing")


def test_every_key_of_a_sweep_file_reaches_the_sweep() -> None:
    path = write_sweep(
        "full",
        title="Windows",
        paper="table8_window_size",
        claim="larger is better",
        tasks=["detection", "classification"],
        seeds=[3, 1],
        design="one_factor",
        factors={"backbone": BACKBONES, "depths": [[2, 2, 6, 2], [2, 2, 2, 2]], "use_shift": [False]},
        exclude=[{"backbone": "Swin-Tiny", "depths": [2, 2, 2, 2]}],
        cells=[{"backbone": "Swin-Tiny", "depths": "2-2-6-2", "use_shift": False}],
        columns=["top1", "ap_box"],
        set={"model.lr": 0.1},
        allow_degenerate=True,
    )
    sweep = load_sweep(path, "digits")
    assert (sweep.name, sweep.path, sweep.title) == ("full", path, "Windows")
    assert (sweep.paper, sweep.claim) == ("table8_window_size", "larger is better")
    assert (sweep.tasks, sweep.seeds) == (("detection", "classification"), (3, 1))
    assert sweep.factors["backbone"] == (
        Level("Swin-Tiny", {"backbone": "swin"}),
        Level("Focal-Tiny", {"backbone": "focal_tiny"}),
    )
    assert sweep.factors["depths"][0] == Level("2-2-6-2", {"depths": [2, 2, 6, 2]})
    assert sweep.factors["use_shift"] == (Level("false", {"use_shift": False}),)
    assert sweep.exclude == ({"backbone": "Swin-Tiny", "depths": "2-2-2-2"},)
    assert sweep.cells == ({"backbone": "Swin-Tiny", "depths": "2-2-6-2", "use_shift": "false"},)
    assert (sweep.design, sweep.columns) == ("one_factor", ("top1", "ap_box"))
    assert (sweep.settings, sweep.allow_degenerate) == ({"model.lr": 0.1}, True)


def test_a_sweep_needs_only_factors() -> None:
    sweep = load_sweep(write("sweeps/window_size.yaml", "factors: {window_size: [7]}"), "digits")
    assert (sweep.title, sweep.paper, sweep.claim) == ("window size", None, None)
    assert (sweep.tasks, sweep.seeds, sweep.design) == (("classification",), (0, 1, 2), "grid")
    assert sweep.columns == ("params", "gmacs", "top1")
    assert (sweep.settings, sweep.exclude, sweep.cells, sweep.allow_degenerate) == ({}, (), (), False)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"factor": {}}, "factor is not a key of a sweep file (did you mean factors?)"),
        ({"factors": None}, "factors: a sweep needs at least one factor with levels"),
        ({"factors": [7]}, "factors: [7] is not a mapping"),
        ({"factors": {"window_size": 7}}, "factors.window_size: 7 is neither a list of values nor labels"),
        ({"factors": {"backbone": "swin"}}, "factors.backbone: 'swin' is neither a list of values nor"),
        ({"factors": {"window_size": []}}, "factors.window_size: has no levels"),
        ({"factors": {"window_size": [7, 14, 7]}}, "factors.window_size: the label 7 is listed twice"),
        ({"factors": {"window_size": [7, "7"]}}, "factors.window_size: the label 7 is listed twice"),
        ({"factors": {"net": {"A": "swin"}}}, "factors.net.A: 'swin' is not a mapping"),
        ({"exclude": {"window_size": 7}}, "exclude: {'window_size': 7} is not a list"),
        ({"exclude": [{"depth": 7}]}, "exclude.0: depth is not a factor (use window_size)"),
        (
            {"exclude": [{"window_size": 7}, {"window_size": 9}]},
            "exclude.1.window_size: 9 is not a level (use 7 or 14)",
        ),
        ({"exclude": ["window_size"]}, "exclude.0: 'window_size' is not a mapping"),
        ({"cells": [{"depth": 7}]}, "cells.0: depth is not a factor (use window_size)"),
        ({"cells": [{"window_size": 7}, {"window_size": 9}]}, "cells.1.window_size: 9 is not a level"),
        ({"cells": [{}]}, "cells.0: lacks the factor window_size"),
        ({"cells": [{"window_size": 7}, {"window_size": "7"}]}, "cells.1: repeats cells.0"),
        ({"columns": ["top1", "top2"]}, "columns: 'top2' is not a column (did you mean top5?)"),
        ({"columns": ["top1", "top1"]}, "columns: top1 is listed twice"),
        ({"columns": "top1"}, "columns: 'top1' is not a list of columns"),
        ({"columns": []}, "columns: [] is not a list of columns"),
        ({"tasks": ["pose"]}, "tasks: 'pose' is unknown (use classification, detection or segmentation)"),
        ({"tasks": []}, "tasks: [] is not a list of tasks"),
        ({"tasks": ["detection", "detection"]}, "tasks: detection is listed twice"),
        ({"design": "random"}, "design: 'random' is unknown (use grid or one_factor)"),
        ({"seeds": 0}, "seeds: 0 is neither a number of seeds nor a list of different seeds"),
        ({"set": ["model.lr"]}, "set: ['model.lr'] is not a mapping"),
        ({"suites": ["digits"]}, "suites: ['digits'] is not a mapping"),
        ({"suites": {"digit": {"seeds": 3}}}, "suites: digit is not a suite (did you mean digits?)"),
        ({"suites": {"large": {"seed": 3}}}, "suites.large: seed is not a key of a sweep file"),
        ({"suites": {"digits": 3}}, "suites.digits: 3 is not a mapping"),
        ({"suites": {"digits": {"seed": 3}}}, "suites.digits: seed is not a key of a sweep file"),
        ({"suites": {"digits": {"margin": -1}}}, "suites.digits.margin: "),
        ({"suites": {"digits": {"factors": {"window_size": 7}}}}, "suites.digits.factors.window_size: "),
        ({"suites": {"digits": {"seeds": 0}}}, "suites.digits.seeds: 0 is neither a number of seeds"),
        ({"suites": {"digits": {"suites": {}}}}, "suites.digits: suites is not a key of a sweep file"),
        ({"allow_degenerate": "no"}, "allow_degenerate: 'no' is neither true nor false"),
    ],
)
def test_a_broken_rule_is_reported_with_file_key_value_and_way_out(
    keys: dict[str, Any], message: str
) -> None:
    assert refusal(write_sweep(**keys)).startswith(f"sweeps/small.yaml: {message}")


def test_a_missing_or_malformed_file_is_reported() -> None:
    assert refusal(Path("sweeps/no.yaml")) == "sweeps/no.yaml: cannot be read: No such file or directory"
    malformed = write("sweeps/bad.yaml", "title: x\nfactors: {a: [7, 14}")
    assert refusal(malformed).startswith("sweeps/bad.yaml: is not YAML: line 2, column 20: ")
    twice = write("sweeps/twice.yaml", "factors: {a: [7]}\nseeds: 3\nseeds: 4")
    assert refusal(twice) == "sweeps/twice.yaml: is not YAML: line 3, column 1: the key seeds is given twice"


def test_the_section_of_a_suite_changes_keys_for_that_suite_alone() -> None:
    suites = {"digits": {"factors": {"window_size": [2]}, "seeds": 5}, "empty": None}
    path = write_sweep(title="Windows", suites=suites)
    digits, large = load_sweep(path, "digits"), load_sweep(path, "large")
    assert [level.label for level in digits.factors["window_size"]] == ["2"]
    assert (len(digits.seeds), digits.title) == (5, "Windows")
    assert [level.label for level in large.factors["window_size"]] == ["7", "14"]
    assert load_sweep(path, "empty") == large


def test_labels_and_names_stay_as_they_are_written_and_values_are_what_yaml_takes_them_for() -> None:
    text = (
        "factors: {a: [on, off, 1.50, 1e3, 007, 2026-01-02, ~, [1, [no]]], 1: {no: {b: no}, 2.0: {b: yes}}}\n"
        "exclude: [{a: on, 1: no}]\nbaseline: {1: 2.0}\n"
    )
    sweep = load_sweep(write("sweeps/labels.yaml", text), "digits")
    assert {level.label: level.settings["a"] for level in sweep.factors["a"]} == {
        "on": True,
        "off": False,
        "1.50": 1.5,
        "1e3": 1000.0,
        "007": 7,
        "2026-01-02": "2026-01-02",
        "~": None,
        "1-no": [1, [False]],
    }
    assert sweep.factors["1"] == (Level("no", {"b": False}), Level("2.0", {"b": True}))
    assert sweep.exclude == ({"a": "on", "1": "no"},)
    assert sweep.baseline == {"1": {"no": "2.0", "2.0": "2.0"}}
    searched = "search: {trials: 2, ranges: {on: [no, 1.0]}}\ntitle: no\n"
    sweep = load_sweep(write("sweeps/searched.yaml", searched), "digits")
    assert (sweep.title, sweep.factors) == (
        "no",
        {"on": (Level("no", {"on": False}), Level("1.0", {"on": 1.0}))},
    )


def test_switches_have_the_same_label_as_key_and_as_value() -> None:
    text = "factors: {shift: {off: {use_shift: false}, on: {use_shift: true}}}\nexclude: [{shift: on}]"
    sweep = load_sweep(write("sweeps/shift.yaml", text), "digits")
    assert [level.label for level in sweep.factors["shift"]] == ["off", "on"]
    assert sweep.exclude == ({"shift": "on"},)


def test_words_that_yaml_takes_for_numbers_are_still_words() -> None:
    sweep = load_sweep(write_sweep(title=2026, paper=8, claim=1.5), "digits")
    assert (sweep.title, sweep.paper, sweep.claim) == ("2026", "8", "1.5")


@pytest.mark.parametrize(("value", "seeds"), [(1, (0,)), (3, (0, 1, 2)), ([0], (0,)), ([7, 3], (7, 3))])
def test_seeds_are_a_number_or_a_list(value: Any, seeds: tuple[int, ...]) -> None:
    assert seeds_from(value) == seeds


@pytest.mark.parametrize(
    "value", [0, -1, True, 2.0, "3", None, [], [1, 1], [-1], [1.0], [True], ["1"], {"a": 1}]
)
def test_what_is_no_seeds_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^seeds: .* is neither a number of seeds nor a list of"):
        seeds_from(value)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (14, "14"),
        (0.1, "0.1"),
        (True, "true"),
        ([2, 2, 6, 2], "2-2-6-2"),
        ([[1], True], "1-true"),
        ("a", "a"),
    ],
)
def test_plain_values_have_short_labels(value: Any, label: str) -> None:
    assert label_of(value) == label


@pytest.mark.parametrize(
    ("margin", "margins"),
    [
        ("0.3", {"top1": 0.3, "top5": 0.3}),
        ("{top1: 0.3, loss: 0.01}", {"top1": 0.3, "loss": 0.01}),
        ("{ap_box: 1}", {"ap_box": 1.0}),  # for --tasks detection
        ("null", {}),
    ],
)
def test_a_margin_is_one_for_all_metrics_in_points_or_one_for_each(
    margin: str, margins: dict[str, float]
) -> None:
    columns = "columns: [params, top1, top5, loss]"
    path = write("mine.yaml", f"factors: {{window_size: [7, 14]}}\n{columns}\nmargin: {margin}\n")
    sweep = load_sweep(path, "digits")
    assert sweep.margins == margins
    assert sweep.margin("top1") == margins.get("top1", 0.5)
    assert sweep.margin("loss") == margins.get("loss", 0.02)


@pytest.mark.parametrize(
    ("margin", "message"),
    [
        (
            "0.005",
            "margin: 0.005 is not a margin of top1, which is in points from 0 to 100 (use 0.01 to 20, ",
        ),
        ("50", "margin: 50 is not a margin of top1, which is in points"),
        ("0.5 %", "margin: '0.5 %' is not a margin of top1 (use a number above 0, such as 0.5)"),
        ("-1", "margin: -1 is not a margin of top1 (use a number above 0"),
        (".nan", "margin: nan is not a margin"),
        (".inf", "margin: inf is not a margin"),
        ("half", "margin: 'half' is not a margin"),
        ("true", "margin: True is not a margin"),
        ("[0.5]", "margin: [0.5] is not a margin"),
        ("{top9: 1}", "margin.top9: 'top9' is not a column (did you mean top5?)"),
        ("{params: 1}", "margin.params: params is not a metric of a task"),
        ("{top5: 1}", "margin.top5: add top5 to columns"),
        ("{top1: null}", "margin.top1: None is not a margin"),
    ],
)
def test_a_margin_that_is_none_is_reported_with_file_key_value_and_way_out(margin: str, message: str) -> None:
    path = write("mine.yaml", f"factors: {{window_size: [7, 14]}}\ncolumns: [top1, loss]\nmargin: {margin}\n")
    assert refusal(path).startswith(f"mine.yaml: {message}")


def test_a_margin_for_all_needs_a_metric_in_points() -> None:
    path = write(
        "mine.yaml", "factors: {window_size: [7]}\ntasks: [classification]\ncolumns: [loss]\nmargin: 1\n"
    )
    assert load_sweep(path, "digits").margins == {"top1": 1.0}  # the task's main metric is always shown
