"""The model card of a folder for timm: what the network is, what it reached, how to load it."""

import json
from collections.abc import Mapping
from typing import Any

from focal_lab._version import __version__
from focal_lab.sweep.run_folder.layout import RESULT_FILE
from focal_lab.tasks.backbone import is_focal
from focal_lab.tasks.ema import PREFIX
from focal_lab.tools.trained.load import RAW, Trained

_PIPELINES = {
    "classification": "image-classification",
    "detection": "image-feature-extraction",
    "segmentation": "image-feature-extraction",
}
_BACKBONE = """This is the backbone of a {task} network. The norms of its maps, and what stands on them
({head}), are not part of it: timm has no place for them. The norm after the last stage, which {task}
does not use, is as in a new network; a classifier would have to be trained.
"""
_FOCAL = """@inproceedings{yang2021focal,
  title={Focal Attention for Long-Range Interactions in Vision Transformers},
  author={Yang, Jianwei and Li, Chunyuan and Zhang, Pengchuan and Dai, Xiyang and Xiao, Bin and Yuan, Lu and
          Gao, Jianfeng},
  booktitle={NeurIPS},
  year={2021}
}"""
_NAMED = 20


def model_card(trained: Trained, config: Mapping[str, Any], licence: str | None) -> str:
    """The card in Markdown, with the head that the hub reads.

    Args:
        trained: where the weights are from.
        config: timm's configuration.
        licence: of the weights; None where nobody has said.
    """
    head = [
        "tags:",
        f"- {_PIPELINES[trained.task]}",
        "- timm",
        f"pipeline_tag: {_PIPELINES[trained.task]}",
        "library_name: timm",
        f"license: {licence or 'unknown'}",
    ]
    parts = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {trained.name}",
        f"{trained.options['backbone']}, trained for {trained.task} with focal-lab {__version__}.",
    ]
    if trained.task != "classification":
        stands = trained.options.get("method") or trained.options.get("decoder") or "its heads"
        parts.append(_BACKBONE.format(task=trained.task, head=stands).strip())
    parts += [
        "## Training\n" + "\n".join(f"- {key}: {value}" for key, value in _training(trained).items()),
        "## Results\n" + _results(trained),
        "## Use\n" + _use(trained, config),
        "## Classes\n" + _classes(trained),
        "## Licence\n" + _licence(licence),
    ]
    if is_focal(str(trained.options["backbone"])):
        parts.append(f"## Source of the architecture\n```bibtex\n{_FOCAL}\n```")
    return "\n\n".join(parts) + "\n"


def _training(trained: Trained) -> dict[str, Any]:
    data = type(trained.data).__name__ if trained.data is not None else "not known"
    epochs, steps = int(trained.state.get("epoch", 0)) + 1, int(trained.state.get("global_step", 0))
    made: dict[str, Any] = {
        "data": data,
        "options of the backbone": json.dumps(trained.options.get("backbone_options") or {}),
        "weights": "as trained" if trained.weights == "raw" else "moving average of the trained ones",
        "after": f"epoch {epochs}, {steps} steps",
    }
    if trained.run is not None:
        made["run"] = trained.run.name
    return made


def _results(trained: Trained) -> str:
    """The test's, of the run's result; the score that the checkpoint was chosen by; or that none is known."""
    lines = []
    for name, value in sorted(_test_metrics(trained).items()):
        lines.append(f"- test {name}: {value:.4g}")
    if trained.weights == RAW:  # the checkpoint was chosen by the trained weights
        for callback in trained.state.get("callbacks", {}).values():
            score = callback.get("current_score") if isinstance(callback, Mapping) else None
            if score is not None and callback.get("monitor"):
                lines.append(f"- {callback['monitor']} when it was saved: {float(score):.4g}")
    return "\n".join(lines) or "None is known."


def _test_metrics(trained: Trained) -> dict[str, float]:
    """Of the best checkpoint of a finished run; those of another checkpoint nobody has measured."""
    if trained.run is None or trained.file.stem != "best":
        return {}
    path = trained.run / RESULT_FILE
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    except (OSError, ValueError, KeyError):
        return {}
    of_average = {
        name.removeprefix(PREFIX): value for name, value in metrics.items() if name.startswith(PREFIX)
    }
    of_weights = {name: value for name, value in metrics.items() if not name.startswith(PREFIX)}
    return of_weights if trained.weights == RAW else of_average


def _use(trained: Trained, config: Mapping[str, Any]) -> str:
    focal = is_focal(str(trained.options["backbone"]))
    imports = ["import timm"] + (
        ["import focal_lab  # registers the architecture with timm"] if focal else []
    )
    features = "" if trained.task == "classification" else ", features_only=True"
    cfg = config["pretrained_cfg"]
    lines = [
        *imports,
        "",
        f'model = timm.create_model("local-dir:PATH", pretrained=True{features}).eval()',
        f'# or, uploaded: timm.create_model("hf-hub:USER/NAME", pretrained=True{features})',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ]
    height, width = cfg["input_size"][1:]
    told = (
        f"Pictures of {height} x {width} px, {cfg['interpolation']}, crop_pct {cfg['crop_pct']:g}, "
        f"mean {_numbers(cfg['mean'])}, std {_numbers(cfg['std'])}."
    )
    return "```python\n" + "\n".join(lines) + "\n```\n" + told


def _classes(trained: Trained) -> str:
    """The first names; all are in config.json."""
    count = int(trained.options["num_classes"])
    names = [trained.module.classes.name(label) for label in range(count)]
    told = ", ".join(names[:_NAMED])
    more = f", ... (all {count} are in config.json)" if count > _NAMED else ""
    return told + more if trained.module.classes.names else f"{count}, whose names are not known."


def _licence(licence: str | None) -> str:
    weights = licence or "not said by those who trained them"
    return f"Weights: {weights}. Code of focal-lab: Apache-2.0."


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
