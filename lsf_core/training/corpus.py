"""The training corpus: licensed speech with phones, in takes whose face is synthesised (`performance.perform`).

A *take* is 5 to 30 s of one voice in one emotion, laid end to end with pauses, spoken at a random rate (which also
shifts pitch and formants: one more voice) by a random identity. Every pass over the data makes new takes.
facegood's takes have the animator's own curves instead (`captured.py`).
Only sets whose licence lets anyone use the result are read: data/speech, EMO-DB and facegood (assets/LICENSES.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

from ..arkit import ARKIT_NAMES, EMOTIONS, IDENTITY_DIM
from ..audio import SAMPLE_RATE, load_audio
from ..speech import SAMPLES_PER_FRAME
from .performance import Style, blur, perform
from .processes import ALONE, Processes

# Never trained on, so that figures on them are figures on unseen speakers.
HELD_OUT_VOICES = ("af_bella", "bm_george", "im_nicola", "am_puck")
HELD_OUT_ACTORS = ("emodb_15", "emodb_16")

MIN_TAKE, MAX_TAKE = 9.0, 24.0      # seconds
# Speaking rate; few actors are stretched to more voices.
RATE_RANGE = {"speech": (0.86, 1.16), "emodb": (0.80, 1.25), "surprise": (0.85, 1.15)}
NEUTRAL_SHARE = 0.25                # most speech is plain: what cannot be told must not be taken for a feeling



@dataclass(frozen=True)
class Utterance:
    """One recording: phones [(label, start, end)] in seconds, stress per phone or None."""

    path: Path
    speaker: str
    emotion: str
    seconds: float
    phones: tuple[tuple[str, float, float], ...]
    stress: tuple[int, ...] | None
    corpus: str
    language: str
    intensity: float = 1.0


@dataclass
class Take:
    """Audio (N,) int16 at 16 kHz and its face at 50 Hz: neutral and emotional (F, 52) float16, the phone masks
    closure and vowel (F,) float16, the identity (32,) whose style it is. emotion: what the face plays, one of EMOTIONS;
    heard in the audio only where the corpus is acted. free (F,) float16: 1 where someone speaks and no lips touch, 0
    where nobody does or they do; seen (52,) bool: shapes that the take knows."""

    audio: np.ndarray
    neutral: np.ndarray
    emotional: np.ndarray
    closure: np.ndarray
    vowel: np.ndarray
    free: np.ndarray
    identity: np.ndarray
    corpus: str
    emotion: str
    seen: np.ndarray = field(default_factory=lambda: np.ones(len(ARKIT_NAMES), bool))


def read_speech(root: Path) -> list[Utterance]:
    """data/speech: synthesised speech with exact phones. Its `intended_feeling` only pushed pitch, energy and tempo,
    nothing was acted: nobody could hear an emotion in it (see `make_take` for the one its face plays)."""
    rows = (json.loads(line) for line in (root / "speech" / "manifest.jsonl").read_text("utf-8").splitlines())
    return [Utterance(root / "speech" / r["file"], r["speaker"], "neutral", r["seconds"],
                      tuple((p, a, b) for p, a, b in r["phones"]), tuple(r["stress"]), "speech", r["language"])
            for r in rows]


def read_emodb(root: Path) -> list[Utterance]:
    """EMO-DB (Burkhardt et al. 2005): acted German emotions with hand labelled phones. How surely listeners recognised
    the emotion sets how strongly the face shows it. Its boredom counts as neutral: a network that played it heard it
    in every calm speaker and let their lids hang (docs/checkpoint.md)."""
    return _read_acted(root / "emotional_speech" / "emodb", "emodb")


def read_surprise(root: Path) -> list[Utterance]:
    """EMO-DB's happy voices, resynthesised as surprised ones (`surprise.py`); [] where that was not done."""
    folder = root / "emotional_speech" / "surprise"
    return _read_acted(folder, "surprise") if (folder / "manifest.jsonl").is_file() else []


def _read_acted(folder: Path, corpus: str) -> list[Utterance]:
    rows = (json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines())
    names = {"anger": "angry", "happiness": "happy", "sadness": "sad", "boredom": "neutral"}
    return [Utterance(folder / r["file"], r["speaker"], names.get(r["emotion"], r["emotion"]), r["seconds"],
                      tuple((p, a, min(b, r["seconds"])) for p, a, b in r["phones"] if a < r["seconds"]), None,
                      corpus, "de",
                      0.5 + 0.5 * r["recognised_percent"] / 100 if r.get("recognised_percent") is not None else 0.9)
            for r in rows if r["phones"]]


