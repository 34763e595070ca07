"""The model card of a folder for timm: what the network is, its results, how to load it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from timm.models._hub import generate_readme

from focal_lab._version import __version__
from focal_lab.sweep.run_folder.layout import RESULT_FILE
from focal_lab.tasks.backbone import is_focal
from focal_lab.tasks.ema import PREFIX
from focal_lab.tools.trained.load import RAW, TrainedTask

_BACKBONE = """

This is the backbone of a {task} network. The norms of its maps, and {head} on top of them, are not part
of it: timm has no place for them. The norm after the last stage, which {task} does not use, is untrained;
a classifier would have to be trained."""
_USE = """```python
{imports}
model = timm.create_model("local-dir:PATH", pretrained=True{features}).eval()
# or, uploaded: timm.create_model("hf-hub:USER/NAME", pretrained=True{features})
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```"""
_CITATION = """@inproceedings{yang2021focal,
  title={Focal Attention for Long-Range Interactions in Vision Transformers},
  author={Yang, Jianwei and Li, Chunyuan and Zhang, Pengchuan and Dai, Xiyang and Xiao, Bin and Yuan, Lu and
          Gao, Jianfeng},
  booktitle={NeurIPS},
  year={2021}
}"""
_MOST_NAMES = 20


def model_card(trained: TrainedTask, cfg: Mapping[str, Any], license_name: str | None) -> str:
    """The card in Markdown, with the metadata that the Hub reads.

    Args:
        trained: where the weights are from.
        cfg: timm's description of the network.
        license_name: of the weights; None if unknown.
    """
    focal = is_focal(str(trained.options["backbone"]))
    is_backbone = trained.task != "classification"
    description = f"{trained.options['backbone']}, trained for {trained.task} with focal-lab {__version__}."
    if is_backbone:
        head = trained.options.get("method") or trained.options.get("decoder") or "the heads"
        description += _BACKBONE.format(task=trained.task, head=head)
    imports = [
        "import timm",
        *(["import focal_lab  # registers the architecture with timm"] if focal else []),
    ]
    features = ", features_only=True" if is_backbone else ""
    height, width = cfg["input_size"][1:]
    pipeline = "image-feature-extraction" if is_backbone else "image-classification"
    card = {
        "license": license_name or "unknown",
        "tags": [pipeline, "timm"],
        "description": description,
        "details": {
            "Training": _training(trained),
            "Results": _results(trained) or "unknown",
            "Images": f"{height} x {width} px, {cfg['interpolation']}, crop_pct {cfg['crop_pct']:g}, "
            f"mean {_numbers(cfg['mean'])}, std {_numbers(cfg['std'])}",
            "Classes": _classes(trained),
            "License": f"{license_name or 'unknown'} for the weights, Apache-2.0 for the code of focal-lab",
        },
        "usage": _USE.format(imports="\n".join(imports), features=features),
    }
    card |= {"citation": _CITATION} if focal else {}
    text: str = generate_readme(card, trained.name, pipeline)
    return text


def _training(trained: TrainedTask) -> dict[str, Any]:
    epochs, steps = int(trained.state.get("epoch", 0)) + 1, int(trained.state.get("global_step", 0))
    return {
        "data": type(trained.data).__name__ if trained.data is not None else "unknown",
        "backbone options": json.dumps(trained.options.get("backbone_options") or {}),
        "weights": "as trained" if trained.weights == RAW else "moving average (EMA) of the trained weights",
        "after": f"epoch {epochs}, step {steps}",
    } | ({} if trained.run is None else {"run": trained.run.name})


def _results(trained: TrainedTask) -> dict[str, str]:
    """Test metrics of the run, and the validation metric that the checkpoint was chosen by."""
    results = {}
    if trained.run is not None and trained.file.stem == "best":  # the only one that was tested
        with suppress(OSError, ValueError, KeyError):
            metrics = json.loads((trained.run / RESULT_FILE).read_text(encoding="utf-8"))["metrics"]
            for name, value in sorted(metrics.items()):
                if name.startswith(PREFIX) == (trained.weights != RAW):
                    results[f"test {name.removeprefix(PREFIX)}"] = f"{value:.4g}"
    if trained.weights == RAW:  # the checkpoint was chosen by the trained weights
        for callback in trained.state.get("callbacks", {}).values():
            score = callback.get("current_score") if isinstance(callback, Mapping) else None
            if score is not None and callback.get("monitor"):
                results[f"{callback['monitor']} when it was saved"] = f"{float(score):.4g}"
    return results


def _classes(trained: TrainedTask) -> str:
    names = trained.class_names
    if not trained.module.classes.names:
        return f"{len(names)}, without names"
    more = f", ... (all {len(names)} are in config.json)" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
