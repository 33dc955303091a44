"""What the shape keys of a mesh mean, by their names: ARKit shapes in any spelling, visemes, blinks.

Imports nothing but the standard library, so that Blender's side may load it by its path, as it does protocol.py.

Sources of the names: Apple, ARFaceAnchor.BlendShapeLocation; VRM 0.x and VRMC_vrm 1.0 (expressions preset);
Meta, Oculus Lipsync viseme reference; Microsoft, Speech service viseme identifiers 0 to 21; Reallusion, Character
Creator's ExpressionPlus and viseme names; MPFB's face units and viseme targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SIDED = {
    "browDown": "brow", "browOuterUp": "brow", "cheekSquint": "cheek", "eyeBlink": "eye", "eyeLookDown": "eye",
    "eyeLookIn": "eye", "eyeLookOut": "eye", "eyeLookUp": "eye", "eyeSquint": "eye", "eyeWide": "eye", "jaw": "jaw",
    "mouthDimple": "mouth", "mouthFrown": "mouth", "mouth": "mouth", "mouthLowerDown": "mouth", "mouthPress": "mouth",
    "mouthSmile": "mouth", "mouthStretch": "mouth", "mouthUpperUp": "mouth", "noseSneer": "nose",
}
_MIDDLE = ("browInnerUp", "cheekPuff", "jawForward", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker",
           "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "tongueOut")
SHAPES: tuple[str, ...] = tuple(sorted((*(f"{n}{s}" for n in _SIDED for s in ("Left", "Right")), *_MIDDLE)))
"""The 52 ARKit names, in alphabetical order: the same as arkit.ARKIT_NAMES."""

POSES: dict[str, dict[str, float]] = {
    "silence": {},
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "smile": {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0},
    "aa": {"jawOpen": 0.6, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2},
    "ah": {"jawOpen": 0.45, "mouthLowerDownLeft": 0.15, "mouthLowerDownRight": 0.15},
    "E": {"jawOpen": 0.3, "mouthSmileLeft": 0.25, "mouthSmileRight": 0.25, "mouthLowerDownLeft": 0.3,
          "mouthLowerDownRight": 0.3},
    "I": {"jawOpen": 0.15, "mouthSmileLeft": 0.4, "mouthSmileRight": 0.4, "mouthStretchLeft": 0.2,
          "mouthStretchRight": 0.2, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3},
    "O": {"jawOpen": 0.35, "mouthFunnel": 0.6},
    "U": {"jawOpen": 0.12, "mouthFunnel": 0.3, "mouthPucker": 0.7},
    "ER": {"jawOpen": 0.2, "mouthFunnel": 0.4},
    "AW": {"jawOpen": 0.5, "mouthFunnel": 0.3},
    "OY": {"jawOpen": 0.35, "mouthFunnel": 0.4, "mouthStretchLeft": 0.1, "mouthStretchRight": 0.1},
    "AY": {"jawOpen": 0.45, "mouthStretchLeft": 0.2, "mouthStretchRight": 0.2},
    "H": {"jawOpen": 0.25},
    "PP": {"mouthPressLeft": 0.3, "mouthPressRight": 0.3, "mouthRollLower": 0.2, "mouthRollUpper": 0.2},
    "FF": {"jawOpen": 0.08, "mouthRollLower": 0.5, "mouthUpperUpLeft": 0.2, "mouthUpperUpRight": 0.2},
    "TH": {"jawOpen": 0.18, "tongueOut": 0.25, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2},
    "DD": {"jawOpen": 0.15, "mouthLowerDownLeft": 0.25, "mouthLowerDownRight": 0.25},
    "L": {"jawOpen": 0.25, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2},
    "kk": {"jawOpen": 0.22, "mouthLowerDownLeft": 0.15, "mouthLowerDownRight": 0.15},
    "CH": {"jawOpen": 0.1, "mouthFunnel": 0.5, "mouthShrugUpper": 0.1},
    "SS": {"jawOpen": 0.06, "mouthStretchLeft": 0.25, "mouthStretchRight": 0.25, "mouthLowerDownLeft": 0.3,
           "mouthLowerDownRight": 0.3},
    "RR": {"jawOpen": 0.15, "mouthFunnel": 0.35, "mouthPucker": 0.15},
}
"""Visemes and other poses: about what they look like in ARKit's shapes (weights). For a mapper's preview; the solver
reads the mesh's own keys instead."""

_VRM = {"A": "aa", "I": "I", "U": "U", "E": "E", "O": "O"}
_MICROSOFT = ("silence", "ah", "aa", "O", "E", "ER", "I", "U", "O", "AW", "OY", "AY", "H", "RR", "L", "SS", "CH", "TH",
              "FF", "DD", "kk", "PP")
