"""Every sweep that is shipped can be planned and counted, and finds its numbers in the paper."""

import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from support import ROOT

from focal_lab.report.published.layouts import find_layout, known_papers, published
from focal_lab.report.table.build import build_table
from focal_lab.sweep.plan.plan import Plan, make_plan, probe_plan
from focal_lab.sweep.plan.runs import hash_of
from focal_lab.sweep.spec.suite import find_suite
from focal_lab.training.cost import count_config

NAMES = sorted(path.stem for path in ROOT.glob("sweeps/*.yaml"))
SUITES = ("digits", "imagenet")
SEARCHES = ["learning_rate"]
OF_SEEDS = ["variance"]  # one network, whose seeds of parts are the factors
DESIGNS = sorted(set(NAMES) - set(SEARCHES))
OF_THE_PAPER = ["depth", "interactions", "window_shift", "window_size"]
# the tables that show Focal beside other networks
COMPARISONS = ["classification", "detection", "segmentation"]
# a sweep that ends in detection or segmentation trains heads on the backbones of its classification runs
MAIN_METRIC = {"detection": "ap_box", "segmentation": "miou"}
by_name = pytest.mark.parametrize("name", NAMES)
by_suite = pytest.mark.parametrize("suite", SUITES)


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are looked for in the working folder."""
    monkeypatch.chdir(ROOT)


@cache
def planned(name: str, suite: str) -> Plan:
    return make_plan(Path("sweeps") / f"{name}.yaml", suite=suite)


def ids(name: str, suite: str = "digits") -> set[str]:
    return {run.id for run in planned(name, suite).runs}


def header(name: str) -> dict[str, str]:
    """The comment on top of a sweep: `# Key: text` as key -> text, its first line under "what"."""
    lines = (Path("sweeps") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = lines[: next(i for i, line in enumerate(lines) if not line.startswith("# "))]
    keyed = [re.match(r"# (\w+): +(.*)", line) for line in comment]
    return {"what": comment[0][2:] if comment else ""} | {found[1]: found[2] for found in keyed if found}


def test_the_papers_ablations_are_all_there() -> None:
    assert {*OF_THE_PAPER, *COMPARISONS, "focal_levels"} <= set(NAMES)
    # table 3 is a summary of table 12, table 4 is table 12 with another schedule
    others = {"table3_coco_1x_summary", "table4_coco_3x_MS"}
    found = {planned(name, "digits").sweep.paper for name in (*OF_THE_PAPER, *COMPARISONS)}
    assert found | others == set(known_papers())


@by_name
def test_a_sweep_opens_with_paper_claim_command_and_cost(name: str) -> None:
    reported, paper = header(name), planned(name, "digits").sweep.paper
    assert "paper" in reported["what"].lower()
    if paper:
        assert reported["what"].lower().startswith(f"paper {find_layout(paper).cite}: ")
    assert len(reported["Claim"]) > 20
    assert reported["Run"] == f"focal-lab sweep sweeps/{name}.yaml"
    assert reported["Cost"]


@by_name
def test_the_cost_on_top_of_a_sweep_counts_its_runs_and_what_others_share(name: str) -> None:
    cost = header(name)["Cost"]
    runs = re.match(r"(\d+) runs", cost)
    assert runs
    space = planned(name, "digits").space
    assert int(runs[1]) == (len(ids(name)) if space is None else space.search.trials)
    assert (space is not None) == (name in SEARCHES)
    shared = re.search(r"(\d+) of them shared with (\w+)(?: and (\w+))?", cost)
    if shared:
        others = [other for other in shared.groups()[1:] if other]
        assert set(others) <= set(NAMES)
        assert int(shared[1]) == len(ids(name) & set().union(*map(ids, others)))


@pytest.mark.parametrize(("name", "suite"), list(product(DESIGNS, SUITES)))
def test_every_cell_of_a_sweep_is_a_network_of_its_own(name: str, suite: str) -> None:
    plan = planned(name, suite)
    tasks, seeds = len(plan.sweep.tasks), [0] if name in OF_SEEDS else [0, 1, 2]
    assert len(plan.runs) == len(plan.cells) * len(seeds) * tasks
    # the heads of one backbone share its classification run
    assert len(plan.distinct_runs) == len(plan.runs) - (6 if name == "detection" else 0)
    assert {run.seed for run in plan.runs} == set(seeds)


@by_suite
def test_every_configuration_of_every_sweep_can_be_built_and_counted(suite: str) -> None:
    distinct = {
        hash_of(run.config | {"seed_everything": None}): run
        for name in NAMES
        for run in probe_plan(planned(name, suite)).runs
    }
    assert len(distinct) >= 12
    experiments = {task: find_suite(suite).experiment(task) for task in MAIN_METRIC | {"classification": ""}}
    # tests/test_evaluated_sizes.py: what an experiment's evaluation feeds to the network
    sizes = {task: count_config(config).evaluated for task, config in experiments.items()}
    for run in distinct.values():
        counted = count_config(run.config)
        assert counted.evaluated == sizes[run.task], run.cell.name
        assert counted.params > 10_000, run.cell.name
        assert counted.gmacs > 0, run.cell.name


@by_suite
@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_every_row_of_a_sweep_finds_its_row_in_the_paper(name: str, suite: str, tmp_path: Path) -> None:
    plan = planned(name, suite)
    assert plan.sweep.paper is not None
    table = build_table(plan, tmp_path)
    assert table.cite == find_layout(plan.sweep.paper).cite
    for row in table.rows:
        assert row.in_paper, row.labels
        assert row.entries["top1"].published is not None
    assert len(table.rows) == len(published(plan.sweep.paper))
    # no two rows find the same one
    assert len({tuple(entry.published for entry in row.entries.values()) for row in table.rows}) == len(
        table.rows
    )


@by_suite
@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_stands_among_the_papers_rows(name: str, suite: str, tmp_path: Path) -> None:
    plan = planned(name, suite)
    assert plan.sweep.paper is not None
    table = build_table(plan, tmp_path)
    ours = [row for row in table.rows if not row.reference]
    assert len(ours) == len(plan.cells)
    assert len(table.rows) > 2 * len(ours)
    for row in ours:
        assert row.in_paper, row.labels
        assert row.entries[MAIN_METRIC.get(name, "top1")].published is not None
    assert not {tuple(row.labels.values()) for row in ours} & {
        tuple(row.labels.values()) for row in table.rows if row.reference
    }


@by_suite
@pytest.mark.parametrize("name", [*OF_THE_PAPER, *COMPARISONS])
def test_only_the_suite_with_the_papers_data_and_networks_is_compared_with_its_numbers(
    name: str, suite: str, tmp_path: Path
) -> None:
    table = build_table(planned(name, suite), tmp_path)
    for row in table.rows:
        if row.reference:
            continue
        assert row.variant == ("micro" if suite == "digits" else "")
        unlike = {
            entry.unlike_paper for key, entry in row.entries.items() if key in ("top1", "ap_box", "miou")
        }
        assert unlike == {("data", "network") if suite == "digits" else ()}


@pytest.mark.parametrize("name", sorted({*NAMES} - {*OF_THE_PAPER, *COMPARISONS}))
def test_a_sweep_of_our_own_claims_no_published_numbers(name: str, tmp_path: Path) -> None:
    assert planned(name, "digits").sweep.paper is None
    assert not any(row.in_paper for row in build_table(planned(name, "digits"), tmp_path).rows)


@by_suite
def test_all_sweeps_share_the_runs_of_the_baseline(suite: str) -> None:
    shared = set.intersection(*(ids(name, suite) for name in DESIGNS if name not in OF_SEEDS))
    runs = [run for run in planned("window_size", suite).runs if run.id in shared]
    assert sorted(run.seed for run in runs) == [0, 1, 2]
    assert {run.cell.name for run in runs} == {"Focal-Tiny, 7"}


@by_suite
@pytest.mark.parametrize("name", DESIGNS)
def test_a_report_says_which_factors_vary_several_settings(name: str, suite: str, tmp_path: Path) -> None:
    table = build_table(planned(name, suite), tmp_path)
    with_several = {
        **{name: {"backbone"} for name in ("depth", "downsample", "window_shift", "window_size")},
        **{name: {"backbone"} for name in COMPARISONS},
        "interactions": {"interactions"},
    }
    if suite == "digits":  # its detector's options are for Mask R-CNN
        with_several["detection"] = {"backbone", "detector"}
    assert {confound.factor for confound in table.confounds} == with_several.get(name, set())
    for confound in table.confounds:
        downsampling = confound.factor == "backbone" and name != "downsample"
        assert ("downsample" in confound.settings) == downsampling
        assert any(note.startswith(f"{confound.factor}: ") for note in table.notes)


def test_on_the_retrieval_suite_no_network_of_the_interactions_has_a_global_stage() -> None:
    plan = planned("interactions", "retrieval")
    assert len(plan.distinct_runs) == 4 * 5
    assert {run.backbone for run in plan.runs} == {"focal_shallow_patch7_window2_56"}
    for run in probe_plan(plan).runs:
        assert [(stage["map_size"], stage["window"]) for stage in run.stages or ()] == [
            ([8, 8], [2, 2]),
            ([4, 4], [1, 1]),
        ]
        assert count_config(run.config).evaluated.size == (56, 56)
    assert [part.text.split()[1] for part in plan.sweep.expectations] == [">", ">", ">", "~"]


def test_the_digits_suite_is_the_one_that_a_sweep_uses_by_default() -> None:
    assert [run.id for run in make_plan(Path("sweeps/window_size.yaml")).runs] == [
        run.id for run in planned("window_size", "digits").runs
    ]
