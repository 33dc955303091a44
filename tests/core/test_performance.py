"""The performance synthesis keeps its promises: closures touch, vowels open, feelings show, silence rests."""

import numpy as np
import pytest

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.errors import LSFError
from lsf_core.lips import GAP_ROW
from lsf_core.training.baseline import energy_motion
from lsf_core.training.emotion import FEELINGS
from lsf_core.training.gestures import CLASSES, GestureConstants, build_score, class_of, smooth
from lsf_core.training.performance import Style, perform
from lsf_core.training.phones import _ARPABET, _FEATURES, canonical, halves

SIGNATURES = {
    "happy": ("mouthSmile", "cheekSquint"),
    "sad": ("browInnerUp", "mouthFrown"),
    "angry": ("browDown", "noseSneer", "mouthPress"),
    "surprise": ("browOuterUp", "eyeWide"),
    "fear": ("browInnerUp", "eyeWide", "mouthStretch"),
    "disgust": ("noseSneer", "mouthUpperUp"),
}


def phones(text):
    return text.split()


WORDS = phones("m a m a p i p o b u b ɛ f ɪ v a t o s ə k i n w u l d j ɔ h ɑ m æ p ʌ b")


def clip(words=WORDS, length=0.1, before=1.0, after=1.5, pause_at=None):
    """A clip (phones, stress, audio): silence, the phones (vowels half longer), silence. Vowels are loud."""
    rng = np.random.default_rng(3)
    rows, marks, t = [("sil", 0.0, before)], [0], before
    for i, ipa in enumerate(words):
        vowel = _FEATURES[halves(ipa)[0]].vowel
        d = length * (1.5 if vowel else 1.0)
        rows.append((ipa, t, t + d))
        marks.append(1 if vowel and i % 4 == 1 else 0)
        t += d
        if i == pause_at:
            rows.append(("sil", t, t + 1.0))
            marks.append(0)
            t += 1.0
    rows.append(("sil", t, t + after))
    marks.append(0)
    audio = 1e-5 * rng.standard_normal(round((t + after) * 16000))
    for ipa, a, b in rows:
        if ipa != "sil":
            f = _FEATURES[halves(ipa)[0]]
            loud = 0.3 if f.vowel else 0.003 if f.manner == "stop" else 0.06
            i, j = round(a * 16000), round(b * 16000)
            audio[i:j] += loud * np.sin(2 * np.pi * 140 * np.arange(j - i) / 16000)
    return rows, marks, audio.astype(np.float32)


def middles(rows, wanted):
    return [(ipa, round((a + b) / 2 * 50)) for ipa, a, b in rows if ipa in wanted]


def shape(weights, name):
    return weights[:, [INDEX[n] for n in (name, name + "Left", name + "Right") if n in INDEX]].mean(1)


@pytest.mark.parametrize("emotion", list(FEELINGS))
def test_lips_touch_on_every_bilabial_in_every_feeling(emotion):
    rows, stress, audio = clip()
    made = perform(rows, stress, audio, emotion=emotion, intensity=1.4)
    for weights in (made.neutral, made.emotional):
        gap = weights @ GAP_ROW
        for ipa, frame in middles(rows, {"p", "b", "m"}):
            assert gap[frame - 1 : frame + 2].max() <= 0.01, (ipa, frame)
            assert gap[frame] > -3.0, "pressed, not crushed"
        assert made.closure[[f for _, f in middles(rows, {"p", "b", "m"})]].min() == 1


def test_lips_touch_for_every_style_and_on_another_face():
    rows, stress, audio = clip()
    rng = np.random.default_rng(0)
    for k in range(12):
        row = GAP_ROW * rng.uniform(0.7, 1.3, len(GAP_ROW))
        made = perform(
            rows,
            stress,
            audio,
            emotion="happy",
            style=Style.from_identity(1.5 * rng.standard_normal(32)),
            seed=k,
            gap_row=row,
        )
        for weights in (made.neutral, made.emotional):
            assert (weights @ row)[made.closure >= 1].max() <= 0.01


def test_short_bilabials_touch_too():
    rows, stress, audio = clip(length=0.035)
    made = perform(rows, stress, audio)
    gap = made.neutral @ GAP_ROW
    for _, a, b in (r for r in rows if r[0] in "pbm"):
        assert gap[int(np.floor(a * 50)) : int(np.ceil(b * 50)) + 1].min() <= 0.01


@pytest.mark.parametrize("emotion", list(FEELINGS))
def test_vowels_next_to_closures_open(emotion):
    rows, stress, audio = clip(length=0.07)
    gap = np.maximum(perform(rows, stress, audio, emotion=emotion).emotional @ GAP_ROW, 0)
    limit = 0.08 * np.percentile(gap, 95)
    open_vowels = middles(rows, {"a", "ɑ", "æ", "ɔ", "ʌ"})
    assert sum(gap[f] <= limit for _, f in open_vowels) <= 0.03 * len(open_vowels)