_PHONES = ("sil", "ae_ax_ah", "aa", "ao", "ey_eh_uh", "er", "y_iy_ih_ix", "w_uw", "ow", "aw", "oy", "ay", "h", "r", "l",
           "s_z", "sh_ch_jh_zh", "th_dh", "f_v", "d_t_n", "k_g_ng", "p_b_m")
_META = {"sil": "silence", "PP": "PP", "FF": "FF", "TH": "TH", "DD": "DD", "kk": "kk", "CH": "CH", "SS": "SS",
         "nn": "DD", "RR": "RR", "aa": "aa", "E": "E", "ih": "I", "oh": "O", "ou": "U"}
_READY = {**{k: v for k, v in _META.items() if k not in ("ih", "oh", "ou")}, "I": "I", "O": "O", "U": "U"}
_ALIKE = {  # Reallusion's word for an ARKit shape, both without their side
    "Brow_Drop": "browDown", "Brow_Raise_Outer": "browOuterUp", "Cheek_Raise": "cheekSquint", "Eye_Blink": "eyeBlink",
    "Eye_Squint": "eyeSquint", "Eye_Wide": "eyeWide", "Nose_Sneer": "noseSneer", "Mouth_Smile": "mouthSmile",
    "Mouth_Frown": "mouthFrown", "Mouth_Stretch": "mouthStretch", "Mouth_Dimple": "mouthDimple",
    "Mouth_Press": "mouthPress", "Mouth_Up_Upper": "mouthUpperUp", "Mouth_Down_Lower": "mouthLowerDown",
    "Mouth": "mouth", "Jaw": "jaw",
}
_HALVES = {"Brow_Raise_Inner": "browInnerUp", "Cheek_Puff": "cheekPuff", "Mouth_Roll_In_Upper": "mouthRollUpper",
           "Mouth_Roll_In_Lower": "mouthRollLower", "Mouth_Pucker_Up": "mouthPucker",
           "Mouth_Pucker_Down": "mouthPucker", "Mouth_Funnel_Up": "mouthFunnel", "Mouth_Funnel_Down": "mouthFunnel"}
_REALLUSION = {
    **{f"{k}_{s[0]}": f"{v}{s}" for k, v in _ALIKE.items() for s in ("Left", "Right")},
    **{f"{k}_{s}": v for k, v in _HALVES.items() for s in "LR"},
    "Eye_L_Look_Up": "eyeLookUpLeft", "Eye_R_Look_Up": "eyeLookUpRight", "Eye_L_Look_Down": "eyeLookDownLeft",
    "Eye_R_Look_Down": "eyeLookDownRight", "Eye_L_Look_L": "eyeLookOutLeft", "Eye_L_Look_R": "eyeLookInLeft",
    "Eye_R_Look_L": "eyeLookInRight", "Eye_R_Look_R": "eyeLookOutRight", "Mouth_Roll_In_Upper": "mouthRollUpper",
    "Mouth_Roll_In_Lower": "mouthRollLower", "Mouth_Pucker": "mouthPucker", "Mouth_Funnel": "mouthFunnel",
    "Mouth_Shrug_Upper": "mouthShrugUpper", "Mouth_Shrug_Lower": "mouthShrugLower", "Mouth_Close": "mouthClose",
    "Jaw_Open": "jawOpen", "Jaw_Forward": "jawForward", "Tongue_Out": "tongueOut",
    "V_None": "silence", "V_Open": "aa", "V_Explosive": "PP", "V_Dental_Lip": "FF", "V_Tight_O": "U", "V_Tight": "U",
    "V_Wide": "I", "V_Affricate": "CH", "V_Lip_Open": "SS", "AE": "ah", "Ah": "aa", "B_M_P": "PP", "Ch_J": "CH",
    "EE": "I", "Er": "ER", "F_V": "FF", "Ih": "I", "K_G_H_NG": "kk", "Oh": "O", "S_Z": "SS", "T_L_D_N": "DD",
    "W_OO": "U",
}

