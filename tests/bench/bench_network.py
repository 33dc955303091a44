"""How fast the network is, beside published ones, in one run and one table. Run by hand, never in CI:

    python tests/bench/bench_network.py [--device cpu|cuda] [--only PART ...] [--seconds 5 10 ...] [--json OUT]

From samples in memory to 52 weights a frame in memory. Best of several runs; the first ones choose kernels and record
graphs (noted as "slowest"). Peak memory: of the graphics card what PyTorch holds with all its
reserves, of the CPU the process's resident memory. A reference whose next clip would not fit or take longer than
--bound seconds is left out, and the table says so. Parts: ours, published, autoregressive, diffusion (references.py
tells what they are), batch, floor, agreement.

The floor: the operations of our windows over the rate of a large matrix product measured here, or the bytes that must
at least be moved (samples and weights read, motion written) over the bandwidth of a large copy; the larger of the two.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from bench import speech  # noqa: E402 - needs the path above
from references import REFERENCES  # noqa: E402

from lsf_core.animator import Animator, load_model, sound_tensor  # noqa: E402
from lsf_core.windows import WINDOW, window_starts  # noqa: E402

SECONDS = (5.0, 10.0, 30.0, 120.0, 300.0, 3600.0)
BATCHES = (1, 4, 16, 64)
BATCH_SECONDS = 10.0
PARTS = ("ours", *REFERENCES, "batch", "floor", "agreement")
GROWTH = {"published": 2.0, "autoregressive": 2.0, "diffusion": 1.0}  # of the time with a clip's length


class Bench:
    """Times things on one device and collects the rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.rows: list[dict[str, Any]] = []

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def best(self, run: Callable[[], Any], least: float = 0.5) -> tuple[float, float]:
        """Seconds of the best and of the slowest run; --repeat after the first and as many as `least` seconds hold,
        fewer of those that take seconds."""
        times: list[float] = []
        while not times or (sum(times) < 4.0 and (len(times) <= self.options.repeat or sum(times[1:]) < least)):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - begun)
        return min(times), max(times)

    def free(self) -> None:
        """Give back what earlier rows held, and begin to measure the peak anew."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            clear = Path("/proc/self/clear_refs")
            if clear.exists():
                clear.write_text("5", encoding="ascii")  # 5: forget the peak of resident memory

    def peak_mb(self) -> float | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device) / 2**20
        status = Path("/proc/self/status")
        if not status.exists():
            return None
        line = next(row for row in status.read_text(encoding="ascii").splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def note(self, part: str, what: str, seconds: float, **figures: Any) -> None:
        """Add a row and show it at once."""
        self.rows.append({"part": part, "what": what, "audio_s": seconds, **figures})
        took = figures.get("took_s")
        text = figures.get("note", "")
        cells = [what, clip_name(seconds)]
        cells += ["", ""] if took is None else [f"{took * 1000:,.1f}", f"{figures['audio_total_s'] / took:,.0f}"]
        peak = figures.get("peak_mb")
        print("| " + " | ".join([*cells, "" if peak is None else f"{peak:,.0f}", text]) + " |", flush=True)

    def measure(self, part: str, what: str, seconds: float, run: Callable[[], Any], batch: int = 1,
                note: str = "") -> float | None:
        """Time `run` on `batch` clips and note it; None where there is too little memory."""
        self.free()
        try:
            took, slowest = self.best(run)
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            self.note(part, what, seconds, batch=batch, note="does not fit in memory")
            return None
        notes = [note] if note else []
        if slowest > 3 * took and slowest - took > 0.05:
            notes.append(f"slowest {slowest:.2f} s")
        self.note(part, what, seconds, batch=batch, took_s=took, slowest_s=slowest, peak_mb=self.peak_mb(),
                  audio_total_s=seconds * batch, note=", ".join(notes))
        return took


def clip_name(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 300 else f"{seconds / 60:g} min"


# ---------------------------------------------------------------- what is measured


def ours(bench: Bench) -> None:
    """The take with its usual edits, without edits (what the references make), and how it was without graphs and in
    single precision."""
    cuda = bench.device.type == "cuda"
    model = load_model(bench.options.model, bench.options.device)
    for seconds in bench.options.seconds:
        audio = speech(seconds)
        bench.measure("ours", "ours, with edits", seconds, lambda audio=audio: model.animate(audio, 16000))
        bench.measure("ours", "ours, no edits", seconds,
                      lambda audio=audio: model.animate(audio, 16000, edits=False))
        bench.measure("ours", "ours, network only", seconds, lambda audio=audio: network_only(model, [audio]))
    if cuda:
        for what, half in (("ours, half precision without graphs", True), ("ours, single precision, no graphs", False)):
            model = load_model(bench.options.model, bench.options.device, half=half)
            model.graphs = None
            for seconds in bench.options.seconds:
                if seconds <= 300:
                    audio = speech(seconds)
                    bench.measure("ours", what, seconds, lambda audio=audio, m=model: network_only(m, [audio]))


def network_only(model: Animator, clips: list[np.ndarray]) -> Any:
    """Deliveries of the network, (D, F, 52) a clip: without listening for cues, mixing and resampling."""
    sounds = [sound_tensor(clip, model.device) for clip in clips]
    return [made.cpu() for made in model.deliveries(sounds, np.zeros((len(clips), 32), np.float32))]


def reference(name: str) -> Callable[[Bench], None]:
    title, kind = REFERENCES[name]

    def measure(bench: Bench) -> None:
        sizes = {"encoder_layers": 1} if bench.options.tiny else {}
        torch.manual_seed(0)
        net: Any = kind(**sizes).to(bench.device).eval()
        took, last = None, 0.0

        @torch.inference_mode()
        def run(audio: torch.Tensor) -> np.ndarray:
            return net(audio.to(bench.device)).cpu().numpy()

        run(torch.zeros(1, 32000))
        for seconds in bench.options.seconds:
            expected = 0.0 if took is None else took * (seconds / last) ** GROWTH[name]
            reason = left_out(bench, net.memory(seconds), expected)
            if reason:
                bench.note(name, title, seconds, note=reason)
                continue
            audio = torch.from_numpy(speech(seconds))[None]
            took, last = bench.measure(name, title, seconds, lambda audio=audio: run(audio)) or took, seconds

    return measure


def left_out(bench: Bench, memory: float, expected: float) -> str:
    """Why a reference's clip is not run; empty if it is."""
    room = available(bench)
    if memory > room:
        return f"left out: needs {memory / 2**30:,.0f} GiB, there are {room / 2**30:,.0f}"
    if expected > bench.options.bound:
        return f"left out: would take some {expected:,.0f} s"
    return ""