def test_open_vowels_open_wider_than_close_ones_and_loud_ones_wider_than_soft():
    rows, _, audio = clip(phones("t a t i t a t i t a t i"))
    jaw = perform(rows, None, audio).neutral[:, INDEX["jawOpen"]]
    a, i = ([jaw[f] for _, f in middles(rows, {v})] for v in "ai")
    assert min(a) > 1.3 * max(i)
    half = len(audio) // 2
    soft = audio.copy()
    soft[half:] *= 0.1
    jaw = perform(rows, None, soft).neutral[:, INDEX["jawOpen"]]
    frames = [f for _, f in middles(rows, {"a"})]
    assert jaw[frames[0]] > 1.2 * jaw[frames[-1]]


def test_labiodentals_tuck_the_lower_lip():
    rows, stress, audio = clip(phones("t a f a v i f o t a v a"))
    made = perform(rows, stress, audio)
    roll, gap = made.neutral[:, INDEX["mouthRollLower"]], made.neutral @ GAP_ROW
    for _, frame in middles(rows, {"f", "v"}):
        assert roll[frame] > 0.2
        assert gap[frame] < 1.5
    for _, frame in middles(rows, {"a"}):
        assert roll[frame] < 0.1


@pytest.mark.parametrize("emotion", ["neutral", "happy", "fear"])
def test_rounding_is_seen_and_starts_early(emotion):
    rows, stress, audio = clip(phones("t i t u t i s w i t o t i k ʊ t e t ɛ n"))
    made = perform(rows, stress, audio, emotion=emotion).emotional
    value = (
        shape(made, "mouthPucker")
        + shape(made, "mouthFunnel")
        - shape(made, "mouthSmile")
        - shape(made, "mouthStretch")
    )
    rounded = [value[f] for _, f in middles(rows, {"u", "o", "w", "ʊ"})]
    spread = [value[f] for _, f in middles(rows, {"i", "e", "ɛ"})]
    assert min(rounded) > max(spread)
    start = next(a for ipa, a, _ in rows if ipa == "u")
    pucker = shape(made, "mouthPucker")
    assert pucker[round((start - 0.04) * 50)] > 0.15 * pucker[round(start * 50) :][:10].max()


def test_diphthongs_move():
    rows, _, audio = clip(["t", "aʊ", "t"], length=0.2)
    made = perform(rows, None, audio).neutral
    _, a, b = rows[2]
    early, late = round((a + 0.3 * (b - a)) * 50), round((a + 0.85 * (b - a)) * 50)
    assert made[early, INDEX["jawOpen"]] > 1.2 * made[late, INDEX["jawOpen"]]
    assert made[late, INDEX["mouthPucker"]] > made[early, INDEX["mouthPucker"]] + 0.05


@pytest.mark.parametrize("emotion", list(FEELINGS))
def test_silence_is_still(emotion):
    rows, stress, audio = clip(pause_at=15)
    made = perform(rows, stress, audio, emotion=emotion)
    mouth = [i for i, n in enumerate(ARKIT_NAMES) if n.startswith(("mouth", "jaw"))]
    speed = np.abs(np.diff(made.emotional[:, mouth], axis=0)).mean(1)
    grown = np.convolve(made.speech, np.ones(11), "same") > 0.5
    assert speed[~grown[1:]].mean() < 0.1 * speed[made.speech[1:]].mean()
    assert made.neutral[-10:, INDEX["jawOpen"]].max() < 0.01


@pytest.mark.parametrize("emotion", list(SIGNATURES))
def test_feelings_show_their_signature(emotion):
    rows, stress, audio = clip(pause_at=15)
    means = {e: perform(rows, stress, audio, emotion=e).emotional for e in FEELINGS}
    for name in SIGNATURES[emotion]:
        mine = shape(means[emotion], name).mean()
        assert mine > shape(means["neutral"], name).mean() + 0.08, name
    score = {e: np.mean([shape(w, n).mean() for n in SIGNATURES[emotion]]) for e, w in means.items()}
    assert max(score, key=score.get) == emotion


def test_stronger_feelings_show_more_and_none_at_zero():
    rows, stress, audio = clip()
    for emotion, names in SIGNATURES.items():
        acted = [perform(rows, stress, audio, emotion=emotion, intensity=k).emotional for k in (0.0, 0.5, 1.0, 1.5)]
        levels = [sum(shape(w, n).mean() for n in names) for w in acted]
        assert np.all(np.diff(levels) > 0.03), emotion
        assert np.array_equal(acted[0], perform(rows, stress, audio).neutral)


def test_feelings_live():
    """Not a frozen mask: brows rise with accents and fade after the last word."""
    rows, stress, audio = clip(after=3.0)
    made = perform(rows, stress, audio, emotion="surprise").emotional
    brow = shape(made, "browOuterUp")
    speech = perform(rows, stress, audio).speech
    assert brow[speech].std() > 0.03
    assert brow[-5:].mean() < 0.6 * brow[speech].mean()
    assert brow[0] < 0.6 * brow[speech].mean()


