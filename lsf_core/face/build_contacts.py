"""Contacts of the template, solved: lips that meet, lids that close over the eyeball without letting it
through."""

from __future__ import annotations

import numpy as np

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.face.build_expressions import FLIP, Builder
from lsf_core.face.build_topology import (
    EYE_INNER,
    EYE_MARGIN,
    EYE_OUTER,
    EYE_SIZE,
    MOUTH_CORNER,
    MOUTH_SEAL,
    MOUTH_SIZE,
)

LIP_FALLOFF = {2: 0.05, 3: 0.15, 4: 0.3, 5: 0.5, 6: 0.75, 7: 0.92, 8: 1.0, 9: 1.0, 10: 0.8, 11: 0.5, 12: 0.25}
"""Share of a lip correction that each mouth ring takes; ring 8 is where the lips meet."""
SHUT = (
    "cheekPuff", "jawForward", "jawLeft", "jawRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthLeft", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
)
"""Shapes made with closed lips."""
BLINK_OVERLAP = 0.0004
"""How far (m) the upper lid's edge ends below the lower one's, so that a slightly weak blink still closes."""
TONGUE_SINK = np.array([0.0, -0.003, -0.002])
"""Move (m) of the tongue's tip in the wide open mouth, beside the jaw's own."""
TONGUE_FLATTEN = 0.35
"""And how much lower its back becomes against its floor: at rest it fills the shut mouth."""
TONGUE_JAW = 0.13
"""Share of jawOpen in tongueOut, so that the lower teeth let the tongue pass."""
LID_CLEARANCE = 0.0006
"""Least distance (m) of the lid's skin from the eyeball where it lies over it."""


def arc(points: np.ndarray) -> np.ndarray:
    """Arc length from 0 to 1 along points (..., N, 3)."""
    step = np.linalg.norm(np.diff(points, axis=-2), axis=-1)
    total = np.cumsum(step, axis=-1)
    return np.concatenate([np.zeros((*total.shape[:-1], 1)), total], axis=-1) / total[..., -1:]


