"""The machine, and whether the fast path equals the reference in float64, float32 and bf16 autocast."""

import contextlib
import copy
import math
import sys

import timm
import torch
from device import CUDA, DEVICE, FOCAL_T, HALF, MICRO, attempt, autocast, clock, make, sync
from record import TINY, locked, put
from torch import nn
from torch.nn.attention import SDPBackend


def part_info():
    def machine():
        found = {"torch": torch.__version__, "timm": timm.__version__, "python": sys.version.split()[0]}
        import numpy
        import pandas

        found |= {"numpy": numpy.__version__, "pandas": pandas.__version__}
        try:
            import triton

            found["triton"] = triton.__version__
        except ImportError:
            found["triton"] = None
        if CUDA:
            p = torch.cuda.get_device_properties(0)
            found |= {
                "gpu": p.name,
                "sms": p.multi_processor_count,
                "memory_gb": round(p.total_memory / 2**30, 1),
            }
            found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
            found["sdpa_priority"] = [str(b) for b in torch._C._get_sdp_priority_order()]
        return found

    attempt("info", "machine", machine)
    n = 64 if TINY else 8192

    def rates():
        a, b = torch.randn(n, n, device=DEVICE, dtype=HALF), torch.randn(n, n, device=DEVICE, dtype=HALF)
        big = torch.empty(2**14 if TINY else 2**30, device=DEVICE, dtype=torch.uint8).random_()
        to = torch.empty_like(big)
        with locked("gpu"):
            product, copying = clock(lambda: a @ b, 10)[0], clock(lambda: to.copy_(big), 10)[0]
        return {
            "bf16_tflops": round(2 * n**3 / product / 1e9, 1),
            "copy_gb_s": round(2 * big.numel() / copying / 1e6, 1),
        }

    attempt("info", "ceilings", rates)

    def many_launches():
        x = torch.zeros(1, device=DEVICE)

        def run():
            for _ in range(1000):
                x.add_(1)

        return {"us_per_small_launch": round(clock(run, 5)[0], 2)}

    attempt("info", "launch", many_launches)
    chosen = {}

    def backends():
        """Which attention torch takes for Focal-T's shapes, by stage: a bias that learns, a frozen one."""
        names = {
            int(getattr(SDPBackend, n).value): n
            for n in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
        }
        for stage, (windows, heads, keys) in enumerate(
            ((64, 3, 218), (16, 6, 194), (4, 12, 178), (1, 24, 50)), 1
        ):
            q = torch.randn(2, windows * heads, 49, 32, device=DEVICE, dtype=HALF)
            k = torch.randn(2, windows * heads, keys, 32, device=DEVICE, dtype=HALF)
            bias = torch.randn(1, windows * heads, 49, keys, device=DEVICE, dtype=HALF)
            for what, grad in (("learning", True), ("frozen", False)):
                m = bias.clone().requires_grad_(grad)
                chosen[f"stage {stage}, bias {what}"] = names.get(
                    int(
                        torch._fused_sdp_choice(
                            q, k, k, attn_mask=m, dropout_p=0.0, is_causal=False, scale=1.0
                        )
                    ),
                    "?",
                )
        return chosen

    attempt("info", "sdpa_backend", backends)


NARROW = {"embed_dim": 32, "num_heads": (1, 2, 4, 8), "depths": (2, 1, 2, 1), "img_size": 112}