CONVENTIONS: dict[str, dict[str, str]] = {
    "ARKit": {name: name for name in SHAPES},
    "VRM 1": {"aa": "aa", "ih": "I", "ou": "U", "ee": "E", "oh": "O", "blink": "blink", "blinkLeft": "eyeBlinkLeft",
              "blinkRight": "eyeBlinkRight"},
    "VRM 0": {**_VRM, "Blink": "blink", "Blink_L": "eyeBlinkLeft", "Blink_R": "eyeBlinkRight"},
    "VRoid": {**{f"Fcl_MTH_{k}": v for k, v in _VRM.items()}, "Fcl_EYE_Close": "blink",
              "Fcl_EYE_Close_L": "eyeBlinkLeft", "Fcl_EYE_Close_R": "eyeBlinkRight"},
    "Oculus / Meta": dict(_META),
    "Ready Player Me": {**{f"viseme_{k}": v for k, v in _READY.items()}, "mouthOpen": "jawOpen", "mouthSmile": "smile",
                        "eyesClosed": "blink"},
    "VRChat": {**{f"vrc.v_{k.lower()}": v for k, v in _META.items()}, "vrc.blink": "blink"},
    "Microsoft": {f"viseme_{k}": v for k, v in enumerate(_MICROSOFT)},
    "MPFB": {f"{p}_{k:02d}": v for k, (p, v) in enumerate(zip(_PHONES, _MICROSOFT, strict=True))},
    "Reallusion CC": _REALLUSION,
}
"""Presets: key name as that convention writes it -> ARKit name, or name of a pose in POSES."""

_SIDE = {"l": "left", "r": "right", "left": "left", "right": "right", "lt": "left", "rt": "right"}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Matched:
    """What was recognised. arkit: key -> ARKit name (several keys may share one: halves of browInnerUp).
    poses: key -> pose (visemes, blink). convention: the preset that most keys follow, '' if none does.
    missing: the ARKit shapes that no key stands for."""

    arkit: dict[str, str]
    poses: dict[str, str]
    convention: str
    missing: tuple[str, ...]

    @property
    def usable(self) -> tuple[str, ...]:
        """Keys with a meaning: those that a solver may drive."""
        return (*self.arkit, *self.poses)


def words(name: str) -> tuple[str, ...]:
    """A name as lower-case words, the side last: 'EyeBlink.L', 'left_eye_blink' and 'eyeBlinkLeft' are the same."""
    name = re.sub(r"^[AT]\d\d_", "", name)  # Character Creator 3 numbers its ARKit keys: A37_Mouth_Close
    found = [word.lower() for word in _WORDS.findall(name)]
    sides = [_SIDE[word] for word in found if word in _SIDE]
    return (*(word for word in found if word not in _SIDE), *sides)


def _table(meanings: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    return {words(name): meaning for name, meaning in meanings.items()}


_TABLES = {convention: _table(meanings) for convention, meanings in CONVENTIONS.items()}


def match(keys: Iterable[str], convention: str | None = None) -> Matched:
    """What each of the shape keys `keys` means.

    With `convention` (of CONVENTIONS) only that preset is read, else all: first the one that explains most keys, so
    that 'E' or 'viseme_1' is read as the rest of the mesh suggests. Names with a prefix
    ('Face.M_F00_000_00_Fcl_MTH_A', 'head_blendShape.jawOpen') are read without it. A name that says nothing is
    left out. Raises KeyError for an unknown convention.
    """
    keys = list(keys)
    order = [convention] if convention else sorted(
        CONVENTIONS, key=lambda name: -sum(_meaning(key, _TABLES[name]) is not None for key in keys))
    if convention and convention not in CONVENTIONS:
        raise KeyError(f"Unknown naming {convention!r}; known: {', '.join(CONVENTIONS)}.")
    arkit: dict[str, str] = {}
    poses: dict[str, str] = {}
    first: dict[str, int] = dict.fromkeys(order, 0)
    for key in keys:
        for name in order:
            meaning = _meaning(key, _TABLES[name])
            if meaning is None:
                continue
            (arkit if meaning in _SHAPE_SET else poses)[key] = meaning
            first[name] += 1
            break
    best = max(first, key=lambda name: first[name])
    # A lone 'E' or 'I' on a mesh of other keys is not a viseme.
    if convention is None and len(poses) < 3:
        poses = {key: pose for key, pose in poses.items() if pose in ("blink", "smile")}
    missing = tuple(shape for shape in SHAPES if shape not in arkit.values())
    return Matched(arkit, poses, best if first[best] and (arkit or poses) else "", missing)


_SHAPE_SET = frozenset(SHAPES)


def _meaning(key: str, table: Mapping[tuple[str, ...], str]) -> str | None:
    """The table's meaning of a key: of the whole name, of it without prefixes, or of the half of a middle shape."""
    whole = words(key)
    if whole in table:
        return table[whole]
    sides = len(whole) - sum(word not in ("left", "right") for word in whole)
    body, side = whole[: len(whole) - sides], whole[len(whole) - sides:]
    for start in range(1, len(body)):
        rest = (*body[start:], *side)
        # One short word left over ('A' of 'Hand_A') says nothing by itself; 'jaw' before a side does.
        if rest in table and (len(rest) > 1 or len(rest[0]) > 5):
            return table[rest]
    if side and body in table and table[body] in _MIDDLE:  # browInnerUp_L: one half of a middle shape
        return table[body]
    return None
