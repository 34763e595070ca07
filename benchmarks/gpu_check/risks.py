"""What may go wrong on a GPU: determinism, graphs, half precision, several processes."""

import copy
import tempfile

import torch
from device import CUDA, DEVICE, HALF, MICRO, attempt, autocast, clock, make, sync
from record import TINY, locked
from torch import nn
from torch.nn.functional import cross_entropy


def part_risks():
    n = 4 if TINY else 64

    def data():
        g = torch.Generator().manual_seed(3)
        return torch.randn(n, 3, 28, 28, generator=g).to(DEVICE), torch.randint(10, (n,), generator=g).to(
            DEVICE
        )

    def grads(model, x, y):
        model.zero_grad(set_to_none=True)
        with autocast():
            loss = cross_entropy(model(x), y)
        loss.backward()
        return {"loss": loss.detach()} | {k: p.grad.clone() for k, p in model.named_parameters()}

    def determinism():
        model = make(MICRO, 224, num_classes=10).train()
        x, y = data()
        one, two = grads(model, x, y), grads(model, x, y)
        found = {"differ by default": [k for k in one if not one[k].equal(two[k])][:6]}
        found["differing by default"] = sum(not one[k].equal(two[k]) for k in one)
        torch.use_deterministic_algorithms(True)
        try:
            one, two = grads(model, x, y), grads(model, x, y)
            found["differing when deterministic"] = sum(not one[k].equal(two[k]) for k in one)
        finally:
            torch.use_deterministic_algorithms(False)
        return found

    attempt("risks", "determinism", determinism)

    def graph():
        if not CUDA:
            return {"skipped": "no CUDA"}
        model = make(MICRO, 224, num_classes=10).train()
        x, y = data()
        expected = grads(model, x, y)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                grads(model, x, y)
        torch.cuda.current_stream().wait_stream(stream)
        model.zero_grad(set_to_none=True)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            with autocast():
                loss = cross_entropy(model(x), y)
            loss.backward()
        captured.replay()
        sync()
        errors = [
            (p.grad - expected[k]).norm().item() / (expected[k].norm().item() + 1e-12)
            for k, p in model.named_parameters()
        ]
        with locked("gpu"):
            ms = clock(captured.replay, 20)[0]
        return {"worst relative difference to eager": max(errors), "replay_ms": round(ms, 3)}

    attempt("risks", "CUDA graph of forward and backward", graph)

    def halves():
        model = make(MICRO, 224, num_classes=10).train()
        update = torch.optim.AdamW(model.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=CUDA)
        x, y = data()
        losses = []
        for _ in range(2 if TINY else 40):
            with torch.autocast(DEVICE.type, torch.float16 if CUDA else HALF):
                loss = cross_entropy(model(x), y)
            update.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(update)
            scaler.update()
            losses.append(loss.item())
        return {"first": losses[0], "last": losses[-1], "scale": scaler.get_scale()}

    attempt("risks", "float16 with a scaler", halves)

    def learns():
        """The same 40 steps by the fast and the reference path: losses must stay together."""
        found = {}
        for attention in ("fast", "reference"):
            model = make(MICRO, 224, num_classes=10, attention=attention).train()
            update = torch.optim.AdamW(model.parameters(), lr=1e-3)
            x, y = data()
            losses = []
            for _ in range(2 if TINY else 40):
                with autocast():
                    loss = cross_entropy(model(x), y)
                update.zero_grad()
                loss.backward()
                update.step()
                losses.append(loss.item())
            found[attention] = [round(losses[0], 4), round(losses[len(losses) // 2], 4), round(losses[-1], 4)]
        return found

    attempt("risks", "40 steps on one batch", learns)

    def ddp():
        import torch.distributed as dist

        with tempfile.TemporaryDirectory() as folder:
            dist.init_process_group(
                "nccl" if CUDA else "gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1
            )
            try:
                model = make(MICRO, 224, num_classes=10).train()
                x, y = data()
                expected = grads(model, x, y)
                wrapped = nn.parallel.DistributedDataParallel(model, device_ids=[0] if CUDA else None)
                model.zero_grad(set_to_none=True)
                with autocast():
                    loss = cross_entropy(wrapped(x), y)
                loss.backward()
                errors = [
                    (p.grad - expected[k]).norm().item() / (expected[k].norm().item() + 1e-12)
                    for k, p in model.named_parameters()
                ]
                found = {"ddp: worst relative difference": max(errors)}
                if CUDA:
                    from torch.distributed.fsdp import fully_shard

                    sharded = copy.deepcopy(model)
                    for stage in sharded.layers:
                        for block in stage.blocks:
                            fully_shard(block)
                    fully_shard(sharded)
                    with autocast():
                        loss = cross_entropy(sharded(x), y)
                    loss.backward()
                    found["fsdp2 loss difference"] = abs(loss.item() - expected["loss"].item())
                return found
            finally:
                dist.destroy_process_group()

    attempt("risks", "DDP and FSDP of one process", ddp)

    def first_in_graph():
        """Masks are cached at the first call: within a capture they hold nothing before its replay."""
        if not CUDA:
            return {"skipped": "no CUDA"}
        x, _ = data()
        with torch.no_grad():
            expected = make(MICRO, 224, num_classes=10, border="mask").eval()(x)  # the same weights
            model = make(MICRO, 224, num_classes=10, border="mask").eval()
            sync()
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                out = model(x)
            early = model(x)
            captured.replay()
            sync()
            late = model(x)
        return {
            n: (v - expected).abs().max().item()
            for n, v in (("eager before a replay", early), ("replayed", out), ("eager after it", late))
        }

    attempt("risks", "first call under capture", first_in_graph)