CASES = {
    # name: (model, options, height, width)
    "focal_tiny, narrow": (FOCAL_T, NARROW, 112, 112),
    "wrap, shift, rectangular": (FOCAL_T, NARROW | {"use_shift": True}, 100, 148),
    "mask, shift, rectangular": (FOCAL_T, NARROW | {"use_shift": True, "border": "mask"}, 100, 148),
    "three levels, mask, shift": (
        FOCAL_T,
        NARROW | {"focal_levels": 3, "border": "mask", "use_shift": True},
        112,
        112,
    ),
    "three levels, wrap": (FOCAL_T, NARROW | {"focal_levels": (3, 3, 2, 1), "use_shift": True}, 112, 112),
    "expand 7, mask": (FOCAL_T, NARROW | {"expand_sizes": 7, "border": "mask"}, 112, 112),
    "window bias, exclude": (
        FOCAL_T,
        NARROW | {"coarse_bias": "window", "level_overlap": "exclude", "focal_levels": (3, 2, 2, 1)},
        112,
        112,
    ),
    "max pool": (FOCAL_T, NARROW | {"focal_pool": "max", "border": "mask"}, 112, 112),
    "mean pool": (FOCAL_T, NARROW | {"focal_pool": "mean", "border": "mask"}, 90, 112),
    "conv pool": (FOCAL_T, NARROW | {"focal_pool": "conv"}, 112, 112),
    "conv embed, layerscale": (
        "focal_conv_tiny_patch4_window7_224",
        NARROW | {"use_layerscale": True, "layerscale_value": 0.5, "use_pre_norm": True},
        112,
        112,
    ),
    "swin preset": ("focal_swin_tiny_patch4_window7_224", NARROW, 112, 112),
    "swin preset, window 8": (
        "focal_swin_tiny_patch4_window7_224",
        NARROW | {"window_size": 8, "img_size": 128},
        128,
        128,
    ),
    "window 14": (FOCAL_T, NARROW | {"window_size": 14, "img_size": 224}, 224, 224),
    "micro": (MICRO, {}, 28, 28),
    "micro, three levels, shift": (MICRO, {"focal_levels": 3, "use_shift": True}, 37, 50),
    "padded batch": (FOCAL_T, NARROW | {"border": "mask", "use_shift": True}, 112, 140),
    "head of 8 channels": (MICRO, {"embed_dim": 8}, 28, 28),
}


