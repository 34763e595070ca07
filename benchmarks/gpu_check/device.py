"""The device, networks on it, and how their calls are timed."""

import contextlib
import gc
import importlib.util
import os
import statistics
import sys
import time
import traceback
import types

from record import RELEASED, ROOT, TINY, put

sys.path.insert(0, str(ROOT))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the deterministic check
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
import timm
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

import focal_lab  # noqa: F401  (registers the backbones)

DEVICE = torch.device("cpu" if TINY else "cuda")
CUDA = DEVICE.type == "cuda"
HALF = torch.bfloat16
MICRO, FOCAL_T = "focal_micro_patch2_window7_28", "focal_tiny_patch4_window7_224"
if TINY:  # the path of other devices, on this one
    from focal_lab.backbones.attention import layer
    from focal_lab.backbones.attention.fused import attend_at_once

    torch.set_num_threads(1)
    layer.attend = attend_at_once


def attempt(part, key, function):
    """Its answer, or its error, into gpu.json."""
    began = time.time()
    try:
        value = function()
    except Exception as error:
        put(part, key, {"error": f"{type(error).__name__}: {str(error)[:400]}"})
        traceback.print_exc()
        free()
        return None
    if value is not None:
        if isinstance(value, dict):
            value.setdefault("took_s", round(time.time() - began, 1))
        put(part, key, value)
    free()
    return value


def free():
    gc.collect()
    with contextlib.suppress(Exception):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def sync():
    if CUDA:
        torch.cuda.synchronize()


def clock(function, repeat, warm=3):
    """Median and best milliseconds by CUDA events; for few long calls."""
    for _ in range(warm):
        function()
    sync()
    times = []
    if CUDA:
        pairs = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(repeat)
        ]
        for begin, end in pairs:
            begin.record()
            function()
            end.record()
        torch.cuda.synchronize()
        times = [begin.elapsed_time(end) for begin, end in pairs]
    else:
        for _ in range(repeat):
            began = time.perf_counter()
            function()
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), min(times)


def alternately(functions, rounds, inner, warm=3):
    """Candidates in turn: {name: {ms, best_ms, spread}} and the median of the rounds' ratios to the first."""
    found, ratios = {name: [] for name in functions}, {name: [] for name in functions}
    alive = dict(functions)
    for name, function in functions.items():
        try:
            for _ in range(warm):
                function()
            sync()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error)[:300]}"
            traceback.print_exc()
            del alive[name]
            free()
    for _ in range(rounds):
        for name, function in alive.items():
            found[name].append(clock(function, inner, warm=1)[0])
    first = next(iter(functions))
    result = {}
    for name, times in found.items():
        if isinstance(times, str):
            result[name] = {"error": times}
            continue
        result[name] = {"ms": round(statistics.median(times), 3), "best_ms": round(min(times), 3)}
        result[name]["spread"] = round((max(times) - min(times)) / min(times), 3)
        if not isinstance(found[first], str):
            ratios[name] = [t / f for t, f in zip(times, found[first], strict=True)]
            result[name]["ratio"] = round(statistics.median(ratios[name]), 3)
    return result


def autocast():
    return torch.autocast(DEVICE.type, HALF)


def peak_of(function):
    """MB that a call adds at its peak to what was there."""
    if not CUDA:
        function()
        return None
    sync()
    free()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    sync()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20)


def make(name, size=224, drop_path=0.0, fused=True, **options):
    """A model on the device. timm's Swin takes torch's fused attention only on request."""
    timm.layers.set_fused_attn(True, experimental=fused)
    torch.manual_seed(0)
    if name == "released":
        return released(size, drop_path).to(DEVICE)
    if TINY and "micro" not in name:
        options = {"embed_dim": 16, "num_heads": (1, 2, 4, 8), "depths": (1, 2, 1, 1)} | options
    sized = {} if size == 224 else {"img_size": size}
    return timm.create_model(name, drop_path_rate=drop_path, **sized, **options).to(DEVICE)


def released(size, drop_path):
    """The authors' network, from their own file."""
    if "timm.models.layers" not in sys.modules:
        try:
            import timm.models.layers
        except ImportError:
            fake = types.ModuleType("timm.models.layers")
            fake.DropPath, fake.to_2tuple = timm.layers.DropPath, timm.layers.to_2tuple
            fake.trunc_normal_ = timm.layers.trunc_normal_
            sys.modules["timm.models.layers"] = fake
    spec = importlib.util.spec_from_file_location("released_focal", RELEASED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    width = {"embed_dim": 16, "num_heads": [1, 2, 4, 8], "depths": [1, 2, 1, 1]} if TINY else {}
    sizes = {"focal_levels": [2] * 4, "focal_windows": [7, 5, 3, 1], "expand_sizes": [3] * 4}
    return module.FocalTransformer(img_size=size, drop_path_rate=drop_path, focal_pool="fc", **sizes, **width)


def training_step(model, x, y, *, optimizer=True):
    model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    update = torch.optim.AdamW(learned, lr=1e-4, weight_decay=0.05, fused=True) if optimizer else None

    def run():
        with autocast():
            loss = cross_entropy(model(x), y)
        loss.backward()
        if update is not None:
            update.step()
        for p in learned:
            p.grad = None

    return run


def inference(model, x):
    def run():
        model.eval()
        with torch.no_grad(), autocast():
            model(x)

    return run


def profiled(run, rows=15):
    """One call: launches, time of all kernels, and the kernels that take the most."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if CUDA else [])
    for _ in range(2):
        run()
    sync()
    with profile(activities=activities) as seen:
        began = time.perf_counter()
        run()
        sync()
        wall = time.perf_counter() - began
    averages = seen.key_averages()
    if CUDA:
        kernels = [e for e in averages if e.device_type == torch.autograd.DeviceType.CUDA]
        taken = {e.key: (e.self_device_time_total, e.count) for e in kernels}
    else:
        taken = {e.key: (e.self_cpu_time_total, e.count) for e in averages}
    total = sum(t for t, _ in taken.values())
    top = sorted(taken.items(), key=lambda item: -item[1][0])[:rows]
    return {
        "launches": sum(c for _, c in taken.values()),
        "kernels_ms": round(total / 1e3, 2),
        "wall_ms": round(1e3 * wall, 2),
        "top": [[round(t / 1e3, 3), c, key[:110]] for key, (t, c) in top],
    }