def is_held_out(utterance: Utterance) -> bool:
    """Whether its speaker (or a voice mixed into it) is kept for evaluation."""
    return bool({*HELD_OUT_VOICES, *HELD_OUT_ACTORS} & set(utterance.speaker.split("+")))


def plan_takes(utterances: Iterable[Utterance], rng: np.random.Generator) -> list[list[Utterance]]:
    """Group utterances into takes of one speaker and one emotion, MIN_TAKE to MAX_TAKE long, in random order.

    Speakers with too little material share a take with others of their kind: the network hears voices change, too.
    """
    shelves: dict[tuple[str, str, str], list[Utterance]] = {}
    for u in utterances:
        shelves.setdefault((u.corpus, u.emotion, u.speaker), []).append(u)
    takes: list[list[Utterance]] = []
    for key in sorted(shelves):
        shelf = shelves[key]
        rng.shuffle(shelf)  # type: ignore[arg-type]
        take: list[Utterance] = []
        target = rng.uniform(MIN_TAKE, MAX_TAKE)
        for u in shelf:
            take.append(u)
            if sum(v.seconds for v in take) > target:
                takes.append(take)
                take, target = [], rng.uniform(MIN_TAKE, MAX_TAKE)
        if take:
            takes.append(take)
    return takes


def make_take(utterances: list[Utterance], seed: int) -> Take:
    """Lay the utterances end to end, change the voice by the speaking rate, and let an identity perform them.

    Synthesised speech has no emotion to hear. Its face plays a random one, which `windows.Mixture` feeds to the
    emotion stream from an acted recording: if such speech were trained as neutral, the network would learn that a
    clean voice feels nothing and a noisy one does.
    """
    rng = np.random.default_rng(seed)
    first = utterances[0]
    rate = float(np.exp(rng.uniform(*np.log(RATE_RANGE[first.corpus]))))
    pieces, phones, stress = [], [], []
    now = 0.0
    for u in utterances:
        samples = load_audio(u.path)
        level = 10 ** (rng.uniform(-3, 3) / 20)
        pieces.append(samples * level)
        phones += [(p, now + a, now + b) for p, a, b in u.phones]
        stress += list(u.stress) if u.stress is not None else [0] * len(u.phones)
        now += len(samples) / SAMPLE_RATE
        gap = rng.uniform(0.05, 0.6)
        pieces.append(np.zeros(int(gap * SAMPLE_RATE), np.float32))
        phones.append(("sil", now, now + len(pieces[-1]) / SAMPLE_RATE))
        stress.append(0)
        now += len(pieces[-1]) / SAMPLE_RATE
    short = MIN_TAKE - now / rate
    if short > 0:
        pieces.append(np.zeros(int(short * rate * SAMPLE_RATE), np.float32))
    audio = np.concatenate(pieces)
    audio = soxr.resample(audio, SAMPLE_RATE * rate, SAMPLE_RATE).astype(np.float32)
    audio = audio[: len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    identity = rng.standard_normal(IDENTITY_DIM).astype(np.float32)
    emotion = first.emotion
    if first.corpus == "speech" and rng.random() > NEUTRAL_SHARE:
        emotion = EMOTIONS[int(rng.integers(1, len(EMOTIONS)))]
    played = perform([(p, a / rate, b / rate) for p, a, b in phones],
                     stress if any(stress) else None, audio, emotion=emotion, language=first.language,
                     intensity=float(np.mean([u.intensity for u in utterances])), style=Style.from_identity(identity),
                     seed=seed)
    frames = len(audio) // SAMPLES_PER_FRAME
    assert abs(len(played.neutral) - frames) <= 1, (len(played.neutral), frames)
    free = blur(played.speech.astype(np.float64), 0.1) * (1 - np.maximum(played.closure, played.tuck))
    neutral, emotional, closure, vowel, free = (np.asarray(x, np.float16)[:frames] for x in (
        played.neutral, played.emotional, played.closure, played.vowel, free))
    return Take(as_int16(audio), neutral, emotional, closure, vowel, free, identity, first.corpus, emotion)


def as_int16(audio: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] at half the memory."""
    return (np.clip(audio, -1, 1) * 32767).astype(np.int16)


def _make(job: tuple[list[Utterance], int]) -> Take:
    return make_take(*job)


def make_takes(utterances: list[Utterance], passes: int, seed: int, workers: int,
               processes: Processes = ALONE) -> Iterator[Take]:
    """`passes` passes over the utterances, each with takes, rates and identities of its own. Of several processes each
    makes its share of them."""
    rng = np.random.default_rng(seed)
    jobs = processes.share([(take, int(rng.integers(2**31)))
                            for _ in range(passes) for take in plan_takes(utterances, rng)])
    if workers <= 1:
        yield from map(_make, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_make, jobs, chunksize=4)
