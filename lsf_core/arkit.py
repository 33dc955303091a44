"""The 52 ARKit blendshape names: the one order in which every array of weights in this project is laid out.

Source of the names: Apple, ARFaceAnchor.BlendShapeLocation (developer.apple.com); camelCase as Apple spells them.
This file imports nothing, so that Blender's side may load it too.
"""

ARKIT_NAMES: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)

INDEX: dict[str, int] = {name: i for i, name in enumerate(ARKIT_NAMES)}

IDENTITY_DIM = 32
"""Numbers that describe a neutral face to the network: whitened coefficients (mean 0, variance 1 each) of the
template's identity space."""


def mirrored(name: str) -> str:
    """The shape of the other side of the face, or the name itself if it has none."""
    if name.endswith("Left"):
        other = name[:-4] + "Right"
    elif name.endswith("Right"):
        other = name[:-5] + "Left"
    else:
        return name
    return other if other in INDEX else name

EMOTIONS = ("neutral", "angry", "happy", "sad", "fear", "disgust", "surprise")
"""The order of the network's emotion anchors and of every vector of explicit emotion weights."""
