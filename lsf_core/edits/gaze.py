"""Gaze: the eyes hold the listener, scan the face, look away to think, and come back.

- A saccade of A degrees lasts 25 ms + 2.4 ms per degree; sizes fall off exponentially (Lee, Badler and Badler 2002,
  "Eyes Alive", ACM Transactions on Graphics 21(3):637).
- People are at ease with eye contact of 3.3 s at a time (Binetti, Harrison, Coutrot, Johnston and Mareschal 2016, Royal
  Society Open Science 3:160086). Speakers look at their listener 41 % of the time (Argyle and Ingham 1972, Semiotica
  6:32); here it is about 75 %, as a close-up tells every look away, and a large one is the artist's to decide.
- Speakers look away as they begin to speak and in pauses, and back as they end (Kendon 1967, Acta Psychologica 26:22).
- Lids follow the vertical gaze by ARKit's own definition: eyeLookDown and eyeLookUp are the lids' motion with the look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arkit import INDEX
from ..arrays import library, like
from ..cues import SoundCues
from ..motion import Motion
from .chance import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEGREES_PER_WEIGHT = 30.0  # an eyeLook shape at 1 turns the eye by about 30 degrees on ARKit's reference
CONTACT_SECONDS = 3.3  # mean length of one eye contact; never under 1
AWAY_SECONDS = 1.1  # mean length of one look away; never under 0.4
AWAY_DEGREES = (4.0, 9.0)  # how far to a side
AWAY_PITCH = (-1.0, 2.5)  # mean and standard deviation in degrees, upwards: rather down
ONSET_REACH = 1.2  # seconds within which a look away is drawn to where a phrase begins or a pause is
ONSET_PULL = 0.7  # probability that it is
SCAN_DEGREES, MAX_SCAN = 0.8, 3.0  # mean size beyond half a degree, and the largest, of shifts over a face
FIXATION_SECONDS = 0.9  # mean length of a fixation; never under 0.25
END_MARGIN = 0.3  # seconds kept straight at both ends
_STREAM = 0x6A


def add_gaze(motion: Motion, cues: SoundCues | None = None, *, seed: int = 0, strength: float = 1.0) -> Motion:
    """The motion with eye movements added to its own eyeLook curves; strength scales their size."""
    times = np.arange(len(motion)) / motion.fps
    turns = np.zeros(0) if cues is None else cues.phrases().ravel()
    yaw, pitch = plan_gaze(motion.seconds, turns, gaze_stream(seed)).at(times)
    return motion.with_weights(look(motion.weights, strength * yaw, strength * pitch))


def gaze_stream(seed: int) -> np.random.Generator:
    """The chances that gaze is drawn from."""
    return stream(_STREAM, seed)


def look(weights: NDArray, yaw: NDArray, pitch: NDArray) -> NDArray:
    """Weights (F, 52) with the eyes turned by yaw (F,) degrees to the face's own left and pitch (F,) upwards."""
    weights = 1 * weights
    _push(weights, "eyeLookOutLeft", "eyeLookInLeft", yaw / DEGREES_PER_WEIGHT)
    _push(weights, "eyeLookInRight", "eyeLookOutRight", yaw / DEGREES_PER_WEIGHT)
    _push(weights, "eyeLookUpLeft", "eyeLookDownLeft", pitch / DEGREES_PER_WEIGHT)
    _push(weights, "eyeLookUpRight", "eyeLookDownRight", pitch / DEGREES_PER_WEIGHT)
    return weights


class GazePlan:
    """Fixations: from each of `times` (N,) seconds on the eyes go to `targets` (N, 2) degrees, yaw towards the face's
    own left and pitch upwards, and stay there until the next."""

    def __init__(self, times: NDArray, targets: NDArray) -> None:
        self.times, self.targets = times, targets

    def at(self, times: NDArray) -> NDArray:
        """Yaw and pitch (2, F) in degrees at `times` (F,): held, joined by quick even shifts."""
        size = np.linalg.norm(np.diff(self.targets, axis=0), axis=1)
        ends = self.times[1:] + 0.025 + 0.0024 * size
        keys = np.stack([self.times[1:], ends], axis=1).ravel()
        values = np.stack([self.targets[:-1], self.targets[1:]], axis=1).reshape(-1, 2)
        if not len(keys):
            return np.zeros((2, len(times)))
        return np.stack([np.interp(times, keys, column) for column in values.T])


def plan_gaze(seconds: float, turns: NDArray, rng: np.random.Generator) -> GazePlan:
    """Where the eyes go in `seconds`; turns: (2P,) seconds at which speech begins or ends, in order."""
    starts, targets = [0.0], [(0.0, 0.0)]
    clock, centre, away = 0.0, (0.0, 0.0), False
    change = _next_look_away(clock, turns, rng)
    last = seconds - END_MARGIN
    while True:
        fixation = clock + max(0.25, float(rng.gamma(2.0, FIXATION_SECONDS / 2.0)))
        turning = fixation >= change - 0.2
        clock = max(change, clock + 0.2) if turning else fixation
        if clock >= last - 0.1:  # no look is worth the while
            break
        if turning and not away:
            away, change = True, clock + max(0.4, float(rng.gamma(4.0, AWAY_SECONDS / 4.0)))
            side = 1.0 if rng.random() < 0.5 else -1.0
            centre = (side * float(rng.uniform(*AWAY_DEGREES)), float(np.clip(rng.normal(*AWAY_PITCH), -7, 5)))
            target = centre
        elif turning:
            away, change, centre = False, _next_look_away(clock, turns, rng), (0.0, 0.0)
            target = centre
        else:
            size, angle = min(0.5 + float(rng.exponential(SCAN_DEGREES)), MAX_SCAN), float(rng.uniform(0, 2 * np.pi))
            home = rng.random() < 0.25  # back to the middle between the listener's eyes
            shift = (0.0, 0.0) if home else (size * np.cos(angle), 0.6 * size * np.sin(angle))  # rather across
            target = (centre[0] + shift[0], centre[1] + shift[1])
        starts.append(clock)
        targets.append(target)
    if last > 0:
        starts.append(last)
        targets.append((0.0, 0.0))
    return GazePlan(np.array(starts), np.array(targets))


def _next_look_away(clock: float, turns: NDArray, rng: np.random.Generator) -> float:
    """When the eye contact that begins at `clock` ends."""
    when = clock + max(1.0, float(rng.gamma(3.0, CONTACT_SECONDS / 3.0)))
    pulled, early = rng.random() < ONSET_PULL, float(rng.normal(0.05, 0.1))
    near = turns[np.abs(turns - when) < ONSET_REACH]
    if pulled and len(near):
        when = max(clock + 1.0, float(near[np.abs(near - when).argmin()]) - early)
    return when


def _push(weights: NDArray, positive: str, negative: str, amount: NDArray) -> None:
    """Add a signed (F,) amount to a pair of opposite shapes: what one side cannot give up, the other takes."""
    plus, minus = INDEX[positive], INDEX[negative]
    net = weights[:, plus] - weights[:, minus] + like(amount, weights)
    both = library(weights).minimum(weights[:, plus], weights[:, minus])
    weights[:, plus] = both + net.clip(0)
    weights[:, minus] = both + (-net).clip(0)