def available(bench: Bench) -> float:
    """Bytes of memory that a run may take."""
    bench.free()
    if bench.device.type == "cuda":
        return float(torch.cuda.mem_get_info(bench.device)[0])
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable"):
            return min(int(line.split()[1]) * 1024.0, bench.options.memory * 2**30)
    return bench.options.memory * 2.0**30


def batch(bench: Bench) -> None:
    """Several clips at once: ours whole (network, cues, edits) and the network only; the published network."""
    model = load_model(bench.options.model, bench.options.device)
    clip = speech(BATCH_SECONDS)
    for count in bench.options.batch:
        clips, faces = [clip] * count, np.zeros((count, 32), np.float32)

        def whole(clips: list = clips, faces: np.ndarray = faces, model: Animator = model) -> None:
            for raw in model.raw_weights(clips, faces, [0] * len(clips)):
                raw.finish(fps=30.0)

        note = f"batch {count}"
        bench.measure("batch", "ours, with edits", BATCH_SECONDS, whole, count, note)
        bench.measure("batch", "ours, network only", BATCH_SECONDS,
                      lambda clips=clips, model=model: network_only(model, clips), count, note)
    del model, whole  # the network's memory is not the reference's
    title, kind = REFERENCES["published"]
    net: Any = kind(**({"encoder_layers": 1} if bench.options.tiny else {})).to(bench.device).eval()
    took, before = None, 1
    for count in bench.options.batch:
        reason = left_out(bench, net.memory(BATCH_SECONDS, count), 0.0 if took is None else took * count / before)
        if reason:
            bench.note("batch", title, BATCH_SECONDS, batch=count, note=f"batch {count}, {reason}")
            continue
        audio = torch.from_numpy(clip).expand(count, -1)

        @torch.inference_mode()
        def run(audio: torch.Tensor = audio) -> np.ndarray:
            return net(audio.to(bench.device)).cpu().numpy()

        took, before = bench.measure("batch", title, BATCH_SECONDS, run, count, f"batch {count}") or took, count


