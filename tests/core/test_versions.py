"""Networks by name: what ships is known, what does not is told how to get."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_model import tiny_checkpoint

import lsf_core
from lsf_core import versions
from lsf_core.checkpoint import sha256
from lsf_core.errors import ModelError
from lsf_core.versions import SHIPPED, VERSIONS, Version, checkpoint_path, version_of


def test_the_network_that_ships_is_the_newest_version_and_has_its_name():
    assert sha256(SHIPPED) == VERSIONS[-1].sha256
    assert version_of(SHIPPED) == VERSIONS[-1]
    assert checkpoint_path(None) == checkpoint_path("default") == checkpoint_path(VERSIONS[-1].name) == SHIPPED


def test_every_version_has_its_own_name_file_and_the_same_figures():
    assert len({v.name for v in VERSIONS}) == len({v.sha256 for v in VERSIONS}) == len(VERSIONS)
    assert len({tuple(v.scores) for v in VERSIONS}) == 1


def test_an_older_version_is_loaded_where_it_lies_and_else_told_where_it_is(tmp_path, monkeypatch):
    path = Path(tiny_checkpoint(tmp_path))
    older = Version("lsf-animation-0.0", sha256(path), "abc1234", "", {})
    monkeypatch.setattr(versions, "VERSIONS", (older, *VERSIONS))
    monkeypatch.setattr(versions, "ASSETS", tmp_path)
    with pytest.raises(ModelError, match="git show abc1234:assets/lsf-animation"):
        lsf_core.load_model("lsf-animation-0.0", "cpu")
    for end in ("", ".sha256"):
        shutil.copy(f"{path}{end}", tmp_path / f"lsf-animation-0.0.safetensors{end}")
    assert lsf_core.load_model("lsf-animation-0.0", "cpu").about == {"made for": "tests"}


def test_unknown_names_list_the_known_ones_and_paths_stay_paths(tmp_path):
    with pytest.raises(ModelError, match=r"no network called 'lsf-animatoin'.*default, lsf-animation-0\.1"):
        lsf_core.load_model("lsf-animatoin", "cpu")
    with pytest.raises(ModelError, match="No checkpoint at"):
        lsf_core.load_model(tmp_path / "none.safetensors", "cpu")
    assert checkpoint_path(tiny_checkpoint(tmp_path)).name == "tiny.safetensors"
    assert version_of(tmp_path / "none.safetensors") is None


def test_a_network_of_before_named_emotions_is_loaded_and_says_what_it_cannot(tmp_path):
    path = tiny_checkpoint(tmp_path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "network.anchors"}  # noqa: SIM118
        save_file(tensors, path, metadata=file.metadata())
    Path(f"{path}.sha256").write_text(f"{sha256(Path(path))}  tiny.safetensors\n", encoding="ascii")
    model = lsf_core.load_model(path, "cpu")
    hum = 0.3 * np.sin(np.arange(16000) * 0.07).astype(np.float32)
    assert len(model.animate(hum, 16000)) == 30
    with pytest.raises(ModelError, match="knows no emotions by name"):
        model.animate(hum, 16000, emotion_mix={"happy": 1.0})
