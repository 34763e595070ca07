"""`focal-lab profile`: what it counts, measures, prints and refuses."""

import json
import subprocess
import sys
from typing import Any

import pytest

from focal_lab import cli
from focal_lab.tools.profile.counts import SPEED_AND_MEMORY, count_model
from focal_lab.tools.profile.text import profile_text

TINY = "focal_tiny_patch4_window7_224"
SWIN = "swin_tiny_patch4_window7_224"
# What a new option or column must not take away: scripts read these.
KEYS = {
    "name", "options", "image_size", "params", "released_params", "gmacs", "activations", "stages", "device",
    "threads", "batch_size", "images_per_second", "images_per_second_rounds", "relative_speed",
    "peak_memory_bytes", "training",
}  # fmt: skip


@pytest.fixture
def profile(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command, counting only, and returns what it prints as JSON."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        assert cli.main(["profile", *arguments, "--no-measure", "--json"]) == 0
        printed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return printed

    return run


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command, counting only, and returns its lines as words."""

    def run(*arguments: str) -> list[list[str]]:
        assert cli.main(["profile", *arguments, "--no-measure"]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    """Two small models, measured as on the command line."""
    arguments = ["focal_micro", "focal_swin_micro", "--rounds", "2", "--batch-size", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "focal_lab.cli", "profile", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    printed: list[dict[str, Any]] = json.loads(done.stdout)
    return printed


def test_focal_tiny_and_swin_tiny_have_the_published_numbers(table: Any) -> None:
    lines = table("focal_tiny", SWIN)
    assert ["focal_tiny", "224x224", "28.83", "28.88", "4.914", "23.51"] in lines
    assert [SWIN, "224x224", "28.29", "-", "4.491", "17.06"] in lines


def test_the_stage_table_shows_keys_and_reach_of_focal_models_alone(table: Any) -> None:
    lines = table("focal_tiny", SWIN)
    stages = [line for line in lines if "of" in line and line[-1][0].isdigit()]
    assert [line[-3:] for line in stages] == [
        ["218", "52x52", "196x196"],
        ["194", "104x104", "224x224"],
        ["178", "208x208", "224x224"],
        ["50", "224x224", "224x224"],
    ]
    assert sum(line[:1] == [SWIN] for line in lines) == 1


def test_a_model_that_is_not_focal_has_no_stages(profile: Any) -> None:
    (counted,) = profile("resnet50")
    assert counted["stages"] is None
    assert counted["released_params"] is None
    assert counted["image_size"] == [224, 224]
    assert counted["gmacs"] == pytest.approx(4.09, rel=0.005)


def test_json_has_the_same_keys_for_every_model_and_null_for_what_was_not_measured(profile: Any) -> None:
    for counted in profile("focal_micro", "resnet18"):
        assert set(counted) == KEYS
        unknown = KEYS - {
            "name", "options", "image_size", "params", "released_params", "gmacs", "activations", "stages"
        }  # fmt: skip
        assert {counted[key] for key in unknown} == {None}


def test_json_describes_what_each_stage_really_computes(profile: Any) -> None:
    (counted,) = profile("focal_micro")
    stages = counted["stages"]
    assert [stage["keys_per_window"] for stage in stages] == [178, 50, 17, 5]
    third = stages[2]
    assert (third["stage"], third["map_size"], third["window"], third["expand"]) == (
        3,
        [4, 4],
        [4, 4],
        [0, 0],
    )
    assert (third["shift"], third["levels"][0]["pool_size"]) == ([0, 0], [4, 4])
    assert third["receptive_field"] == {"fine": [28, 28], "coarse": [[28, 28]]}
    assert "window 7 becomes the 4 x 4 map" in third["notes"]


def test_options_are_yaml_and_change_the_network(profile: Any) -> None:
    (changed,) = profile("focal_tiny", "--set", "window_size=14", "--set", "depths=[2, 2, 2, 2]")
    assert changed["options"] == {"window_size": 14, "depths": [2, 2, 2, 2]}
    assert [stage["depth"] for stage in changed["stages"]] == [2, 2, 2, 2]
    assert [stage["window"] for stage in changed["stages"]] == [[14, 14]] * 3 + [[7, 7]]


def test_an_option_that_is_not_honoured_is_noted_with_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "focal_tiny", "--set", "window_size=14", "--no-measure"]) == 0
    printed = capsys.readouterr().out
    assert "- Set: window_size=14.\n" in printed
    assert "- focal_tiny, stages 3, 4: expansion is off: the window covers the map\n" in printed
    assert "- focal_tiny, stage 4: window 14 becomes the 7 x 7 map\n" in printed


def test_an_option_reaches_other_timm_models_too(profile: Any) -> None:
    (swin,) = profile(SWIN, "--set", "window_size=14")
    assert swin["gmacs"] == pytest.approx(4.89, rel=0.005)


@pytest.mark.parametrize(("given", "size"), [(("448",), [448, 448]), (("224", "448"), [224, 448])])
def test_a_focal_model_is_built_for_the_given_size(profile: Any, given: Any, size: Any) -> None:
    (focal,) = profile("focal_tiny", "--image-size", *given)
    assert focal["image_size"] == size
    assert focal["stages"][0]["map_size"] == [size[0] // 4, size[1] // 4]


def test_other_models_take_the_size_where_they_can_and_run_at_any_size_where_not(profile: Any) -> None:
    usual = profile(SWIN, "resnet50")
    # timm's Swin refuses images of a size that it was not built for
    wide = profile(SWIN, "resnet50", "--image-size", "224", "448")
    for counted, doubled in zip(usual, wide, strict=True):
        assert doubled["gmacs"] == pytest.approx(2 * counted["gmacs"], rel=0.005)


def test_channels_of_the_image_follow_the_option(profile: Any) -> None:
    gray, colour = profile("resnet18", "--set", "in_chans=1"), profile("resnet18")
    assert gray[0]["params"] == colour[0]["params"] - 2 * 7 * 7 * 64


def test_names_may_stand_between_and_after_flags(profile: Any) -> None:
    names = [counted["name"] for counted in profile("resnet18", "--set", "num_classes=10", "focal_micro")]
    assert names == ["resnet18", "focal_micro_patch2_window7_28"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["focal_tny"], "'focal_tny' is not a backbone (focal ones: "),
        (["focal_tiny", TINY], f"{TINY}: the model {TINY} is named twice"),
        (
            ["focal_tiny", "--set", "windows=7"],
            f"--set: {TINY}: windows is not an option of a focal backbone",
        ),
        (["focal_tiny", "--set", "focal_pool=sum"], "--set: focal_pool: 'sum' is unknown (use fc, mean, max"),
        (["resnet50", "--set", "window_size=7"], "--set: resnet50: "),
        (["focal_tiny", "--set", "window_size"], "--set: 'window_size' is not KEY=VALUE"),
        (["focal_tiny", "--set", "img_size=56"], "--set: img_size is set by --image-size"),
        (["focal_tiny", "--image-size", "0"], "--image-size: 0 is neither one size nor height and width"),
        (["focal_tiny", "--image-size", "1", "2", "3"], "--image-size: 1 2 3 is neither one size nor "),
        (["inception_v3", "--image-size", "32"], "inception_v3: does not run on 32 x 32 pixels: "),
        (["focal_tiny", "--batch-size", "0"], "--batch-size: 0 is too few; use 1 or more"),
        (
            ["focal_tiny", "--batch-size", "4"],
            "--batch-size applies to measuring, which --no-measure",
        ),
        (["focal_tiny", "--training"], "--training applies to measuring, which --no-measure turns off"),
    ],
)
def test_a_mistake_is_one_line_with_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["profile", "--no-measure", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"focal-lab: {message}")


def test_help_says_what_is_measured_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom focal_lab import cli\ntry:\n    cli.main(['profile', '--help'])\n"
        "finally:\n    print([name for name in ('torch', 'timm', 'rich', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "median of the rounds" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_measurement_has_speed_memory_and_where_it_was_taken(measured: list[dict[str, Any]]) -> None:
    for model in measured:
        assert len(model["images_per_second_rounds"]) == 2
        assert min(model["images_per_second_rounds"]) > 0
        assert model["images_per_second"] == pytest.approx(sum(model["images_per_second_rounds"]) / 2)
        assert model["peak_memory_bytes"] is None or model["peak_memory_bytes"] > 0
        assert model["batch_size"] == 2
        assert model["device"] in ("cpu", "cuda")
        assert model["training"] is None


def test_speeds_are_relative_to_the_first_model(measured: list[dict[str, Any]]) -> None:
    first, second = measured
    assert first["relative_speed"] == 1
    ratios = [
        b / a
        for a, b in zip(first["images_per_second_rounds"], second["images_per_second_rounds"], strict=True)
    ]
    assert second["relative_speed"] == pytest.approx(sum(ratios) / 2)


def test_measured_models_have_their_columns_in_the_table() -> None:
    one, two = (count_model("focal_swin_micro", {}, None) for _ in range(2))
    machine = {"device": "cpu", "threads": 1, "batch_size": 2}
    training = dict(zip(SPEED_AND_MEMORY, (30.0, [30.0], 1.0, None), strict=True))
    for model, measured in (
        (one, (100.0, [90.0, 100.0, 400.0], 1.0, 12_340_000)),
        (two, (250.0, [250.0], 2.5, 1_000_000)),
    ):
        speed = dict(zip(SPEED_AND_MEMORY, measured, strict=True))
        model.profile.update(machine | speed | {"training": training})
    lines = [line.split() for line in profile_text([one, two], terminal=False).splitlines()]
    assert lines[2][-6:] == ["100", "1.00x", "12.3", "30", "1.00x", "-"]
    assert lines[3][-6:] == ["250", "2.50x", "1.0", "30", "1.00x", "-"]
    assert "batches of 2 on cpu, 1 thread; median of 3 rounds" in " ".join(
        word for line in lines for word in line
    )