def floor(bench: Bench) -> None:
    """See the head of this file."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load_model(bench.options.model, "cpu", half=False)
    model.network.requires_grad_(False)  # the counter follows gradients, which inference has none of
    with FlopCounterMode(display=False) as counter:
        network_only(model, [speech(WINDOW / 50)])
    window = counter.get_total_flops()
    weights = sum(p.numel() for part in (model.speech, model.network) for p in part.parameters())
    cuda = bench.device.type == "cuda"
    size, dtype = (8192, torch.float16) if cuda else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
    rate = 2.0 * size**3 / bench.best(lambda: torch.mm(a, b))[0]
    data = torch.empty(2**30 if cuda else 2**27, dtype=torch.uint8, device=bench.device)
    copy = data.clone()
    width = 2.0 * data.numel() / bench.best(lambda: copy.copy_(data))[0]
    print(f"\nfloor: {window / 1e9:.1f} GFLOP a window of 8 s; matrix products here {rate / 1e12:,.2f} TFLOP/s "
          f"({str(dtype)[6:]}), copies {width / 1e9:,.0f} GB/s\n")
    for seconds in bench.options.seconds:
        frames = round(50 * seconds)
        operations = window * len(window_starts(frames)) * min(frames, WINDOW) / WINDOW
        moved = 4.0 * 16000 * seconds + weights * (2 if cuda else 4) + 2 * 4.0 * 52 * frames
        took = max(operations / rate, moved / width)
        bench.note("floor", "floor", seconds, took_s=took, audio_total_s=seconds, flop=operations, bytes=moved,
                   note="operations" if operations / rate > moved / width else "bytes")


def agreement(bench: Bench) -> None:
    """How far half precision and graphs, or 8 bits, move the face from single precision on the same device."""
    torch.backends.cudnn.allow_tf32 = False  # single precision, in convolutions too
    clips = [speech(30.0)]
    single = load_model(bench.options.model, bench.options.device, half=False)
    wanted = deliveries(single, clips)
    runs = [("single precision, again", single), ("encoder in int8", int8_encoder(bench))]
    if bench.device.type == "cuda":
        runs = [("single precision on the CPU", load_model(bench.options.model, "cpu"))]
        runs.append(("half precision", load_model(bench.options.model, bench.options.device)))
    print("\n| against single precision, 30 s, both deliveries | mean | 99.9 % | largest | frames within .005 "
          "| times as fast |\n|---|---|---|---|---|---|")
    usual = bench.best(lambda: network_only(single, clips))[0]
    for what, model in runs:
        found = deliveries(model, clips)
        faster = usual / bench.best(lambda model=model: network_only(model, clips))[0]
        apart = np.abs(found - wanted)
        within = float((apart.max(-1) <= 0.005).mean())
        mean, most, largest = float(apart.mean()), float(np.quantile(apart, 0.999)), float(apart.max())
        bench.rows.append({"part": "agreement", "what": what, "mean": mean, "largest": largest, "q999": most,
                           "within": within, "faster": faster})
        print(f"| {what} | {mean:.6f} | {most:.5f} | {largest:.4f} | {within:.2%} | {faster:.2f} |", flush=True)
    torch.backends.cudnn.allow_tf32 = True


def int8_encoder(bench: Bench) -> Animator:
    """The network with the matrices of its encoder in 8 bits and their inputs rounded as they come, on the CPU."""
    from torch.ao.quantization import quantize_dynamic

    model = load_model(bench.options.model, "cpu")
    model.speech.model = quantize_dynamic(model.speech.model, {torch.nn.Linear}, dtype=torch.qint8)
    return model


def deliveries(model: Animator, clips: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([d.numpy() for d in network_only(model, clips)], 1)


def summary(rows: list[dict[str, Any]]) -> None:
    """How many times faster ours is, clip by clip."""
    took = {(row["what"], row["audio_s"]): row["took_s"] for row in rows
            if row.get("took_s") and row["part"] not in ("batch", "agreement")}
    mine = [what for what in ("ours, with edits", "ours, no edits", "ours, network only") if
            any(name == what for name, _ in took)]
    others = [what for what in dict.fromkeys(name for name, _ in took) if what not in mine]
    if not mine or not others:
        return
    print("\n| times as fast as | clip | " + " | ".join(mine) + " |\n|---|---|" + "---|" * len(mine))
    for other in others:
        for seconds in sorted({s for name, s in took if name == other}):
            cells = [f"{took[other, seconds] / took[m, seconds]:,.2f}" if (m, seconds) in took else "" for m in mine]
            print(f"| {other} | {clip_name(seconds)} | " + " | ".join(cells) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU where that is the device")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", nargs="+", type=float, default=SECONDS, help="lengths of the clips")
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES, help="clips of 10 s at once")
    parser.add_argument("--bound", type=float, default=15.0, help="seconds that one run of a reference may take")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB that a reference may take on the CPU")
    parser.add_argument("--model", help="another checkpoint than the one that ships")
    parser.add_argument("--tiny", action="store_true", help="references with encoders of one layer, to try the script")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    bench, begun = Bench(options), time.perf_counter()
    if bench.device.type == "cpu":
        torch.set_num_threads(options.threads)
    else:
        torch.cuda.init()
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
          f"{options.device}: {name}, best of {options.repeat} or more\n")
    print("| what | audio | ms | x real time | peak MB | |\n|---|---|---|---|---|---|", flush=True)
    parts: dict[str, Callable[[Bench], None]] = {
        "ours": ours, **{key: reference(key) for key in REFERENCES}, "batch": batch, "floor": floor,
        "agreement": agreement,
    }  # fmt: skip
    for part in PARTS:
        if part in options.only:
            parts[part](bench)
            bench.free()
    summary(bench.rows)
    print(f"\n{time.perf_counter() - begun:.0f} s in all")
    if options.json:
        about = {"device": options.device, "name": name, "torch": str(torch.__version__), "rows": bench.rows}
        options.json.write_text(json.dumps(about, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
