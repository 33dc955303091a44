"""Contacts on the mesh itself: lids meet in a blink, lips meet when mouthClose counters jawOpen and do not pass
each other.

The transferred shapes come close. What is left is seen best from the front: the lowest line of everything above an
opening and the highest line of everything below it, column by column between its corners. Where the two lines are
apart that should touch, or past each other that should not be, a smooth field along the rims mends it. No rim has
to be known: the lines are where the mesh has them, whatever its topology.

At the corners of a mouth no label tells above from below, and lips that meet far inside look open. So what is left of
an opening between the lips is seen at last, in a depth map from the front, and closed where it is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.spatial import cKDTree

from ..arkit import ARKIT_NAMES, INDEX
from .mesh import unique_edges
from .register import Registration
from .teeth import front_depth

COLUMNS = 48
PASSES = 3
"""The mending field is not quite what the lines ask for; this many passes leave a few hundredths of a millimetre."""
MOST_MM = 1.5
"""Lips are mended by so much a pass at most: what seems farther off was seen wrongly."""
LID_OVERLAP_MM = 0.3
"""How far the upper lid passes the lower one in a blink."""
CORNER, LIP_CORNER = 0.1, 0.05
"""Shares of a slit's width at either end over which the mending fades. Lips are often parted close to their corners."""
SHUT_PASS_MM = 0.15
"""How far shut lips pass each other where they are parted in the neutral: a line is no finer than its columns."""
LIP_PASS_MM = 0.05
"""How much deeper than in the neutral the lips may pass each other in any shape."""
SEEN_BEHIND_MM = 2.0
"""What is seen so far behind the rims is seen through an opening."""
SEEN_CELL_MM = 0.1
SEEN_PASSES, SEEN_GAIN = 6, 0.8
"""Of the mending where it is seen: a pass that leaves more than this share of an opening is taken back."""
TOLD_BEHIND_MM, SEEN_TOLD_MM = 4.0, 0.5
"""An opening this deep and high is told: less deep, it is a fold of the lips; half as high, it is hardly visible."""
SEEN_REACH = 0.12
"""Share of the width beyond either corner that is looked at: the corners of a mesh are found to a millimetre or two."""
FREE = ("mouthRoll", "mouthClose", "tongueOut", "jawOpen", "eye", "brow", "nose")
"""Shapes whose lips are not kept from passing: rolled lips turn inward, the others do not press them together."""


