"""Blinks and gaze of a face whose speech is still coming in: the same plans as for a take, made a minute at a time.

The first minute has the blinks and looks that a take of the same seed would have if nothing were known of its phrases.
A blink that comes soon may still be drawn to the end of a phrase that was just heard; one that came before it cannot.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from .blink import MIN_GAP, PHRASE_PULL, PHRASE_REACH, Blink, close_lids, closes_by_itself, plan_blinks, stares
from .chance import stream
from .gaze import gaze_stream, look, plan_gaze
from .settings import EditSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

BLOCK_SECONDS = 60.0
"""So long a plan is; memory stays the same however long the sound."""

PATIENCE_SECONDS = 1.5
"""A blink waits so long for widened eyes to narrow, see add_blinks."""

AFTER_PHRASE = 0.08
"""Seconds after the end of a phrase at which a blink drawn to it comes."""

_PULL_STREAM = 0xB2


class LiveEyes:
    """Adds gaze and blinks to frames that come in order at `fps`."""

    def __init__(self, settings: EditSettings, fps: float, seed: int) -> None:
        self._settings, self._fps, self._seed = settings, fps, seed
        self._gaze_rng, self._pull_rng = gaze_stream(seed), stream(_PULL_STREAM, seed)
        self._gaze = plan_gaze(BLOCK_SECONDS, np.zeros(0), self._gaze_rng)
        self._gaze_start = 0.0
        self._planned_to = 0.0
        self._coming: deque[Blink] = deque()
        self._running: Blink | None = None
        self._last_blink = -MIN_GAP

    def add(self, weights: Floats, first: int, phrase_end: float | None) -> Floats:
        """Weights (n, 52) of the frames from `first` on with their gaze and blinks; phrase_end: seconds at which the
        last phrase ended that ended among them, None if none did."""
        times = (first + np.arange(len(weights))) / self._fps
        if self._settings.gaze:
            yaw, pitch = np.array([self._gaze_at(time) for time in times.tolist()]).reshape(-1, 2).T
            weights = look(weights, self._settings.gaze * yaw, self._settings.gaze * pitch)
        if self._settings.blink:
            self._draw_to(phrase_end)
            own, wide = closes_by_itself(weights), stares(weights)
            lid = [self._lid(*frame) for frame in zip(times.tolist(), own, wide, strict=True)]
            weights = close_lids(weights, np.array(lid))
        return weights

    def _gaze_at(self, time: float) -> Floats:
        while time >= self._gaze_start + BLOCK_SECONDS:
            self._gaze = plan_gaze(BLOCK_SECONDS, np.zeros(0), self._gaze_rng)
            self._gaze_start += BLOCK_SECONDS
        return self._gaze.at(np.array([time - self._gaze_start]))[:, 0]

    def _draw_to(self, phrase_end: float | None) -> None:
        """Let the next blink come as the phrase has ended, by the same odds as in plan_blinks."""
        if phrase_end is None or self._pull_rng.random() >= PHRASE_PULL or not self._coming:
            return
        blink, soon = self._coming[0], phrase_end + AFTER_PHRASE
        if 0.0 < blink.time - soon < PHRASE_REACH:
            self._coming[0] = Blink(soon, blink.closing, blink.closed, blink.opening)

    def _lid(self, time: float, own: bool, wide: bool) -> float:
        """How far the lids are closed at a frame, 0 to 1; the frames are asked for in order."""
        if time >= self._planned_to:
            self._plan()
        running = self._running
        if running is not None and time > running.time + running.closed + running.opening:
            running = self._running = None
        if running is None and self._coming and time >= self._coming[0].time - self._coming[0].closing:
            blink = self._coming[0]
            late = time - (blink.time - blink.closing)
            if own or late > PATIENCE_SECONDS or time - self._last_blink < MIN_GAP / 2:
                self._coming.popleft()
            elif not wide:
                self._coming.popleft()
                # One frame holds the closed lids, even at 24 fps.
                shut = np.ceil((time + blink.closing) * self._fps - 1e-6) / self._fps
                running = self._running = Blink(shut, blink.closing, blink.closed, blink.opening)
                self._last_blink = shut
        return 0.0 if running is None else float(running.lid(np.array([time]))[0])

    def _plan(self) -> None:
        """The blinks of the next block; each block has chances of its own."""
        start, block = self._planned_to, round(self._planned_to / BLOCK_SECONDS)
        planned = plan_blinks(BLOCK_SECONDS, seed=abs(self._seed) + 1_000_003 * block, strength=self._settings.blink)
        self._coming.extend(Blink(start + b.time, b.closing, b.closed, b.opening) for b in planned)
        self._planned_to = start + BLOCK_SECONDS
