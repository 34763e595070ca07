"""Time and memory of networks and blocks beside timm's Swin, without compiling."""

import contextlib

import timm
import torch
from device import (
    CUDA,
    DEVICE,
    MICRO,
    alternately,
    attempt,
    autocast,
    inference,
    make,
    peak_of,
    profiled,
    training_step,
)
from record import RELEASED, TINY, locked, put
from torch.nn.attention import SDPBackend, sdpa_kernel


def block_of(model, stage, shifted):
    """A block of a stage and a map for it, in either network."""
    blocks = model.layers[stage].blocks
    return blocks[min(len(blocks) - 1, int(shifted))]


def part_blocks():
    """One block of each stage, and its attention alone: forward, and forward and backward."""
    batch, size = (1, 56) if TINY else (128, 224)
    swin, focal = make("swin_tiny_patch4_window7_224", size), make("focal_tiny_patch4_window7_224", size)
    plain = make("focal_swin_tiny_patch4_window7_224", size)
    for stage in range(4):

        def one(stage=stage):
            blocks = {
                n: block_of(m, stage, True)
                for n, m in (("swin", swin), ("focal", focal), ("focal swin", plain))
            }
            dim = focal.layers[stage].blocks[0].norm1.normalized_shape[0]
            side = size // 4 // 2**stage
            x = torch.randn(batch, side, side, dim, device=DEVICE, requires_grad=True)

            def forward(block):
                def run():
                    with torch.no_grad(), autocast():
                        block(x)

                return run

            def both(block):
                learned = list(block.parameters())

                def run():
                    with autocast():
                        out = block(x)
                    torch.autograd.grad(out, [x, *learned], torch.ones_like(out))

                return run

            def attention(run_attention, grads):
                def run():
                    with autocast(), torch.set_grad_enabled(grads):
                        out = run_attention()
                        if grads:
                            out.float().sum().backward()

                return run

            rounds, inner = (1, 1) if TINY else (3, 5)
            with locked("gpu"):
                found = {"forward": alternately({n: forward(b) for n, b in blocks.items()}, rounds, inner)}
                found["forward and backward"] = alternately(
                    {n: both(b) for n, b in blocks.items()}, rounds, inner
                )
                a = focal.layers[stage].blocks[0].attn
                found["focal attention"] = alternately(
                    {
                        "forward": attention(lambda: a(x), False),
                        "forward and backward": attention(lambda: a(x), True),
                    },
                    rounds,
                    inner,
                )
                if CUDA:
                    only = {}
                    for name in ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):

                        def restricted(name=name):
                            with sdpa_kernel(getattr(SDPBackend, name)):
                                forward(blocks["focal"])()

                        only[name] = restricted
                    found["focal forward by backend"] = alternately(only, rounds, inner)
            for p in (*swin.parameters(), *focal.parameters(), *plain.parameters()):
                p.grad = None
            return found

        attempt("blocks", f"stage {stage + 1}", one)


def compared(part, title, made, batch, size, modes, *, rounds, inner, classes=1000):
    """Models in turn on the same images; the first is what the others are compared with."""
    x = torch.randn(batch, 3, size, size, device=DEVICE)
    y = torch.randint(classes, (batch,), device=DEVICE)
    for mode in modes:

        def one(mode=mode):
            runs = {
                n: (training_step(m, x, y) if mode == "train" else inference(m, x)) for n, m in made.items()
            }
            peaks = {}
            with locked("gpu"):
                for name, run in runs.items():
                    with contextlib.suppress(Exception):
                        run()  # optimizer state, masks, plans
                        peaks[name] = peak_of(run)
                found = alternately(runs, rounds, inner)
            for name, value in found.items():
                if "ms" in value:
                    value["images_s"] = round(1e3 * batch / value["ms"])
                    value["peak_mb"] = peaks.get(name)
            return found

        attempt(part, f"{title}, {mode}", one)