@dataclass
class Slit:
    """One opening of a face: its frame and the vertices around it.

    corner (3,) and axes: `across` from corner to corner (unit, `width` mm), `up` (unit). upper and lower: indices
    of the vertices above and below, each with a weight (how surely it is on that side), and edges among them as
    pairs of places in these lists. rims: the upper and the lower one as registered, (N,3).
    """

    corner: np.ndarray
    across: np.ndarray
    up: np.ndarray
    width: float
    upper: np.ndarray
    lower: np.ndarray
    upper_weight: np.ndarray
    lower_weight: np.ndarray
    upper_edges: np.ndarray
    lower_edges: np.ndarray
    rims: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, rest: np.ndarray, triangles: np.ndarray, label: np.ndarray, loops: tuple[np.ndarray, np.ndarray],
           reach: float, depth: float) -> Slit | None:
        """The slit between two rims (upper, lower; (N,3) mm with shared ends) on the surface `rest` (n,3), whose
        vertices carry a `label` (n,) in [-1,1]. `reach`: mm that the field spreads; `depth`: mm behind the rims
        that count."""
        upper, lower = loops
        a, b = (upper[0] + lower[0]) / 2, (upper[-1] + lower[-1]) / 2
        width = float(np.linalg.norm(b - a))
        if width < 1e-6:
            return None
        across = (b - a) / width
        up = np.array([0.0, 1.0, 0.0]) - across[1] * across
        up /= np.linalg.norm(up)
        both = np.concatenate([upper, lower])
        s = (rest - a) @ across / width
        order = np.argsort((both - a) @ across)
        front = np.interp(s, ((both - a) @ across / width)[order], both[order, 2])
        middle = np.interp(s, ((both - a) @ across / width)[order], (both @ up)[order])
        near = (s > -0.15) & (s < 1.15) & (rest[:, 2] > front - depth) & (np.abs(rest @ up - middle) < 2.0 * reach)
        sides = []
        for sign in (1.0, -1.0):
            weight = np.clip(sign * label / 0.35, 0.0, 1.0)
            index = np.flatnonzero(near & (weight > 0.05))
            place = np.full(len(rest), -1)
            place[index] = np.arange(len(index))
            edges, _ = unique_edges(triangles[(place[triangles] >= 0).any(1)])
            edges = place[edges]
            sides.append((index, weight[index], edges[(edges >= 0).all(1)]))
        (ui, uw, ue), (li, lw, le) = sides
        if len(ue) < 4 or len(le) < 4:
            return None
        return cls(a, across, up, width, ui, li, uw, lw, ue, le, loops)

    def place(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share of the way across, and height, of points (...,3)."""
        local = points - self.corner
        return local @ self.across / self.width, local @ self.up

    def line(self, points: np.ndarray, edges: np.ndarray, weight: np.ndarray, sign: float) -> np.ndarray:
        """The lowest (sign 1) or highest (-1) height per column (COLUMNS,) of a side's edges; NaN where there are
        none."""
        sure = (weight > 0.3)[edges].all(1)
        s, h = self.place(points)
        t = np.linspace(0.0, 1.0, 9)[:, None]
        at = ((1 - t) * s[edges[sure, 0]] + t * s[edges[sure, 1]]).ravel()
        height = sign * ((1 - t) * h[edges[sure, 0]] + t * h[edges[sure, 1]]).ravel()
        column = np.floor(at * COLUMNS).astype(int)
        good = (column >= 0) & (column < COLUMNS)
        found = np.full(COLUMNS, np.inf)
        np.minimum.at(found, column[good], height[good])
        known = np.isfinite(found)
        if known.sum() < 3:
            return np.full(COLUMNS, np.nan)
        columns = np.arange(COLUMNS)
        return sign * np.interp(columns, columns[known], found[known])

    def gap(self, points: np.ndarray) -> np.ndarray:
        """Height (COLUMNS,) of what is above over what is below, at the posed points (n,3)."""
        return self.line(points[self.upper], self.upper_edges, self.upper_weight, 1.0) \
            - self.line(points[self.lower], self.lower_edges, self.lower_weight, -1.0)

    def seen(self, rest: np.ndarray, posed: np.ndarray, triangles: np.ndarray, behind: float = SEEN_BEHIND_MM
             ) -> tuple[np.ndarray, np.ndarray]:
        """What the posed surface leaves open in the front view: columns by their share (C,) of the width, and in each
        the height (C,) mm in which one looks `behind` mm or more behind the rims, skin above it and below."""
        frame = np.stack([self.across, self.up, np.cross(self.across, self.up)], axis=1)
        rims = []
        for rim, side in zip(self.rims, (self.upper, self.lower), strict=True):
            near = side[cKDTree(rest[side]).query(rim)[1]]
            moved = (rim + posed[near] - rest[near] - self.corner) @ frame
            rims.append(moved[np.argsort(moved[:, 0])])
        both = np.concatenate(rims)
        both = both[np.argsort(both[:, 0])]
        low = np.array([-SEEN_REACH * self.width, both[:, 1].min() - 3.0])
        high = np.array([(1.0 + SEEN_REACH) * self.width, both[:, 1].max() + 3.0])
        depth = front_depth((posed - self.corner) @ frame, triangles, low, high, SEEN_CELL_MM)
        x, y = (low[k] + SEEN_CELL_MM * (np.arange(depth.shape[k]) + 0.5) for k in (0, 1))
        top, bottom = (np.interp(x, rim[:, 0], rim[:, 1])[:, None] for rim in rims)
        solid = depth >= (np.interp(x, both[:, 0], both[:, 2]) - behind)[:, None]
        between = np.maximum.accumulate(solid, axis=1) & np.maximum.accumulate(solid[:, ::-1], axis=1)[:, ::-1]
        near_rims = (y < np.maximum(top, bottom) + 2.0) & (y > np.minimum(top, bottom) - 2.0)
        return x / self.width, (between & ~solid & near_rims).sum(1) * SEEN_CELL_MM

    def field(self, rest: np.ndarray, posed: np.ndarray, lift: np.ndarray, upper: bool, reach: float,
              at: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Indices of one side and the displacements (m,3) that lift its rim by `lift` (C,) where it is posed, and fade
        over `reach` mm of the neutral. `at` (C,): shares of the width that `lift` belongs to, else the COLUMNS."""
        index, weight, edges = (self.upper, self.upper_weight, self.upper_edges) if upper else \
            (self.lower, self.lower_weight, self.lower_edges)
        s, h = self.place(rest[index])
        centre = (np.arange(COLUMNS) + 0.5) / COLUMNS
        rim = np.interp(s, centre, self.line(rest[index], edges, weight, 1.0 if upper else -1.0))
        away = np.clip(1.0 - np.abs(h - rim) / reach, 0.0, 1.0)
        now, _ = self.place(posed[index])
        inside = (now > 0) & (now < 1) if at is None else (now > at[0]) & (now < at[-1])
        fade = away * away * (3.0 - 2.0 * away) * weight * inside
        return index, (fade * np.interp(now, centre if at is None else at, lift))[:, None] * self.up


def window(corner: float = CORNER) -> np.ndarray:
    """(COLUMNS,) 1 along the slit, fading to 0 at its ends over the share `corner` of its width."""
    at = (np.arange(COLUMNS) + 0.5) / COLUMNS
    t = np.clip(np.minimum(at, 1.0 - at) / corner, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def blurred(values: np.ndarray, passes: int = 2) -> np.ndarray:
    for _ in range(passes):
        values = np.convolve(np.pad(values, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    return values


def widest(values: np.ndarray, steps: int = 1) -> np.ndarray:
    """Each value or the smallest of its neighbours: a coarse rim must close at its middles too."""
    padded = np.pad(values, steps, mode="edge")
    return np.min([padded[k: k + len(values)] for k in range(2 * steps + 1)], axis=0)


def seal(result: Registration, rest: np.ndarray, triangles: np.ndarray, labels: np.ndarray, deltas: np.ndarray) -> None:
    """Mend `deltas` (52,n,3) of the skin `rest` (n,3) in place: blinks, mouthClose over jawOpen, lips past each
    other."""
    template = result.prepared.template

    def loops(upper: str, lower: str) -> tuple[np.ndarray, np.ndarray]:
        return result.vertices[template.loops[upper]], result.vertices[template.loops[lower]]

    for side in ("left", "right"):
        slit = Slit.of(rest, triangles, labels[:, 1], loops(f"lid_upper_{side}", f"lid_lower_{side}"), 9.0, 4.0)
        if slit is not None:
            _close_lids(slit, rest, deltas[INDEX[f"eyeBlink{side.capitalize()}"]])
    lips = Slit.of(rest, triangles, labels[:, 0], loops("lip_upper_inner", "lip_lower_inner"), 12.0, 7.0)
    if lips is None:
        return
    still = lips.gap(rest)
    for name in ARKIT_NAMES:
        if not name.startswith(FREE):
            _keep_apart(lips, rest, deltas[INDEX[name]], np.minimum(still, 0.0))  # lips parted there may meet
    jaw, close = deltas[INDEX["jawOpen"]], deltas[INDEX["mouthClose"]]
    _close_lips(lips, rest, jaw, close, still)
    left = _close_seen(lips, rest, triangles, jaw, close)
    if left > SEEN_TOLD_MM:
        result.warnings.append(f"With jawOpen and mouthClose the lips stay {left:.1f} mm apart: close them in the "
                               "shape mouthClose, or give the mesh more edges at the mouth's corners.")


def _close_lids(slit: Slit, rest: np.ndarray, blink: np.ndarray) -> None:
    goal = -LID_OVERLAP_MM * np.sin(np.pi * (np.arange(COLUMNS) + 0.5) / COLUMNS)
    for _ in range(PASSES):
        need = window() * np.clip(widest(goal - slit.gap(rest + blink)), -3.0, 0.0)  # closes more, never opens again
        if not np.isfinite(need).all() or need.min() > -0.03:
            return
        for upper, share in ((True, 0.85), (False, -0.15)):
            index, move = slit.field(rest, rest + blink, share * blurred(need, 1), upper, 7.0)
            blink[index] += move


def _close_lips(slit: Slit, rest: np.ndarray, jaw: np.ndarray, close: np.ndarray, still: np.ndarray) -> None:
    """To the neutral's distance where lips touch there; where they are parted, only ever more shut."""
    parted = still > 0.0
    goal = np.where(parted, -SHUT_PASS_MM, still)
    for _ in range(PASSES):
        off = np.clip(goal - slit.gap(rest + jaw + close), -MOST_MM, MOST_MM)
        need = window(LIP_CORNER) * np.where(parted, np.minimum(off, 0.0), off)
        if not np.isfinite(need).all() or np.abs(need).max() < 0.03:
            return
        for upper, share in ((True, 0.35), (False, -0.65)):
            index, move = slit.field(rest, rest + jaw + close, share * blurred(need, 1), upper, 10.0)
            close[index] += move


def _close_seen(slit: Slit, rest: np.ndarray, triangles: np.ndarray, jaw: np.ndarray, close: np.ndarray) -> float:
    """Close what is still seen open, corners and all, by as much as is seen. Returns the height (mm) that is left,
    see TOLD_BEHIND_MM."""
    at, height = slit.seen(rest, rest + jaw + close, triangles)
    for _ in range(SEEN_PASSES):
        if height.max() < SEEN_CELL_MM:
            break
        before = close.copy()
        steps = max(3, round(0.02 * slit.width / SEEN_CELL_MM))  # as smooth as two of the COLUMNS
        need = np.minimum(uniform_filter1d(maximum_filter1d(height, 2 * steps), steps), MOST_MM)
        for upper, share in ((True, -0.35), (False, 0.65)):
            index, move = slit.field(rest, rest + jaw + close, share * need, upper, 10.0, at)
            close[index] += move
        now, left = slit.seen(rest, rest + jaw + close, triangles)
        if left.sum() > SEEN_GAIN * height.sum():  # what does not close so would only press the lips together elsewhere
            close[:] = before
            break
        at, height = now, left
    return float(slit.seen(rest, rest + jaw + close, triangles, TOLD_BEHIND_MM)[1].max())


def _keep_apart(slit: Slit, rest: np.ndarray, delta: np.ndarray, still: np.ndarray) -> None:
    for _ in range(PASSES):
        need = window() * np.clip(still - LIP_PASS_MM - slit.gap(rest + delta), 0.0, MOST_MM)
        if not np.isfinite(need).all() or need.max() < 0.03:
            return
        for upper, share in ((True, 0.5), (False, -0.5)):
            index, move = slit.field(rest, rest + delta, share * blurred(need, 1), upper, 10.0)
            delta[index] += move
