"""Gaze: small quick shifts of the eyes, so that the look is alive while it stays on the listener.

After the statistical model of Lee, Badler and Badler 2002 ("Eyes Alive", ACM Transactions on Graphics 21(3):637): a
saccade of A degrees lasts 25 ms + 2.4 ms per degree; sizes fall off exponentially. Their range (up to 30 degrees, looks
away) is for a face that thinks; here only the small ones around the listener's face are made, 3 degrees at most, as a
large look away is the artist's to decide.
"""

from __future__ import annotations

import numpy as np

from ..arkit import INDEX
from ..motion import Motion

MAX_DEGREES = 3.0
MEAN_DEGREES = 1.2
DEGREES_PER_WEIGHT = 30.0  # an eyeLook shape at 1 turns the eye by about 30 degrees on ARKit's reference
MEAN_FIXATION = 1.1  # seconds between shifts; never under 0.25
_STREAM = 0x6A


def add_gaze(motion: Motion, *, seed: int = 0, strength: float = 1.0) -> Motion:
    """The motion with small gaze shifts added to its own eyeLook curves; strength scales their size."""
    if strength <= 0:
        return motion
    times = np.arange(len(motion)) / motion.fps
    yaw, pitch = _fixations(times, motion.seconds, np.random.default_rng([_STREAM, abs(int(seed))]))
    weights = motion.weights.copy()
    scale = strength / DEGREES_PER_WEIGHT
    # yaw is positive towards the face's own left, pitch is positive upwards
    _push(weights, "eyeLookOutLeft", "eyeLookInLeft", yaw * scale)
    _push(weights, "eyeLookInRight", "eyeLookOutRight", yaw * scale)
    _push(weights, "eyeLookUpLeft", "eyeLookDownLeft", pitch * scale)
    _push(weights, "eyeLookUpRight", "eyeLookDownRight", pitch * scale)
    return motion.with_weights(weights)


def _fixations(times: np.ndarray, seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch in degrees at `times`: held targets, joined by quick eased shifts."""
    keys, yaws, pitches = [0.0], [0.0], [0.0]
    clock = 0.0
    while True:
        clock += max(0.25, float(rng.gamma(2.0, MEAN_FIXATION / 2.0)))
        size = min(float(rng.exponential(MEAN_DEGREES)), MAX_DEGREES)
        angle = float(rng.uniform(0, 2 * np.pi))
        home = rng.random() < 0.4  # back to the listener's eyes
        yaw = 0.0 if home else size * np.cos(angle)
        pitch = 0.0 if home else 0.6 * size * np.sin(angle)  # faces are scanned more across than up and down
        if clock >= seconds:
            break
        travel = 0.025 + 0.0024 * float(np.hypot(yaw - yaws[-1], pitch - pitches[-1]))
        keys += [clock, clock + travel]
        yaws += [yaws[-1], yaw]
        pitches += [pitches[-1], pitch]
    return np.interp(times, keys, yaws), np.interp(times, keys, pitches)


def _push(weights: np.ndarray, positive: str, negative: str, amount: np.ndarray) -> None:
    """Add a signed (F,) amount to a pair of opposite shapes: what one side cannot give up, the other takes."""
    plus, minus = INDEX[positive], INDEX[negative]
    net = weights[:, plus] - weights[:, minus] + amount
    both = np.minimum(weights[:, plus], weights[:, minus])
    weights[:, plus] = both + np.maximum(net, 0)
    weights[:, minus] = both + np.maximum(-net, 0)
