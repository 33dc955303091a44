"""A scripted engine for the tests: speaks the protocol, and in other modes breaks it.

    python fake_worker.py MODE LOG        appends every request to LOG, one JSON line each

It takes any mesh for a face, and its motion is a ramp on jawOpen and a wave on mouthSmileLeft. "hangs at METHOD" does
nothing more from there on until it is cancelled; "NAME at METHOD" with a name of GARBAGE sends that there.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np

GARBAGE = {
    "text": b"Segmentation fault (core dumped)\n",
    "bytes": b"\xff\xfe\x00\x80" * 50 + b"\n",
    "endless line": b"x" * (2 << 20),
    "wrong types": b'{"id": "one", "event": ["result"]}\n',
    "half a line": b'{"id": 1, "event": "res',
}

NAMES = ["jawOpen", "mouthSmileLeft", "browInnerUp", "tongueOut"]


def send(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def rig(params: dict, mode: str) -> dict:
    folder = Path(params["folder"])
    vertices = np.load(folder / params["vertices"])
    deltas = np.zeros((len(NAMES), len(vertices), 3), np.float32)
    for k in range(len(NAMES)):
        deltas[k, :, k % 3] = 0.1 * (1 + np.arange(len(vertices)) % (k + 2))
    if mode == "nan deltas":
        deltas[0, 0, 0] = np.nan
    if mode == "short deltas":
        deltas = deltas[:, :-1]
    np.save(folder / "deltas.npy", deltas)
    return {"deltas": "deltas.npy", "names": NAMES, "landmarks": [], "landmark_names": [], "fit_error": 1.0,
            "warnings": ["A warning of the rig."], "cached": False}


def animate(params: dict, mode: str) -> dict:
    folder = Path(params["folder"])
    frames = params["frames"]
    weights = np.zeros((frames, len(NAMES)), np.float32)
    weights[:, 0] = np.linspace(0.1, 0.9, frames)
    weights[:, 1] = 0.5 + 0.5 * np.sin(np.arange(frames))
    weights[:, 2] = 0.25
    if mode == "nan weights":
        weights[frames // 2, 1] = np.nan
    if mode == "big weights":
        weights[0, 0] = 1.5
    if mode == "short weights":
        weights = weights[:-1]
    if mode == "outside":
        return {"weights": "../weights.npy", "names": NAMES, "fps": params["fps"], "head_rotation": None}
    if mode == "pickle":
        (folder / "weights.npy").write_bytes(pickle.dumps(weights))
    else:
        np.save(folder / "weights.npy", weights)
    return {"weights": "weights.npy", "names": NAMES, "fps": params["fps"], "head_rotation": None}


def hang(job: int) -> None:
    for line in sys.stdin:
        if json.loads(line)["method"] == "cancel":
            send(id=job, event="error", kind="cancelled", message="Cancelled. Nothing was changed.")
            return


def main(mode: str, log: str) -> None:
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "garbage":
        print("Welcome to Python! This is not JSON.", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        with open(log, "a") as file:
            file.write(json.dumps({**request, "environment": sorted(os.environ)}) + "\n")
        job, method, params = request["id"], request["method"], request.get("params", {})
        what, _, where = mode.partition(" at ")
        if where == method and what == "hangs":
            hang(job)
        elif where == method:
            sys.stdout.buffer.write(GARBAGE[what])
            sys.stdout.flush()
            if what == "half a line":
                os._exit(0)
        elif method == "hello" and mode not in ("mute", "garbage"):
            send(id=job, event="result", data={"protocol": 99 if mode == "old" else 1, "engine": "fake"})
        elif method == "listen":
            send(id=job, event="result", data={"seconds": 2.0})
        elif method in ("rig", "animate"):
            send(id=job, event="progress", fraction=0.5, text=f"Half of {method}")
            if mode == "dies":
                print("about to die", file=sys.stderr, flush=True)
                os._exit(3)
            if mode == "user error":
                send(id=job, event="error", kind="user", message="The fake refuses this.")
            elif mode == "bug":
                send(id=job, event="error", kind="bug", message="The fake is broken.", trace="Traceback: here")
            elif mode in ("slow", "stubborn"):
                while mode == "stubborn":
                    time.sleep(1)
                if json.loads(sys.stdin.readline())["method"] == "cancel":
                    send(id=job, event="error", kind="cancelled", message="Cancelled. Nothing was changed.")
            elif mode == "chatty":
                for i in range(500):
                    send(id=job, event="progress", fraction=i / 500, text=str(i))
                send(id=job, event="result", data=rig(params, mode) if method == "rig" else animate(params, mode))
            else:
                send(id=job, event="result", data=rig(params, mode) if method == "rig" else animate(params, mode))


if __name__ == "__main__":
    main(*sys.argv[1:])