def pair_of(case):
    name, options, height, width = CASES[case]
    if TINY:
        options = {k: v for k, v in options.items() if k != "img_size"} | {"depths": (1, 1, 1, 1)}
        if name != MICRO:
            options |= {"embed_dim": 8, "num_heads": (1, 1, 2, 2)}
            options["img_size"] = 56
            height, width = height // 2, width // 2
            if options.get("window_size", 7) > 8:
                options["window_size"] = 8
    torch.manual_seed(0)
    fast = timm.create_model(name, num_classes=5, **options)
    for parameter_name, parameter in fast.named_parameters():
        if "bias" in parameter_name:
            nn.init.normal_(parameter, std=0.3)
    reference = timm.create_model(name, num_classes=5, attention="reference", **options)
    reference.load_state_dict(fast.state_dict())
    x = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))
    valid = (
        torch.tensor([[height, width], [height - 17, width // 2], [9, 11]])
        if case == "padded batch"
        else None
    )
    return fast, reference, x, valid


def outcome(model, x, valid, half=False, grads=True):
    x = x.clone().requires_grad_(grads)
    model.zero_grad(set_to_none=True)
    with autocast() if half else contextlib.nullcontext(), torch.set_grad_enabled(grads):
        if valid is None:
            logits = model(x)
        else:
            maps = model.forward_intermediates(x, valid_size=valid, intermediates_only=True)
            logits = maps[-1].mean((2, 3))
        if half:
            logits = logits.float()
    found = {"logits": logits.detach()}
    if grads:
        weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).to(logits)
        logits.backward(weight)
        found["input"] = x.grad
        found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found


def worst(found, truth):
    """Largest relative error in norm over all gradients, and whose; logits apart."""
    errors = {}
    # a gradient that nearly vanishes (a bias before a softmax) is measured against all of them
    whole = math.sqrt(
        sum(v.double().square().sum().item() for k, v in truth.items() if k not in ("logits", "input"))
    )
    for name, value in truth.items():
        if name in found:
            wanted = value.double()
            size = max(wanted.norm().item(), 0.0 if name in ("logits", "input") else 1e-3 * whole)
            error = (found[name].double().to(wanted.device) - wanted).norm().item()
            errors[name] = error / size if size > 1e-12 else error
    logits = errors.pop("logits")
    if not errors:
        return {"logits": logits}
    # `max` would skip over NaN
    name = max(errors, key=lambda n: errors[n] if math.isfinite(errors[n]) else math.inf)
    return {"logits": logits, "gradient": errors[name], "of": name}


def part_equality():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    bad = []

    def near(result, bound):
        return all(result[k] <= bound for k in ("logits", "gradient") if k in result)

    for number, case in enumerate(CASES):

        def one(case=case, number=number):
            fast, reference, x, valid = pair_of(case)
            truth64 = None
            if number in (0, 2, 14):  # also against the CPU's own way
                truth64 = outcome(copy.deepcopy(fast).double(), x.double(), valid)
            fast, reference = fast.to(DEVICE).eval(), reference.to(DEVICE).eval()
            x = x.to(DEVICE)
            valid = valid if valid is None else valid.to(DEVICE)
            truth = outcome(copy.deepcopy(reference).double(), x.double(), valid)
            result, ok = {}, True
            double = copy.deepcopy(fast).double()
            result["float64"] = worst(outcome(double, x.double(), valid), truth)
            ok &= near(result["float64"], 1e-9)
            if truth64 is not None:
                result["float64, to the CPU"] = worst(truth, truth64)
                ok &= near(result["float64, to the CPU"], 1e-9)
            result["float32"] = worst(outcome(fast, x, valid), truth)
            ok &= near(result["float32"], 1e-4)
            mine, other = outcome(fast, x, valid, True), outcome(reference, x, valid, True)
            result["bf16"], result["bf16, reference"] = worst(mine, truth), worst(other, truth)
            for key in ("logits", "gradient"):
                ok &= result["bf16"][key] <= 2 * result["bf16, reference"][key] + 0.01
            result["bf16, no grad"] = worst(outcome(fast, x, valid, True, grads=False), truth)
            ok &= result["bf16, no grad"]["logits"] <= 2 * result["bf16, reference"]["logits"] + 0.01
            for name, p in fast.named_parameters():
                p.requires_grad_(not ("bias_table" in name or name.endswith("ring_bias")))
            result["bf16, frozen biases"] = worst(outcome(fast, x, valid, True), truth)
            ok &= (
                result["bf16, frozen biases"]["gradient"] <= 2 * result["bf16, reference"]["gradient"] + 0.01
            )
            result["ok"] = bool(ok)
            if not ok:
                bad.append(case)
            return result

        if attempt("equality", case, one) is None:
            bad.append(case)
    put("equality", "summary", {"cases": len(CASES), "failed": bad})


def part_maskgrad():
    """Only biases learn, so that no query has a gradient in the first block.

    torch up to 2.11 at least computes no logsumexp then, and its backward reads memory that was never
    written (pytorch 188302).
    """

    def one():
        model = make(FOCAL_T, 56 if TINY else 224).train()
        for name, p in model.named_parameters():
            p.requires_grad_("bias_table" in name or name.endswith("ring_bias"))
        reference = make(FOCAL_T, 56 if TINY else 224, attention="reference").train()
        reference.load_state_dict(model.state_dict())
        for p, q in zip(reference.parameters(), model.parameters(), strict=True):
            p.requires_grad_(q.requires_grad)
        x = torch.randn(2, 3, 56 if TINY else 224, 56 if TINY else 224, device=DEVICE)
        found = {}
        for key, network in (("reference", reference), ("fast", model)):
            with autocast():
                network(x).float().square().sum().backward()
            sync()
            found[key] = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        errors = {n: ((found["fast"][n] - g).norm() / g.norm()).item() for n, g in found["reference"].items()}
        name = max(errors, key=lambda n: errors[n] if math.isfinite(errors[n]) else math.inf)
        return {"worst relative difference": errors[name], "of": name}

    attempt("maskgrad", "only position biases learn", one)
