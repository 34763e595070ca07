"""`focal-lab convert` as it is typed: files in, files out, and one line for every mistake."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

import focal_lab
from focal_lab.backbones.model import FocalTransformer
from focal_lab.cli import main

GOLDEN = Path(__file__).parents[1] / "golden" / "released.safetensors.xz"
MICRO = "focal_micro_patch2_window7_28"
SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (3, 3, 6, 6), "num_classes": 5}
SWIN_SET = ["--set", "embed_dim=24", "--set", "depths=[1,1,1,1]", "--set", "num_heads=[3,3,6,6]"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save_micro(path: str = "source.pth", **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    state: dict[str, Tensor] = timm.create_model(MICRO, **{"num_classes": 5} | options).state_dict()
    torch.save({"model": state}, path)
    return state


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line that a refused conversion prints; nothing else is printed, and no file is left."""
    files = set(Path().rglob("*"))
    capsys.readouterr()
    assert main(["convert", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert set(Path().rglob("*")) == files
    return line.removeprefix("focal-lab: ")


def test_released_weights_become_a_file_with_the_authors_logits(capsys: pytest.CaptureFixture[str]) -> None:
    data = lzma.decompress(GOLDEN.read_bytes())
    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    config = json.loads(header["__metadata__"]["config"])
    options = {name: config[name] for name in ("img_size", "embed_dim", "depths", "num_heads")}
    weights = {key[8:]: value for key, value in tensors.items() if key.startswith("weights.")}
    torch.save({"model": weights, "epoch": 299}, "released.pth")
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    assert main(["convert", "released.pth", "ours.safetensors", "--model", "focal_tiny", *settings]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "released.pth (released code) -> ours.safetensors (focal_tiny_patch4_window7_224, 10 classes)"
    )
    assert [line.split()[:2] for line in lines[1:3]] == [["mapped", "100"], ["folded", "2"]]
    assert lines[3].split(maxsplit=1)[1] == "(1, 1, 49, 132) -> (1, 49, 120): doubled keys"
    model = timm.create_model(
        "focal_tiny_patch4_window7_224", num_classes=10, checkpoint_path="ours.safetensors", **options
    )
    with torch.no_grad():
        logits = model.eval()(tensors["input"])
    torch.testing.assert_close(logits, tensors["logits"], rtol=0, atol=1e-4)


def test_the_file_says_what_it_is_and_where_it_comes_from() -> None:
    save_micro()
    arguments = ["--model", "focal_micro", "--set", "window_size=5", "--num-classes", "3"]
    assert main(["convert", "source.pth", "out.safetensors", *arguments]) == 0
    with safe_open("out.safetensors", "pt") as file:
        metadata = file.metadata()
    options = json.loads(metadata.pop("options"))
    assert metadata == {
        "format": "pt",
        "model": MICRO,
        "num_classes": "3",
        "source": "source.pth",
        "focal_lab": focal_lab.__version__,
    }
    assert options["window_size"] == 5
    assert options["border"] == "mask"
    rebuilt = FocalTransformer(num_classes=3, **options)
    assert not any(rebuilt.load_state_dict(load_file("out.safetensors")))


def test_resized_dropped_and_new_parameters_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    save_micro(focal_levels=(3, 2, 2, 2), img_size=56)
    arguments = ["--model", "focal_micro", "--set", "window_size=14", "--set", "img_size=56"]
    arguments += ["--num-classes", "7", "--interpolation", "bilinear"]
    assert main(["convert", "source.pth", "out.safetensors", *arguments]) == 0
    printed = capsys.readouterr().out
    for line in (
        "2  (1, 49, 120) -> (1, 196, 204): window 7 to 14",
        "2  (2, 49, 120): the model's stage has no ring",
        "4  (1, 49) -> (1, 196): pool size 7 to 14",
        "2  (1, 9): the model's stage has fewer coarse levels",
        "1  (5, 128) -> (7, 128): its head has 5 classes",
    ):
        assert line in printed, line
    assert main(["convert", "source.pth", "all.safetensors", "--verbose", *arguments]) == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    expected = timm.create_model(MICRO, num_classes=7, window_size=14, img_size=56).state_dict()
    assert set(expected) <= set(lines)
    once, again = load_file("out.safetensors"), load_file("all.safetensors")
    assert all(once[key].equal(again[key]) for key in once), "what is fresh is drawn from a seed"


def test_interpolation_is_the_one_asked_for() -> None:
    save_micro(img_size=56)
    for method in ("bicubic", "bilinear"):
        arguments = ["--model", "focal_micro", "--set", "window_size=14", "--set", "img_size=56"]
        assert (
            main(["convert", "source.pth", f"{method}.safetensors", *arguments, "--interpolation", method])
            == 0
        )
    key = "layers.0.blocks.0.attn.relative_position_bias_table"
    cubic, linear = (load_file(f"{method}.safetensors")[key] for method in ("bicubic", "bilinear"))
    assert 1e-4 < (cubic - linear).abs().max() < 0.1


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".safetensors"])
def test_every_kind_of_file_is_read(suffix: str) -> None:
    state = save_micro()
    source = f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, source)
    elif suffix == ".ckpt":  # as Lightning keeps our classification task
        prefixed = {f"model.{key}": value for key, value in state.items()}
        torch.save({"state_dict": prefixed, "pytorch-lightning_version": "2.6.6"}, source)
    elif suffix == ".bin":  # torch before 1.6
        torch.save(state, source, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, source)
    assert main(["convert", source, "out.safetensors", "--model", "focal_micro"]) == 0
    written = load_file("out.safetensors")
    assert written.keys() == state.keys()
    assert all(written[key].equal(state[key]) for key in state)


