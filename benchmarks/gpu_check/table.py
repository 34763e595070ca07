"""The figures of gpu.json that matter, in few lines."""

import json
from collections.abc import Iterator

from record import OUT, PARTS


def mappings(found):
    """The values of a mapping that are mappings themselves."""
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def error(value):
    return " ".join(value.get("error", "").split())[:80]


def differences(result, shown=()):
    cells = (
        f"{key} {value['logits']:.0e}/{value.get('gradient', float('nan')):.0e}"
        for key, value in mappings(result).items()
        if not shown or key in shown
    )
    return "; ".join(cells) or error(result)


def equality(found) -> Iterator[str]:
    yield f"\nequality: {found.get('summary')}"
    good = ("float64", "float32", "bf16", "bf16, reference", "bf16, frozen biases")
    for case, result in mappings(found).items():
        if "float64" in result or "error" in result:
            ok = result.get("ok")
            yield f"  {'ok ' if ok else 'BAD'} {case}: {differences(result, good if ok else ())}"[:260]


def speed(found, compiled) -> Iterator[str]:
    yield "\n| what | model | ms | ratio | images/s | peak MB |\n|---|---|---:|---:|---:|---:|"
    for title, result in mappings(found).items():
        for name, value in mappings(result).items():
            row = (title, name, value.get("ms", error(value)), value.get("ratio"))
            yield "| {} | {} | {} | {} | {} | {} |".format(*row, value.get("images_s"), value.get("peak_mb"))
    for mode in ("train", "eval"):
        base = compiled.get(f"swin_tiny_patch4_window7_224, {mode}", {}).get("ms")
        for name, value in mappings(compiled).items():
            if name.endswith(mode):
                comparable = base and "ms" in value and "micro" not in name
                ratio = round(value["ms"] / base, 3) if comparable else None
                short = name.replace("_patch4_window7_224", "").rsplit(",", 1)[0]
                yield (
                    f"| compiled, {mode} | {short} | {value.get('ms', error(value))} | {ratio} "
                    f"| {value.get('images_s')} | {value.get('peak_mb')} "
                    f"| first call {value.get('first_call_s')} s, "
                    f"{value.get('graph_breaks')} breaks, {value.get('kernels', {}).get('launches')} launches"
                )


def blocks(found) -> Iterator[str]:
    yield "\nblocks (ms, ratio to swin's):"
    for stage, result in mappings(found).items():
        for mode, values in mappings(result).items():
            cells = (
                f"{name} {value.get('ms', 'error')} ({value.get('ratio')})" for name, value in values.items()
            )
            yield f"  {stage}, {mode}: {', '.join(cells)}"


def kernel(found, compiled) -> Iterator[str]:
    for name, result in mappings(found).items():
        if "float32" in result:
            yield f"kernel {'ok ' if result.get('ok') else 'BAD'} {name}: {differences(result)}"
            continue
        for mode, values in mappings(result).items():
            if "top" in values:
                top = "; ".join(f"{ms:.2f} ms {count} x {key[:40]}" for ms, count, key in values["top"][:8])
                yield f"kernel, {mode}: {values['launches']} launches; {top}"
            else:
                cells = (
                    f"{key} {value.get('ms', value)} ms ({value.get('ratio')}) {value.get('peak_mb')} MB"
                    for key, value in values.items()
                )
                yield f"kernel, {mode}: {', '.join(cells)}"
    for name, value in mappings(compiled).items():
        yield (
            f"compiled around the kernel, {name}: {value.get('ms', error(value))} ms, "
            f"{value.get('images_s')} images/s, {value.get('peak_mb')} MB, "
            f"first call {value.get('first_call_s')} s"
        )


def profiles(found) -> Iterator[str]:
    for name, result in mappings(found).items():
        for mode, value in mappings(result).items():
            times = f"kernels {value['kernels_ms']} ms, wall {value['wall_ms']} ms"
            yield f"profile {name}, {mode}: {value['launches']} launches, {times}"
            for ms, count, key in value["top"] if mode == "train" and "focal_tiny" in name else ():
                yield f"   {ms:9.3f} ms {count:5d} x {key[:90]}"


def table(found):
    """Print the table."""
    info = found.get("info", {})
    print("\n==== focal-lab on", info.get("machine", {}))
    for key in ("ceilings", "launch", "sdpa_backend"):
        print(f"{key}: {info.get(key)}")
    for lines in (
        equality(found.get("equality", {})),
        speed(found.get("speed", {}), found.get("compile", {})),
        blocks(found.get("blocks", {})),
        kernel(found.get("kernel", {}), found.get("compile with the kernel", {})),
        profiles(found.get("profile", {})),
    ):
        print(*lines, sep="\n")
    for part in ("large", "risks", "maskgrad", "fit", "tests"):
        for name, value in found.get(part, {}).items():
            print(f"{part}: {name}: {json.dumps(value, default=str)[:300]}")
    for part in PARTS:
        for key in ("stopped", "skipped", "status"):
            if key in found.get(part, {}):
                print(f"{part}: {key}: {found[part][key]}")
    print(f"everything: {OUT}/gpu.json; {info.get('seconds')} s")