def resample(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Points (N, 3) of a polyline at arc positions `at` (M,) in [0, 1] -> (M, 3)."""
    s = arc(points)
    return np.stack([np.interp(at, s, points[:, k]) for k in range(3)], axis=1)


def lip_places() -> tuple[np.ndarray, np.ndarray]:
    """Places of a mouth ring from the right corner to the left one: along the upper lip, along the lower
    lip."""
    upper = np.r_[MOUTH_SIZE - MOUTH_CORNER: MOUTH_SIZE, 0: MOUTH_CORNER + 1]
    lower = np.arange(MOUTH_CORNER, MOUTH_SIZE - MOUTH_CORNER + 1)[::-1]
    return upper, lower


def meeting_lines(seal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corrections (38, 3) of a seal ring (38, 3) that bring both lips to their middle line; also -> gap
    (38,) in metres."""
    upper, lower = lip_places()
    change = np.zeros((MOUTH_SIZE, 3))
    a, b = seal[upper], seal[lower]
    change[upper] = (resample(b, arc(a)) - a) / 2
    change[lower] = (resample(a, arc(b)) - b) / 2
    change[[MOUTH_CORNER, MOUTH_SIZE - MOUTH_CORNER]] = 0
    return change, 2 * np.linalg.norm(change, axis=1)


def close_lips(vertices: np.ndarray, mouth: np.ndarray, rounds: int = 4) -> np.ndarray:
    """A head (V, 3) with its lips brought together. mouth (R, 38): rings."""
    out = vertices.copy()
    for _ in range(rounds):
        change, _ = meeting_lines(out[mouth[MOUTH_SEAL]])
        for ring, share in LIP_FALLOFF.items():
            out[mouth[ring]] += share * change
    return out


def solve_mouth_close(build: Builder, shapes: np.ndarray) -> None:
    """Set mouthClose so that jawOpen + mouthClose at weight 1 seals the lips and keeps the neutral lips'
    profile.

    Where the lips end up is ICT's own choice (the mean of its upper and lower lip with the jaw open),
    smoothed along the lip; each lip then takes its neutral form there. Between lips and chin the correction
    fades by least bending.
    """
    mouth, vertices = build.topology.mouth, build.vertices
    jaw, close = shapes[INDEX["jawOpen"]], shapes[INDEX["mouthClose"]]
    posed = vertices + jaw + close
    upper, lower = lip_places()
    at = np.linspace(0, 1, 41)
    neutral = (resample(vertices[mouth[MOUTH_SEAL]][upper], at) + resample(vertices[mouth[MOUTH_SEAL]][lower], at)) / 2
    target = (resample(posed[mouth[MOUTH_SEAL]][upper], at) + resample(posed[mouth[MOUTH_SEAL]][lower], at)) / 2
    offset = target - neutral
    offset = (offset + offset[::-1] * FLIP) / 2
    for _ in range(30):
        offset[1:-1] = offset[1:-1] / 2 + (offset[:-2] + offset[2:]) / 4

    place = np.zeros(MOUTH_SIZE)
    place[upper] = arc(vertices[mouth[MOUTH_SEAL]][upper])
    place[lower] = arc(vertices[mouth[MOUTH_SEAL]][lower])
    shift = np.stack([np.interp(place, at, offset[:, k]) for k in range(3)], axis=1)
    known = np.zeros(len(vertices), bool)
    values = close.copy()
    lips = mouth[2:12]
    values[lips.ravel()] = np.tile(shift, (len(lips), 1)) - jaw[lips.ravel()]
    known[lips.ravel()] = True
    # the correction, not the shape, is continued: ICT's own fall-off over the chin is kept
    correction = np.where(known[:, None], values - close, 0.0)
    distance = np.linalg.norm(vertices[:, None] - vertices[mouth[2]][None], axis=2).min(axis=1)
    far = build.skin & (distance > 0.030)
    inside = np.zeros(len(vertices), bool)
    inside[mouth[13:].ravel()] = True
    fixed = known | far | inside
    correction = build.fill(correction, fixed)
    shapes[INDEX["mouthClose"]] = np.where(build.skin[:, None], close + correction, close)


def solve_blinks(build: Builder, shapes: np.ndarray) -> None:
    """Set eyeBlink so that both lids' edges meet on one line, in front of the eyeball."""
    for side, name in enumerate(("Left", "Right")):
        rings = build.topology.eyes[side]
        centre, _ = build.eye_centre(side)
        delta = shapes[INDEX["eyeBlink" + name]]
        rest, posed = build.vertices, build.vertices + delta
        upper, lower = lid_places()
        correction = np.zeros_like(delta)
        known = np.zeros(len(delta), bool)
        for ring in range(EYE_MARGIN, EYE_MARGIN + 4):
            index = rings[ring]
            low = posed[index[lower]]
            # the upper lid does the way: its edge ends on the lower lid's edge
            goal_upper = resample(low, arc(rest[index[upper]]))
            goal_upper[1:-1, 1] -= BLINK_OVERLAP
            correction[index[upper]] = goal_upper - posed[index[upper]]
            correction[index[[EYE_INNER, EYE_OUTER]]] = 0
            known[index] = True
        known[rings[12:].ravel()] = True
        distance = np.linalg.norm(rest[:, None] - rest[rings[EYE_MARGIN]][None], axis=2).min(axis=1)
        known |= build.skin & (distance > 0.012)
        correction = build.fill(correction, known)
        delta[build.skin] += correction[build.skin]
        push_out(build, delta, side, centre, LID_CLEARANCE)


def lid_places() -> tuple[np.ndarray, np.ndarray]:
    """Places of an eye ring from the inner to the outer corner: along the upper lid, along the lower lid."""
    upper = np.r_[EYE_INNER: -1: -1, EYE_SIZE - 1: EYE_OUTER - 1: -1]
    return upper, np.arange(EYE_INNER, EYE_OUTER + 1)


def ball_height(build: Builder, side: int, points: np.ndarray) -> np.ndarray:
    """Height (N,) in metres of points above the eyeball's surface, cornea included: the distance from the
    centre less that of the farthest ball vertices in the same direction (soft over about 10 degrees)."""
    centre, _ = build.eye_centre(side)
    ball = build.vertices[build.part(("eye_left", "eye_right")[side])] - centre
    far = np.linalg.norm(ball, axis=1)
    out = points - centre
    length = np.linalg.norm(out, axis=1)
    cosine = (out / length[:, None]) @ (ball / far[:, None]).T
    weight = np.exp(np.minimum((cosine - 1) * 120, 0))
    return length - (weight @ far) / weight.sum(axis=1)


def push_out(build: Builder, delta: np.ndarray, side: int, centre: np.ndarray, clearance: float) -> None:
    """Change delta (V, 3) in place so that the lid's visible skin, from its edge outward, keeps `clearance`
    (m) from the eyeball; the push is spread a little along and across the lid so that no vertex stands
    out."""
    rings = build.topology.eyes[side][: EYE_MARGIN + 2]
    flat = rings.ravel()
    for _ in range(3):
        posed = build.vertices[flat] + delta[flat]
        short = np.maximum(clearance - ball_height(build, side, posed), 0).reshape(rings.shape)
        if short.max() < 1e-6:
            return
        along = np.maximum(short, 0.5 * np.maximum(np.roll(short, 1, axis=1), np.roll(short, -1, axis=1)))
        across = along.copy()
        across[:-1] = np.maximum(across[:-1], 0.6 * along[1:])
        out = posed - centre
        delta[flat] += across.ravel()[:, None] * out / np.linalg.norm(out, axis=1, keepdims=True)


def clear_eyes(build: Builder, shapes: np.ndarray) -> None:
    """Keep the lids off the eyeball in every shape that moves them. Eyeballs that turn keep their outline
    (spheres)."""
    for side, name in enumerate(("Left", "Right")):
        centre, _ = build.eye_centre(side)
        lids = build.topology.eyes[side][: EYE_MARGIN + 2].ravel()
        for i, shape in enumerate(ARKIT_NAMES):
            if np.abs(shapes[i][lids]).max() > 2e-4 and shape != "eyeBlink" + name:
                push_out(build, shapes[i], side, centre, 0.0002)


def keep_lips_together(build: Builder, shapes: np.ndarray) -> None:
    """Close slits between the lips in shapes that are made with the mouth shut.

    Only a parting is closed (the upper lip's line above the lower one's at the same x), half from either lip.
    """
    mouth = build.topology.mouth
    upper, lower = lip_places()
    for name in SHUT:
        delta = shapes[INDEX[name]]
        for _ in range(4):
            seal = (build.vertices + delta)[mouth[MOUTH_SEAL]]
            change = np.zeros((MOUTH_SIZE, 3))
            for places, others, sign in ((upper, lower, 1.0), (lower, upper, -1.0)):
                order = np.argsort(seal[others, 0])
                facing = np.interp(seal[places, 0], seal[others][order, 0], seal[others][order, 1])
                parting = np.maximum(sign * (seal[places, 1] - facing), 0)
                change[places, 1] = -sign * parting / 2
            change[[MOUTH_CORNER, MOUTH_SIZE - MOUTH_CORNER]] = 0
            for ring, share in LIP_FALLOFF.items():
                delta[mouth[ring]] += share * change


def solve_tongue(build: Builder, shapes: np.ndarray) -> None:
    """Make way for the tongue: tongueOut drops the jaw a little and parts the lips round it; jawOpen lowers
    its front.

    MPFB's tongueOut pushes the tongue through shut lips. The tongue's outline where it passes the lips is
    taken as an ellipse.
    """
    tongue, mouth = build.part("tongue"), build.topology.mouth
    rest = build.vertices[tongue]
    tip = np.clip((rest[:, 2] - rest[:, 2].min()) / np.ptp(rest[:, 2]), 0, 1)
    # a relaxed tongue lies behind the lower teeth when the mouth is wide open
    shapes[INDEX["jawOpen"]][tongue] += TONGUE_SINK * (tip**2 * (3 - 2 * tip))[:, None]
    shapes[INDEX["jawOpen"]][tongue, 1] -= TONGUE_FLATTEN * (rest[:, 1] - rest[:, 1].min()) * np.clip(2 * tip, 0, 1)

    out = shapes[INDEX["tongueOut"]]
    jaw = TONGUE_JAW * shapes[INDEX["jawOpen"]]
    not_tongue = np.setdiff1d(np.arange(len(out)), tongue)
    out[not_tongue] = jaw[not_tongue]
    upper, lower = lip_places()
    posed = build.vertices + out
    passing = posed[tongue]
    passing = passing[np.abs(passing[:, 2] - posed[mouth[MOUTH_SEAL][0], 2]) < 0.004]
    half = np.abs(passing[:, 0]).max() + 0.0015
    top, bottom = passing[:, 1].max() + 0.0003, passing[:, 1].min() - 0.0003
    middle, reach = (top + bottom) / 2, (top - bottom) / 2

    change = np.zeros((MOUTH_SIZE, 3))
    seal = posed[mouth[MOUTH_SEAL]]
    round_ = np.sqrt(np.clip(1 - (seal[:, 0] / half) ** 2, 0, 1))
    change[upper, 1] = np.maximum(middle + reach * round_ - seal[:, 1], 0)[upper] * (round_[upper] > 0)
    change[lower, 1] = np.minimum(middle - reach * round_ - seal[:, 1], 0)[lower] * (round_[lower] > 0)
    for places in (upper, lower):
        for _ in range(2):
            inner = change[places]
            inner[1:-1] = np.maximum(np.abs(inner[1:-1]), (np.abs(inner[:-2]) + np.abs(inner[2:])) / 2) * np.sign(
                inner[1:-1] + inner[:-2] + inner[2:])
            inner[[0, -1]] = 0
            change[places] = inner
    correction, known = np.zeros_like(out), np.zeros(len(out), bool)
    for ring in range(5, 12):
        correction[mouth[ring]] = change
        known[mouth[ring]] = True
    known[mouth[13:].ravel()] = True
    distance = np.linalg.norm(build.vertices[:, None] - build.vertices[mouth[3]][None], axis=2).min(axis=1)
    known |= build.skin & (distance > 0.018)
    out[build.skin] += build.fill(correction, known)[build.skin]
