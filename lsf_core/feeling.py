"""Feeling: whose emotion a face shows where it is not the clip's own; what artists may ask for, checked.

The voice alone decides unless asked otherwise: by another recording ("say this as she says that"), by weights of named
emotions, or both. Numpy alone, so that a mistyped emotion is told before the network is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arkit import EMOTIONS
from .audio import check_speech, voice_activity
from .cues import CUE_RATE
from .errors import AudioError, LSFError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Feeling:
    """How one clip shall feel. reference: (C,) float32, what `Animator.hear_emotion` heard in another recording, None
    for the clip's own emotion; shares: (7,) float32 of arkit.EMOTIONS, see `emotion_shares`, None for none of them."""

    reference: NDArray[Any] | None = None
    shares: NDArray[Any] | None = None

    @property
    def is_as_heard(self) -> bool:
        """Whether nothing but the clip's own voice decides."""
        return self.reference is None and self.shares is None


MIN_SPOKEN = 0.5
"""Seconds. In the demo's first 0.6 s the network hears nearly the same feeling as in the whole of it (cosine 0.8), in
its first 0.3 s it hears another one (0.3)."""

AS_HEARD = Feeling()
"""As the clip's own voice feels."""


def spoken_frames(samples: NDArray[Any], name: str) -> NDArray[np.bool_]:
    """Where somebody speaks in an emotion reference, (F,) bool at 50 Hz, of samples (N,) float at 16 kHz.

    Raises AudioError, with what `name` calls it, if that is nowhere or for less than MIN_SPOKEN seconds.
    """
    title = f"The emotion reference '{name}'" if name else "The emotion reference"
    check_speech(samples, title)
    spoken = voice_activity(samples, CUE_RATE)
    seconds = spoken.sum() / CUE_RATE
    if seconds < MIN_SPOKEN:
        raise AudioError(f"{title} holds {seconds:.2f} s of speech; a feeling is heard in {MIN_SPOKEN:g} s or more. "
                         "Choose a longer one.")
    return spoken


def emotion_shares(mix: Mapping[str, float] | None) -> NDArray[np.float32] | None:
    """Shares (7,) of arkit.EMOTIONS for weights by name, 0 to 1 each; None for no mix.

    What they lack to a sum of 1 stays as heard; a sum over 1 is scaled down to 1. Raises LSFError for a name that there
    is not and a weight out of range.
    """
    if not mix:
        return None
    if not isinstance(mix, Mapping):
        raise LSFError(f"The emotion mix is {mix!r}; it must be a table of names and weights, such as happy 0.6.")
    shares = np.zeros(len(EMOTIONS), np.float32)
    for name, weight in mix.items():
        if name not in EMOTIONS:
            raise LSFError(f"There is no emotion called '{name}'; there are {', '.join(EMOTIONS)}.")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:  # NaN is not
            raise LSFError(f"The weight of the emotion '{name}' is {weight!r}; it must be a number from 0 to 1.")
        shares[EMOTIONS.index(name)] = weight
    return shares / max(1.0, float(shares.sum()))


def parse_mix(text: str) -> dict[str, float]:
    """The mix that 'happy=0.6, fear=0.2' says; {} for an empty text. Raises LSFError."""
    mix: dict[str, float] = {}
    for part in text.split(",") if text.strip() else []:
        name, _, weight = (piece.strip() for piece in part.partition("="))
        if name in mix:
            raise LSFError(f"The emotion mix '{text}' names '{name}' twice. Give each emotion one weight.")
        try:
            mix[name] = float(weight)
        except ValueError:
            raise LSFError(f"The emotion mix '{text}' cannot be read at '{part.strip()}'. "
                           "Write it like 'happy=0.6,fear=0.2'.") from None
    emotion_shares(mix)
    return mix


def mix_text(mix: Mapping[str, float]) -> str:
    """The mix as `parse_mix` reads it, in one spelling, without what has no weight."""
    return ",".join(f"{name}={mix[name]:g}" for name in EMOTIONS if mix.get(name))