def test_a_file_can_be_converted_in_its_own_place() -> None:
    state = save_micro()
    save_file(state, "weights.safetensors")
    arguments = ["--model", "focal_micro", "--num-classes", "0", "--force"]
    assert main(["convert", "weights.safetensors", "weights.safetensors", *arguments]) == 0
    assert not any(key.startswith("head") for key in load_file("weights.safetensors"))
    assert [path.name for path in Path().glob(".*")] == []


def test_swin_goes_both_ways_with_identical_logits() -> None:
    options: dict[str, Any] = SWIN
    swin = timm.create_model("swin_tiny_patch4_window7_224", **options).eval()
    for parameter in swin.parameters():
        nn.init.normal_(parameter, std=0.2)
    torch.save(swin.state_dict(), "timm.pth")
    microsoft: dict[str, Tensor] = {}
    for key, value in swin.state_dict().items():
        parts = key.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        microsoft[".".join(parts).replace("head.fc", "head")] = value
    torch.save({"model": microsoft}, "microsoft.pth")
    image = torch.randn(1, 3, 224, 224)
    for source in ("timm", "microsoft"):
        target = f"{source}.safetensors"
        assert main(["convert", f"{source}.pth", target, "--model", "focal_swin_tiny", *SWIN_SET]) == 0
        again = timm.create_model("swin_tiny_patch4_window7_224", checkpoint_path=target, **options).eval()
        ours = timm.create_model(
            "focal_swin_tiny_patch4_window7_224", checkpoint_path=target, **options
        ).eval()
        with torch.no_grad():
            assert again(image).equal(swin(image))
            torch.testing.assert_close(ours(image), swin(image), rtol=1e-4, atol=1e-4)


def test_a_focal_model_is_initialized_from_swin(capsys: pytest.CaptureFixture[str]) -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", **SWIN)
    torch.save(swin.state_dict(), "swin.pth")
    arguments = ["swin.pth", "out.safetensors", "--model", "focal_tiny", *SWIN_SET]
    assert refused(capsys, *arguments).endswith("(these are Swin's weights: add --from-swin)")
    assert main(["convert", *arguments, "--from-swin"]) == 0
    printed = capsys.readouterr().out
    assert "1  (48, 96) -> (48, 24, 2, 2): patch merging and its norm's scale and shift" in printed
    model = timm.create_model("focal_tiny_patch4_window7_224", checkpoint_path="out.safetensors", **SWIN)
    assert model.layers[0].blocks[0].attn.qkv.weight.equal(swin.layers[0].blocks[0].attn.qkv.weight)
    assert model.layers[0].blocks[0].attn.ring_bias.abs().max() > 0
    save_micro()
    arguments = ["source.pth", "x.safetensors", "--model", "focal_micro", "--from-swin"]
    assert refused(capsys, *arguments).endswith("in the format of focal-lab (omit --from-swin)")


