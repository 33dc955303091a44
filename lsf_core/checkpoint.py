"""Checkpoints: one safetensors file that holds the weights (fp16) and the configuration, beside it its sha256.

Nothing is unpickled: a checkpoint is tensors and JSON. `NAME.safetensors.sha256` has the format of the sha256sum tool.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import ModelError
from .network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from .speech import SpeechConfig, SpeechEncoder

FORMAT = "lsf-animation/1"
# Training state of the quantiser and the prior's encoder are not needed to animate.
_NOT_SHIPPED = ("prior.encoder.", "_codebook.cluster_size", "_codebook.embed_avg", "_codebook.initted")


@dataclass
class Checkpoint:
    """A network with its speech encoder, and what is known about how it was made."""

    speech: SpeechEncoder
    network: LSFNetwork
    about: dict[str, Any]


def save_checkpoint(path: str | Path, speech: SpeechEncoder, network: LSFNetwork, about: dict[str, Any]) -> str:
    """Write the file and its sha256 beside it, each whole or not at all; returns the sha256."""
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("speech", speech.model), ("network", network)):
        for name, value in module.state_dict().items():
            if not any(part in name for part in _NOT_SHIPPED):
                tensors[f"{prefix}.{name}"] = (value.half() if value.is_floating_point() else value).contiguous().cpu()
    config = {"format": FORMAT, "speech": asdict(speech.config), "prior": asdict(network.prior.config),
              "lsf": asdict(network.config), "about": about}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"config": json.dumps(config)})
    digest = sha256(temporary)
    os.replace(temporary, path)
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")
    return digest


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read and verify a checkpoint; weights become float32 on `device`.

    Raises ModelError: file missing, sha256 missing or different, not one of ours, weights that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"No checkpoint at {path}. Reinstall the add-on, or give the path of a .safetensors file "
                         "that `python -m lsf_core train` wrote.")
    verify_sha256(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        config = json.loads(metadata.get("config", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not a readable checkpoint ({error}). Reinstall the add-on.") from error
    if config.get("format") != FORMAT:
        raise ModelError(f"{path} has format {config.get('format')!r}, this version reads {FORMAT!r}. "
                         "Install the add-on version that the checkpoint was made for.")
    speech = SpeechEncoder(SpeechConfig(**_tuples(config["speech"])))
    prior = MotionPrior(PriorConfig(**config["prior"]), with_encoder=False)
    parts = len(speech.config.articulation_layers), len(speech.config.emotion_layers)
    network = LSFNetwork(LSFConfig(**config["lsf"]), prior, *parts)
    tensors.setdefault("network.anchors", torch.zeros_like(network.anchors))  # lsf-animation-0.1 knew no names
    for prefix, module in (("speech", speech.model), ("network", network)):
        _fill(module, {k[len(prefix) + 1:]: v for k, v in tensors.items() if k.startswith(prefix + ".")}, path)
    return Checkpoint(speech.to(device), network.to(device).eval(), config.get("about", {}))


def sha256(path: Path) -> str:
    """The file's digest in hexadecimal, read block by block."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify_sha256(path: Path) -> None:
    """Raise ModelError unless `path` has the sha256 that stands beside it in `path.sha256`."""
    beside = path.with_name(path.name + ".sha256")
    if not beside.is_file():
        raise ModelError(f"{beside} is missing, so {path.name} cannot be verified. Reinstall the add-on, or run "
                         f"`sha256sum {path.name} > {beside.name}` in its folder if you trust the file.")
    expected = (beside.read_text(encoding="ascii", errors="replace").split() or ["nothing"])[0]
    found = sha256(path)
    if found != expected:
        raise ModelError(f"{path} is damaged or was exchanged: its sha256 is {found[:12]}..., expected "
                         f"{expected[:12]}... Reinstall the add-on.")


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    result = module.load_state_dict(tensors, strict=False)  # copied into the module's own single precision
    missing = [k for k in result.missing_keys if not any(part in k for part in _NOT_SHIPPED)]
    if missing or result.unexpected_keys:
        raise ModelError(f"{path} does not fit this version: missing {missing[:3]}, unknown "
                         f"{result.unexpected_keys[:3]}. Reinstall the add-on.")


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples; SpeechConfig's layer lists are."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
