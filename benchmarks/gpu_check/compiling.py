"""Compiled networks, and a prototype kernel if one is given."""

import contextlib
import copy
import importlib
import sys
import time

import device
import torch
from device import (
    CUDA,
    DEVICE,
    FOCAL_T,
    MICRO,
    alternately,
    attempt,
    autocast,
    inference,
    make,
    peak_of,
    profiled,
    sync,
    training_step,
)
from equality import outcome, pair_of, worst
from record import KERNEL, TINY, locked
from torch.nn.functional import cross_entropy

from focal_lab.backbones.attention import layer


def compiled(part, names, batch, size, *, classes=1000, modes=("train", "eval"), **kwargs):
    """Compile outside the lock, time within it. The ratio is made by `table`, from the other part's time."""
    backend = {"backend": "aot_eager"} if TINY else kwargs
    x = torch.randn(batch, 3, size, size, device=DEVICE)
    y = torch.randint(classes, (batch,), device=DEVICE)
    for name, options in names.items():
        for mode in modes:

            def one(name=name, options=options, mode=mode):
                torch._dynamo.reset()
                model = make(name, size if size != 28 else 224, num_classes=classes, **options)
                network = torch.compile(model, **backend)
                model.train(mode == "train")
                learned = list(model.parameters())
                update = torch.optim.AdamW(learned, lr=1e-4, weight_decay=0.05, fused=True)

                def train():
                    with autocast():
                        loss = cross_entropy(network(x), y)
                    loss.backward()
                    update.step()
                    for p in learned:
                        p.grad = None

                def evaluate():
                    with torch.no_grad(), autocast():
                        network(x)

                run = train if mode == "train" else evaluate
                began = time.time()
                run()
                sync()
                first = time.time() - began
                from torch._dynamo.utils import counters

                breaks = sum(counters["graph_break"].values())
                with locked("gpu"):
                    run()
                    peak = peak_of(run)
                    rounds, inner = (1, 1) if TINY else (5, 5)
                    found = alternately({name: run}, rounds, inner)[name]
                found |= {
                    "images_s": round(1e3 * batch / found["ms"]),
                    "peak_mb": peak,
                    "first_call_s": round(first, 1),
                    "graph_breaks": breaks,
                }
                if mode == "train" and CUDA:
                    with locked("gpu"):
                        found["kernels"] = profiled(run)
                return found

            attempt(part, f"{name}, {mode}", one)


def part_compile_swin():
    compiled("compile", {"swin_tiny_patch4_window7_224": {}}, 1 if TINY else 128, 56 if TINY else 224)


def part_compile_focal():
    compiled("compile", {"focal_tiny_patch4_window7_224": {}}, 1 if TINY else 128, 56 if TINY else 224)


def part_compile_micro():
    n = 4 if TINY else 64
    compiled("compile", {MICRO: {}}, n, 28, classes=10, modes=("train",), mode="reduce-overhead")


def use_kernel():
    sys.path.insert(0, str(KERNEL.parent))
    kernel = importlib.import_module(KERNEL.stem)

    layer.attend = torch._dynamo.disable(kernel.attend)


def part_compile_kernel():
    """The prototype's attention outside of the graphs, all else compiled."""
    use_kernel()
    names = {MICRO if TINY else FOCAL_T: {}}
    size = 28 if TINY else 224
    compiled("compile with the kernel", names, 1 if TINY else 128, size, classes=10 if TINY else 1000)


def part_kernel():
    """The prototype kernel: is it right, and how fast is it?"""
    if TINY:  # Triton's interpreter computes nothing in bfloat16
        device.HALF = torch.float16
    usual = layer.attend
    cases = (
        ["micro"]
        if TINY
        else [
            "focal_tiny, narrow",
            "mask, shift, rectangular",
            "three levels, mask, shift",
            "expand 7, mask",
            "window 14",
            "micro, three levels, shift",
            "padded batch",
        ]
    )
    for case in cases:

        def one(case=case):
            fast, reference, x, valid = pair_of(case)
            fast, reference = fast.to(DEVICE).eval(), reference.to(DEVICE).eval()
            x = x.to(DEVICE)
            valid = valid if valid is None else valid.to(DEVICE)
            truth = outcome(copy.deepcopy(reference).double(), x.double(), valid)
            use_kernel()
            try:
                result = {
                    "float32": worst(outcome(fast, x, valid), truth),
                    "bf16": worst(outcome(fast, x, valid, True), truth),
                }
            finally:
                layer.attend = usual
            result["bf16, reference"] = worst(outcome(reference, x, valid, True), truth)
            result["ok"] = all(
                result["float32"][k] < 1e-4 and result["bf16"][k] <= 2 * result["bf16, reference"][k] + 0.01
                for k in ("logits", "gradient")
            )
            return result

        attempt("kernel", case, one)

    def speed():
        batch, size, name = (1, 28, MICRO) if TINY else (128, 224, FOCAL_T)
        x = torch.randn(batch, 3, size, size, device=DEVICE)
        y = torch.randint(10, (batch,), device=DEVICE)
        made = {
            "focal_tiny": make(name, 224, num_classes=10, drop_path=0.2),
            "focal_tiny, kernel": make(name, 224, num_classes=10, drop_path=0.2),
        }
        if not TINY:
            made = {"swin_tiny": make("swin_tiny_patch4_window7_224", num_classes=10, drop_path=0.2)} | made
        found = {}
        for mode in ("eval", "train"):
            runs = {}
            for key, model in made.items():
                run = training_step(model, x, y) if mode == "train" else inference(model, x)

                def chosen(run=run, key=key):
                    if "kernel" in key:
                        use_kernel()
                    try:
                        run()
                    finally:
                        layer.attend = usual

                runs[key] = chosen
            with locked("gpu"):
                peaks = {}
                for key, run in runs.items():
                    with contextlib.suppress(Exception):
                        run()
                        peaks[key] = peak_of(run)
                found[mode] = alternately(runs, 1 if TINY else 5, 1 if TINY else 4)
                for key, value in found[mode].items():
                    value["peak_mb"] = peaks.get(key)
                if CUDA:
                    found[f"{mode}, kernels"] = profiled(runs["focal_tiny, kernel"], 12)
        return found

    attempt("kernel", "speed", speed)