class Command:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def test_files_without_usable_weights_are_refused_and_nothing_in_them_is_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = save_micro()
    whole = Path("source.pth").read_bytes()
    Path("cut.pth").write_bytes(whole[: len(whole) // 2])
    Path("cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    Path("text.pth").write_text("no weights")
    Path("nothing.pth").touch()
    torch.save({"epoch": 3, "model": {}}, "empty.pth")
    torch.save([1, 2], "list.pth")
    torch.save({"model": state, "args": Command()}, "code.pth")
    state["layers.2.blocks.1.norm2.bias"][3] = torch.nan
    torch.save(state, "nan.pth")
    Path("folder.pth").mkdir()
    unreadable = "cannot be read as weights; it is damaged, truncated or something else"
    for source, message in {
        "missing.pth": "does not exist",
        "folder.pth": "is not a file",
        "cut.pth": unreadable,
        "text.pth": unreadable,
        "nothing.pth": unreadable,
        "cut.safetensors": "cannot be read as safetensors; it is damaged or truncated (",
        "empty.pth": "there are no weights in it",
        "list.pth": "holds a list and no weights by name",
        "code.pth": "holds objects of posix.system: ",
        "nan.pth": "layers.2.blocks.1.norm2.bias: 1 of its 64 values are NaN or infinite (",
    }.items():
        line = refused(capsys, source, "out.safetensors", "--model", "focal_micro")
        assert line.startswith(f"{source}: {message}"), line
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["source.pth", "out.safetensors", "--model", "focal_tiny"],
            "source.pth: patch_embed.proj.weight: shape (16, 3, 2, 2) is not the model's (96, 3, 4, 4); ",
        ),
        (
            ["source.pth", "out.safetensors", "--model", "focal_micro", "--set", "focal_pool=conv"],
            "source.pth: layers.0.blocks.0.attn.pools.0.conv.weight: is missing; the model needs it in shape "
            "(16, 1, 7, 7); 31 more do not fit either (set the file's options with --set",
        ),
        (
            ["source.pth", "out.safetensors", "--model", "focal_micro", "--set", "window_sise=7"],
            "--set: window_sise is not an option of a focal backbone (use ",
        ),
        (
            ["source.pth", "out.safetensors", "--model", "focal_micro", "--set", "focal_windows=4"],
            "--set: focal_windows: 4 is even in stage 1; a region must be odd",
        ),
        (
            ["source.pth", "out.safetensors", "--model", "focal_micro", "--set", "window_size"],
            "--set: 'window_size' is not KEY=VALUE",
        ),
        (
            ["source.pth", "out.safetensors", "--model", "resnet50"],
            "--model: 'resnet50' is not a focal backbone (use focal_tiny_patch4_window7_224, ",
        ),
        (
            ["source.pth", "out.safetensors", "--model", "focal_micro", "--num-classes", "-1"],
            "--num-classes: -1 is too few; use 0 or more",
        ),
        (["source.pth", "out.pth", "--model", "focal_micro"], "out.pth: DST: must end in .safetensors"),
        (
            ["source.pth", "nowhere/out.safetensors", "--model", "focal_micro"],
            "nowhere/out.safetensors: DST: the folder nowhere does not exist",
        ),
        (
            ["source.pth", "there.safetensors", "--model", "focal_micro"],
            "there.safetensors: DST: exists (overwrite it with --force)",
        ),
    ],
)
def test_a_mistake_is_reported_in_one_line_and_leaves_no_file(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_micro()
    Path("there.safetensors").write_bytes(b"mine")
    assert refused(capsys, *arguments).startswith(line)
    assert Path("there.safetensors").read_bytes() == b"mine"


def test_a_file_of_another_model_is_refused_with_the_model_that_it_fits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_micro()
    line = refused(capsys, "source.pth", "out.safetensors", "--model", "focal_tiny")
    assert line.endswith(
        " more do not fit either (the file's network has width 16 and depths 2-2-2-2, as "
        "focal_micro_patch2_window7_28 or focal_mini_patch2_window4_64)"
    )
    save_micro(embed_dim=24)
    line = refused(capsys, "source.pth", "out.safetensors", "--model", "focal_micro")
    assert line.endswith("(the file's network has width 24 and depths 2-2-2-2)")


def test_a_target_that_cannot_be_written_is_reported_and_the_old_one_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_micro()
    Path("old.safetensors").write_bytes(b"mine")
    # a process that may write files of 64 kB only; the weights are larger
    code = (
        "import resource, signal, sys\nfrom focal_lab.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "sys.exit(main(['convert', 'source.pth', 'old.safetensors', '--model', 'focal_micro', '--force']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("focal-lab: old.safetensors: cannot be written: ")
    assert Path("old.safetensors").read_bytes() == b"mine"
    assert sorted(path.name for path in Path().iterdir()) == ["old.safetensors", "source.pth"]


def test_a_new_file_has_the_rights_of_any_other() -> None:
    save_micro()
    assert main(["convert", "source.pth", "out.safetensors", "--model", "focal_micro"]) == 0
    Path("any").touch()
    assert Path("out.safetensors").stat().st_mode == Path("any").stat().st_mode


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom focal_lab.cli import main\n"
        "try:\n    main(['convert', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('torch', 'timm', 'numpy', 'safetensors', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--from-swin" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
