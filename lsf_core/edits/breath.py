"""Breath: the mouth parts, nostrils and brows lift a little where a speaker draws breath.

Breath groups last 3.5 s in spontaneous speech (Rochet-Capellan and Fuchs 2013, Interspeech, 2014-2018); breathing in
takes less than a second (Autesserre, Nishinuma and Guaitella 1989, Eurospeech, 2433); the longer the utterance to come,
the deeper the breath before it (Winkworth, Davis, Adams and Ellis 1995, JSHR 38:124). So each pause that is long enough
gets a breath which ends as the next phrase begins, deep in measure of that phrase.
"""

from __future__ import annotations

import numpy as np

from ..arkit import INDEX
from ..arrays import like
from ..cues import SoundCues
from ..filters import smoothstep
from ..motion import Motion
from .chance import stream

SHORTEST_PAUSE = 0.35  # seconds: pauses under it are held, not used to breathe in
LONGEST = 0.7  # seconds of one breath
LONG_PHRASE = 3.5  # seconds: a phrase of this length and longer takes the deepest breath
_STREAM = 0xB4

SHAPES = {"jawOpen": 0.008, "mouthLowerDownLeft": 0.1, "mouthLowerDownRight": 0.1, "noseSneerLeft": 0.02,
          "noseSneerRight": 0.02, "browInnerUp": 0.06}  # fmt: skip
"""Weights at the deepest point of a deep breath: lips a millimetre apart, by shapes that move little else, as a mouth
that works in a pause seems to speak."""


def add_breath(motion: Motion, cues: SoundCues, *, seed: int = 0, strength: float = 1.0) -> Motion:
    """The motion with a breath in each pause before a phrase that has room for it."""
    times = np.arange(len(motion)) / motion.fps
    rng = stream(_STREAM, seed)
    depth = np.zeros(len(motion))
    before = 0.0
    for start, end in cues.phrases():
        pause, chance = start - before, rng.uniform(0.7, 1.0)
        before = end
        if pause < SHORTEST_PAUSE:
            continue
        size = chance * (0.4 + 0.6 * min((end - start) / LONG_PHRASE, 1.0))
        length = min(0.8 * pause, LONGEST)
        span = slice(*np.searchsorted(times, (start - length, start)))
        done = (times[span] - (start - length)) / length
        # The breath is drawn until shortly before the phrase, then the lips make ready for its first sound.
        depth[span] = size * smoothstep(done, 0.0, 0.7) * (1 - smoothstep(done, 0.75, 1.0))
    weights = 1 * motion.weights
    for name, weight in SHAPES.items():
        weights[:, INDEX[name]] += like((strength * weight * depth).astype(np.float32), weights)
    return motion.with_weights(weights)