def test_same_input_same_take_other_seed_other_take():
    rows, stress, audio = clip()
    one, two, other = (perform(rows, stress, audio, emotion="happy", seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.emotional, two.emotional)
    assert not np.array_equal(one.emotional, other.emotional)


@pytest.mark.parametrize("emotion", list(FEELINGS))
def test_bounds_shape_and_speed_limits(emotion):
    rows, stress, audio = clip()
    made = perform(rows, stress, audio, emotion=emotion, intensity=2.0, style=Style.from_identity(np.full(32, 2.0)))
    frames = int(np.ceil(len(audio) / 320 - 1e-9))
    for weights in (made.neutral, made.emotional):
        assert weights.shape == (frames, 52)
        assert weights.dtype == np.float32
        assert np.isfinite(weights).all()
        assert weights.min() >= 0
        assert weights.max() <= 1
        assert np.abs(np.diff(weights[:, INDEX["jawOpen"]])).max() < 0.20, "measured jaws reach 10 per second"
    assert made.closure.shape == made.tuck.shape == made.speech.shape == (frames,)


def test_style_is_a_smooth_function_of_the_face():
    rng = np.random.default_rng(1)
    values = []
    for _ in range(200):
        x = rng.standard_normal(32)
        a, b = Style.from_identity(x), Style.from_identity(x + 0.02 * rng.standard_normal(32))
        gains = [a.jaw, a.lips, a.rounding, a.spread, a.clarity, a.upper_face, a.expression]
        assert 0.74 < min(gains) <= max(gains) < 1.31
        assert abs(a.asymmetry) <= 0.15
        assert abs(a.jaw - b.jaw) < 0.05
        values.append(gains)
    assert np.std(values, axis=0).min() > 0.05, "faces differ"
    with pytest.raises(LSFError, match="32"):
        Style.from_identity(np.zeros(31))


def test_style_changes_the_performance_as_it_says():
    rows, stress, audio = clip()
    wide = perform(rows, stress, audio, style=Style(jaw=1.3)).neutral
    small = perform(rows, stress, audio, style=Style(jaw=0.75)).neutral
    assert wide[:, INDEX["jawOpen"]].std() > 1.4 * small[:, INDEX["jawOpen"]].std()
    left = perform(rows, stress, audio, emotion="happy", style=Style(asymmetry=0.15)).emotional
    assert left[:, INDEX["mouthSmileLeft"]].mean() > 1.1 * left[:, INDEX["mouthSmileRight"]].mean()


def test_notations_agree():
    arpabet = [("SIL", 0, 0.5), ("HH", 0.5, 0.6), ("AY1", 0.6, 0.8), ("M", 0.8, 0.9), ("AA0", 0.9, 1.0)]
    ipa = [("sil", 0, 0.5), ("h", 0.5, 0.6), ("I", 0.6, 0.8), ("m", 0.8, 0.9), ("ɑ", 0.9, 1.0)]
    a, b = canonical(arpabet), canonical(ipa, [0, 0, 1, 0, 0])
    assert [p.ipa for p in a] == [p.ipa for p in b] == ["sil", "h", "aɪ", "m", "ɑ"]
    assert a[2].stress == b[2].stress == 1
    assert canonical([("tː", 0, 1), ("ɐ̃", 1, 2), ("ʔ", 2, 3), ("iɐ", 3, 4)])[1].ipa == "ɐ"
    assert halves("iɐ") == ("i", "ɐ")
    assert [canonical([("y", 0, 1)], language=tag)[0].ipa for tag in ("de", "pt-br", None)] == ["y", "ɪ", "y"]


def test_every_phone_has_a_class_with_targets():
    targets = GestureConstants().targets
    assert set(targets) == set(CLASSES)
    for ipa in [*_FEATURES, *_ARPABET.values()]:
        for part in halves(ipa):
            assert class_of(part) in targets
    assert len(build_score(canonical([("aɪ", 0, 0.2)])).kind) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r, s, a: perform([("?!x", 0, 1)], None, a), "\\?!x"),
        (lambda r, s, a: perform(r, s[:-1], a), "stress"),
        (lambda r, s, a: perform(r, s, a, emotion="hungry"), "hungry"),
        (lambda r, s, a: perform(r, s, a[:0]), "0 samples"),
    ],
)
def test_errors_name_the_thing(call, words):
    with pytest.raises(LSFError, match=words):
        call(*clip())


def test_clips_without_speech_stay_at_rest():
    made = perform([("sil", 0.0, 2.0)], None, np.zeros(32000, np.float32), emotion="neutral")
    assert made.neutral.shape == (100, 52)
    assert made.neutral.max() < 0.05
    assert not made.speech.any()


def test_smoothing_has_no_delay_and_keeps_the_level():
    step = np.zeros(200)
    step[100:] = 1
    out = smooth(step, 8.0)
    crossing = int(np.argmax(out >= 0.5))
    assert abs(crossing - 100) <= 1
    assert out[:80].max() < 0.01
    assert abs(out[-1] - 1) < 1e-9
    assert np.all(np.diff(out) > -1e-9), "critically damped: no overshoot"


def test_energy_baseline_follows_loudness():
    _, _, audio = clip()
    jaw = energy_motion(audio)[:, INDEX["jawOpen"]]
    assert jaw[:30].max() < 0.01
    assert 0.2 < jaw.max() <= 0.31