def part_speed():
    rounds, inner = (1, 1) if TINY else (5, 4)
    batch, small, large = (1, 56, 84) if TINY else (128, 224, 448)
    drop = {"drop_path": 0.2}

    def tiny():
        made = {"swin_tiny": make("swin_tiny_patch4_window7_224", small, **drop)}
        made["focal_tiny"] = make("focal_tiny_patch4_window7_224", small, **drop)
        made["swin_tiny, timm's default attention"] = make(
            "swin_tiny_patch4_window7_224", small, fused=False, **drop
        )
        made["focal_swin_tiny"] = make("focal_swin_tiny_patch4_window7_224", small, **drop)
        if RELEASED:
            try:
                made["released focal_tiny"] = (
                    make("released", 224, **drop) if not TINY else make("released", 56, **drop)
                )
            except Exception as error:
                put("speed", "released", {"error": str(error)[:300]})
        compared(
            "speed",
            f"{small} px, batch {batch}",
            made,
            batch,
            small,
            ("eval", "train"),
            rounds=rounds,
            inner=inner,
        )

    attempt("speed", "tiny", tiny)

    def micro():
        n = 4 if TINY else 64
        made = {"reference path": make(MICRO, 224, attention="reference", num_classes=10)}
        made["fast path"] = make(MICRO, 224, num_classes=10)
        made["swin preset"] = make("focal_swin_micro_patch2_window7_28", 224, num_classes=10)
        compared(
            "speed",
            f"micro, batch {n}",
            made,
            n,
            28,
            ("eval", "train"),
            rounds=rounds,
            inner=inner,
            classes=10,
        )
        if not TINY:
            compared(
                "speed",
                "micro, batch 1024",
                made,
                1024,
                28,
                ("train",),
                rounds=rounds,
                inner=inner,
                classes=10,
            )

    attempt("speed", "micro", micro)

    def bigger():
        n = 1 if TINY else 32
        made = {"swin_tiny": make("swin_tiny_patch4_window7_224", large, **drop)}
        made["focal_tiny"] = make("focal_tiny_patch4_window7_224", large, **drop)
        compared(
            "speed",
            f"{large} px, batch {n}",
            made,
            n,
            large,
            ("eval", "train"),
            rounds=3 if CUDA else 1,
            inner=inner,
        )

    attempt("speed", "448", bigger)

    def smalls():
        made = {"swin_small": make("swin_small_patch4_window7_224", small, **drop)}
        made["focal_small"] = make("focal_small_patch4_window7_224", small, **drop)
        compared(
            "speed",
            f"small, {small} px, batch {batch}",
            made,
            batch,
            small,
            ("eval", "train"),
            rounds=3 if CUDA else 1,
            inner=inner,
        )

    attempt("speed", "small", smalls)


def part_profile():
    batch, size = (1, 56) if TINY else (128, 224)
    x = torch.randn(batch, 3, size, size, device=DEVICE)
    y = torch.randint(1000, (batch,), device=DEVICE)
    for name in ("focal_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224"):

        def one(name=name):
            model = make(name, size, drop_path=0.2)
            with locked("gpu"):
                return {
                    "train": profiled(training_step(model, x, y)),
                    "eval": profiled(inference(model, x), 8),
                }

        found = attempt("profile", name, one)
        for row in found["train"]["top"] if found else []:
            print("   {:9.3f} ms {:5d} x {}".format(*row), flush=True)

    def micro():
        n = 4 if TINY else 64
        model = make(MICRO, 224, num_classes=10)
        xs, ys = torch.randn(n, 3, 28, 28, device=DEVICE), torch.randint(10, (n,), device=DEVICE)
        with locked("gpu"):
            return {"train": profiled(training_step(model, xs, ys), 8)}

    attempt("profile", "micro", micro)


def part_large():
    """Detection's images, alone and padded to a common size, and what checkpointing saves."""
    height, width, batch = (64, 96, 1) if TINY else (800, 1280, 4)
    x = torch.randn(batch, 3, height, width, device=DEVICE)

    def padded():
        swin = (
            timm.create_model("swin_tiny_patch4_window7_224", features_only=True, img_size=(height, width))
            if not TINY
            else None
        )
        masked = make("focal_tiny_patch4_window7_224", 56 if TINY else 224, border="mask")
        wrapped = make("focal_tiny_patch4_window7_224", 56 if TINY else 224)
        valid = torch.tensor([[height, width - 9 * i] for i in range(batch)], device=DEVICE)

        def step(model, **kwargs):
            def run():
                with autocast():
                    maps = model.forward_intermediates(x, intermediates_only=True, **kwargs)
                sum(m.float().mean() for m in maps).backward()

            return run

        def other():
            with autocast():
                maps = swin(x)
            sum(m.float().mean() for m in maps).backward()

        runs = {}
        if swin is not None:
            timm.layers.set_fused_attn(True, experimental=True)
            swin.to(DEVICE).train()
            runs["swin_tiny"] = other
        runs |= {
            "focal_tiny": step(wrapped),
            "focal_tiny, mask": step(masked),
            "focal_tiny, padded batch": step(masked, valid_size=valid),
        }
        with locked("gpu"):
            peaks = {}
            for name, run in runs.items():
                with contextlib.suppress(Exception):
                    run()
                    peaks[name] = peak_of(run)
            found = alternately(runs, 1 if TINY else 3, 1 if TINY else 3)
        for name, value in found.items():
            value["peak_mb"] = peaks.get(name)
        return found

    attempt("large", f"{height} x {width}, batch {batch}, forward and backward", padded)

    def checkpointing():
        found = {}
        n, size = (1, 56) if TINY else (64, 224)
        xs, ys = torch.randn(n, 3, size, size, device=DEVICE), torch.randint(1000, (n,), device=DEVICE)
        for name in ("swin_tiny_patch4_window7_224", "focal_tiny_patch4_window7_224"):
            model = make(name, size)
            for on in (False, True):
                model.set_grad_checkpointing(on)
                run = training_step(model, xs, ys, optimizer=False)
                with locked("gpu"):
                    run()
                    found[f"{name.split('_patch')[0]}, checkpointing {on}"] = peak_of(run)
        return found

    attempt("large", "peak_mb of a training step, batch 64", checkpointing)
