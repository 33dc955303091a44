"""Phones: one IPA spelling for every notation in the training data, and the articulatory features behind each phone.

Notations understood:

- IPA of the synthesised speech, where English diphthongs are single letters (A = eɪ, I = aɪ, O = oʊ, Q = əʊ, W = aʊ,
  Y = ɔɪ) and affricates are ligatures (ʧ ʤ);
- IPA of hand-labelled German (diphthongs written with two vowel letters, `iɐ` for a vowel before a vocalised r);
- ARPAbet, with or without stress digits.

Features follow the IPA chart (International Phonetic Association, Handbook, 1999): height, backness and rounding of
vowels, place and manner of consonants. Visemes are not used: the gestural model needs articulators, not mouth pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lsf_core.errors import LSFError

SILENCE = "sil"

_ARPABET = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ", "B": "b", "CH": "tʃ",
    "D": "d", "DH": "ð", "DX": "ɾ", "EH": "ɛ", "ER": "ɝ", "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ",
    "IX": "ɪ", "IY": "i", "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ",
    "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "UX": "u", "V": "v",
    "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
_ARPABET_SURE = {label for label in _ARPABET if len(label) > 1}

_LETTERS = {"A": "eɪ", "I": "aɪ", "O": "oʊ", "Q": "əʊ", "W": "aʊ", "Y": "ɔɪ", "ʧ": "tʃ", "ʤ": "dʒ"}
_VARIANTS = {"ɑɪ": "aɪ", "ʌɪ": "aɪ", "ɑʊ": "aʊ", "g": "ɡ", "ᵻ": "ɪ", "ɫ": "l", "ɨ": "ɪ", "ɜ": "ɝ", "ʦ": "ts", "ʣ": "dz"}
_QUIET = {
    "", "sil", "sp", "spn", "pau", "h#", "#", "_", "nsn", "+nse+", "+spn+", "silence", "<sil>", "<p:>", "(", ")",
    ".", ",", "!", "?", ";", ":", "—", "…", "-", "'", '"',
}  # fmt: skip
_MARKS = re.compile(r"[ˈˌː̩̯ʰˑ‿̃|'\"̥̬̪͡]")


@dataclass(frozen=True)
class Phone:
    """One phone of a clip. Times in seconds; `stress` is 0 none, 1 primary, 2 secondary, or -1 where nobody said."""

    ipa: str
    start: float
    end: float
    stress: int = -1
    long: bool = False


@dataclass(frozen=True)
class Features:
    """What the mouth does for a phone.

    Vowels have height (0 open .. 1 close), backness (0 front .. 1 back) and rounding; consonants a place and a manner.
    """

    vowel: bool
    height: float = 0.5
    backness: float = 0.5
    rounded: bool = False
    place: str = ""
    manner: str = ""

    @property
    def bilabial(self) -> bool:
        """The lips must touch: p b m."""
        return self.place == "bilabial" and self.manner in ("stop", "nasal")

    @property
    def labiodental(self) -> bool:
        """The lower lip must reach the upper teeth: f v (and the looser ʋ)."""
        return self.place == "labiodental"


def _vowels(spec: dict[str, tuple[float, float, bool]]) -> dict[str, Features]:
    return {ipa: Features(True, height, back, rounded) for ipa, (height, back, rounded) in spec.items()}


_FEATURES: dict[str, Features] = {
    SILENCE: Features(False, place="none", manner="silence"),
    **_vowels({
        "i": (1.0, 0.0, False), "y": (1.0, 0.0, True), "ɪ": (0.8, 0.15, False), "ʏ": (0.8, 0.15, True),
        "u": (1.0, 1.0, True), "ʊ": (0.8, 0.85, True), "ɯ": (1.0, 1.0, False),
        "e": (0.67, 0.0, False), "ø": (0.67, 0.0, True), "o": (0.67, 1.0, True), "ɵ": (0.67, 0.5, True),
        "ə": (0.5, 0.5, False), "ɚ": (0.5, 0.5, False), "ɝ": (0.45, 0.5, False), "ɤ": (0.67, 1.0, False),
        "ɛ": (0.33, 0.0, False), "œ": (0.33, 0.0, True), "ɔ": (0.33, 1.0, True), "ʌ": (0.3, 0.8, False),
        "æ": (0.15, 0.1, False), "ɐ": (0.2, 0.5, False), "a": (0.0, 0.3, False), "ɑ": (0.0, 1.0, False),
        "ɒ": (0.1, 1.0, True),
    }),
    **{
        ipa: Features(False, place=place, manner=manner)
        for place, manner, group in (
            ("bilabial", "stop", "p b"), ("bilabial", "nasal", "m"), ("bilabial", "fricative", "β ɸ"),
            ("labiodental", "fricative", "f v pf"), ("labiodental", "approximant", "ʋ"),
            ("dental", "fricative", "θ ð"),
            ("alveolar", "stop", "t d ɾ"), ("alveolar", "nasal", "n"), ("alveolar", "sibilant", "s z ts dz"),
            ("alveolar", "lateral", "l"), ("alveolar", "trill", "r"), ("alveolar", "rhotic", "ɹ ɻ"),
            ("postalveolar", "sibilant", "ʃ ʒ tʃ dʒ"),
            ("palatal", "approximant", "j ʝ ʎ"), ("palatal", "nasal", "ɲ"), ("palatal", "fricative", "ç"),
            ("velar", "stop", "k ɡ"), ("velar", "nasal", "ŋ"), ("velar", "fricative", "x ɣ"),
            ("uvular", "fricative", "ʁ χ ʀ"), ("glottal", "fricative", "h ɦ"), ("glottal", "stop", "ʔ"),
            ("labiovelar", "approximant", "w ʍ ɥ"),
        )
        for ipa in group.split()
    },
}  # fmt: skip


def _uses_arpabet(labels: Sequence[str]) -> bool:
    """True when a two-letter ARPAbet label is seen; single letters alone (B, D) could be either notation."""
    return all(x.isascii() for x in labels) and any(re.sub(r"\d$", "", x) in _ARPABET_SURE for x in labels)


def normal_ipa(label: str, arpabet: bool = False) -> str:
    """IPA of one label without stress, length or nasal marks; `sil` for anything that is not a phone."""
    text = str(label).strip()
    if text.lower() in _QUIET:
        return SILENCE
    if arpabet:
        bare = re.sub(r"\d$", "", text).upper()
        if bare not in _ARPABET:
            raise LSFError(
                f"Phone label {label!r} is not ARPAbet. Use the 39 ARPAbet symbols and SIL, or IPA throughout."
            )
        return _ARPABET[bare]
    text = _LETTERS.get(text.rstrip("ː"), text)
    text = _MARKS.sub("", text)
    return _VARIANTS.get(text, text) or SILENCE


# espeak-ng writes the reduced final vowels of Brazilian Portuguese with letters that mean something else in the IPA
_BY_LANGUAGE = {"pt": {"y": "ɪ", "æ": "ɐ"}}


def canonical(
    rows: Sequence[Sequence], stress: Sequence[int] | None = None, language: str | None = None
) -> list[Phone]:
    """Phones of a clip in one notation. language: a tag such as 'pt-br', where a notation has ways of its own.

    rows: (label, start_s, end_s) in time order; stress: one number per row (0, 1, 2) or None. ARPAbet digits win
    over None. Rows without length are dropped. Raises LSFError for a label of no known notation, or when stress has
    another length.
    """
    labels = [str(row[0]).strip() for row in rows]
    if stress is not None and len(stress) != len(labels):
        raise LSFError(f"{len(stress)} stress marks for {len(labels)} phones. Give one per phone, or None.")
    arpabet = _uses_arpabet(labels)
    phones = []
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        start, end = float(row[1]), float(row[2])
        if end <= start:
            continue
        ipa = normal_ipa(label, arpabet)
        ipa = _BY_LANGUAGE.get((language or "")[:2], {}).get(ipa, ipa)
        for part in halves(ipa):
            features(part)  # raises here, with the label at hand, and not deep in the synthesis
        mark = int(stress[i]) if stress is not None else -1
        if mark < 0 and arpabet and label[-1:].isdigit():
            mark = int(label[-1])
        phones.append(Phone(ipa, start, end, mark, long="ː" in label))
    return phones


@cache
def halves(ipa: str) -> tuple[str, ...]:
    """The simple vowels that a diphthong moves through; any other phone is its own only part."""
    if len(ipa) == 2 and ipa not in _FEATURES and all(x in _FEATURES and _FEATURES[x].vowel for x in ipa):
        return (ipa[0], ipa[1])
    return (ipa,)


@cache
def features(ipa: str) -> Features:
    """Articulatory features of a simple phone. Raises LSFError for a symbol that is not in the table."""
    if ipa not in _FEATURES:
        raise LSFError(f"Phone {ipa!r} has no articulatory features. Map it to one of: {' '.join(sorted(_FEATURES))}.")
    return _FEATURES[ipa]
