"""Everything an artist may hand in by mistake: what is said, and that nothing is changed. With the real engine."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, keyed, make_object, write_wav

from blender_addon import compat

SILENCE = np.zeros(16000)


def mix(path: Path, container: str, codec: str, rate: int) -> Path:
    """1.5 s of the demo speech by Blender's own mixdown (there is no soundfile in Blender's Python)."""
    if not bpy.app.build_options.audaspace:
        pytest.skip("this build of the bpy module (4.2) has no sound")
    scene = bpy.context.scene
    strip = compat.top_strips(scene.sequence_editor_create()).new_sound("source", str(SPEECH), 1, 1)
    kept = scene.frame_start, scene.frame_end
    scene.frame_start, scene.frame_end = 13, 13 + 36
    sample = {"format": "S16"} if codec in ("PCM", "FLAC") else {}
    bpy.ops.sound.mixdown(filepath=str(path), container=container, codec=codec, mixrate=rate, bitrate=128, **sample)
    scene.frame_start, scene.frame_end = kept
    compat.top_strips(scene.sequence_editor).remove(strip)
    return path


def speech(rate: int = 16000, channels: int = 1) -> np.ndarray:
    """The same as samples (N, channels)."""
    with wave.open(str(mix(Path(bpy.app.tempdir) / "mixed.wav", "WAV", "PCM", rate))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels()) / 32768
    assert np.abs(samples).max() > 0.05
    return np.repeat(samples[:, :1], channels, axis=1)


def untouched(target: bpy.types.Object) -> bool:
    return target.data.shape_keys is None and target.animation_data is None and not len(bpy.data.actions)


# ---------------------------------------------------------------- the sound
def test_silence(scene, head, real_engine, tmp_path):
    add_strip(scene, write_wav(tmp_path / "silence.wav", SILENCE), name="hush")
    assert "The sound 'hush' is silent" in error_of(bpy.ops.lsf.animate)
    assert untouched(head)


def test_a_strip_of_a_tenth_of_a_second(scene, head, real_engine):
    scene.render.fps = 30
    strip = add_strip(scene, SPEECH, name="blip")
    strip.frame_offset_start = 20
    strip.frame_offset_end = strip.frame_duration - 23
    message = error_of(bpy.ops.lsf.animate)
    assert "The sound 'blip' is too short: 0.10 s" in message
    assert "longer strip" in message
    assert untouched(head)


def test_a_corrupt_file(scene, head, real_engine, tmp_path):
    path = tmp_path / "broken.mp3"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    scene.lsf.audio_path = str(path)
    assert f"cannot be decoded: '{path}'" in error_of(bpy.ops.lsf.animate)
    assert untouched(head)


def test_a_file_that_is_missing(scene, head, real_engine, tmp_path):
    path = write_wav(tmp_path / "gone.wav", SILENCE)
    add_strip(scene, path)
    path.unlink()
    message = error_of(bpy.ops.lsf.animate)
    assert f"is not there: '{path}'" in message
    assert "relink" in message
    scene.lsf.strip_name, scene.lsf.audio_path = "", str(tmp_path / "never.wav")
    assert "never.wav" in error_of(bpy.ops.lsf.animate)
    assert untouched(head)


def test_no_speech_chosen_or_a_strip_that_is_not_there(scene, head, real_engine, tmp_path):
    assert "Choose a sound strip or a sound file" in error_of(bpy.ops.lsf.animate)
    scene.lsf.strip_name = "ghost"
    assert "no sound strip 'ghost' in the sequencer (there: none)" in error_of(bpy.ops.lsf.animate)
    add_strip(scene, write_wav(tmp_path / "a.wav", SILENCE), name="real")
    scene.lsf.strip_name = "ghost"
    assert "(there: 'real')" in error_of(bpy.ops.lsf.animate)
    assert untouched(head)


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (8000, 1), (44100, 1)])
def test_stereo_and_other_sample_rates(scene, head, real_engine, tmp_path, rate, channels):
    add_strip(scene, write_wav(tmp_path / "odd.wav", speech(rate, channels), rate))
    bpy.ops.lsf.animate()
    assert np.ptp(keyed(head)["jawOpen"][:, 1]) > 0.05


def encode_m4a(path: Path, samples: np.ndarray) -> Path:
    """AAC in MP4, which Blender's mixdown does not write. samples: (N, 1) at 48 kHz."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=48000)
        stream.layout = "mono"
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000, frame_size=1024)
        frame = av.AudioFrame.from_ndarray((samples.T * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    return path


@pytest.mark.parametrize(("name", "container", "codec"), [
    ("a.mp3", "MP3", "MP3"), ("a.flac", "FLAC", "FLAC"), ("a.ogg", "OGG", "VORBIS"), ("a.m4a", "", "")])
def test_every_usual_format(scene, head, real_engine, tmp_path, name, container, codec):
    path = tmp_path / name
    add_strip(scene, mix(path, container, codec, 48000) if codec else encode_m4a(path, speech(48000)))
    bpy.ops.lsf.animate()
    jaw = keyed(head)["jawOpen"]
    assert jaw[-1, 0] - jaw[0, 0] >= 35
    assert np.ptp(jaw[:, 1]) > 0.05


def test_a_path_with_spaces_and_other_alphabets(scene, head, real_engine, tmp_path):
    folder = tmp_path / "Ünïcode 日本語 folder"
    folder.mkdir()
    add_strip(scene, write_wav(folder / "речь с пробелами é.wav", speech()), name="речь")
    bpy.ops.lsf.animate()
    assert "речь take 1" in bpy.data.actions
    assert np.ptp(keyed(head)["jawOpen"][:, 1]) > 0.05


# ---------------------------------------------------------------- the mesh
@pytest.fixture
def said(scene, real_engine):
    """Speech is chosen; the mesh is what is wrong."""
    strip = add_strip(scene, SPEECH)
    strip.frame_offset_end = strip.frame_duration - 30
    return scene


def test_no_mesh(said):
    assert "No mesh is chosen. Choose the neutral head" in error_of(bpy.ops.lsf.animate)


def test_a_lamp(said):
    bpy.ops.object.light_add()
    said.lsf.target = bpy.context.object
    assert "is not a mesh but a light" in error_of(bpy.ops.lsf.animate)


def test_a_mesh_without_faces(said):
    said.lsf.target = make_object("Dust", [(0, 0, 0), (1, 0, 0)], [])
    assert "'Dust' has no faces" in error_of(bpy.ops.lsf.animate)


def test_a_mesh_of_another_scene(said, head):
    said.collection.objects.unlink(head)
    assert "'Head' is not in the scene 'Scene'" in error_of(bpy.ops.lsf.animate)


@pytest.mark.parametrize("mode", ["EDIT", "SCULPT"])
def test_a_mesh_in_edit_mode(said, head, mode):
    bpy.context.view_layer.objects.active = head
    bpy.ops.object.mode_set(mode=mode)
    message = error_of(bpy.ops.lsf.animate)
    bpy.ops.object.mode_set(mode="OBJECT")
    assert f"'Head' is in {mode.title()} Mode. Leave it" in message
    assert untouched(head)


def test_nan_vertices(said, head):
    count = len(head.data.vertices)
    points = np.zeros((count, 3), np.float32)
    points[5, 1], points[9, 0] = np.nan, np.inf
    head.data.vertices.foreach_set("co", points.ravel())
    assert f"'Head' has 2 of {count} vertices whose position is not a number" in error_of(bpy.ops.lsf.animate)
    assert untouched(head)


def test_an_object_scaled_to_nothing(said, head):
    head.scale.z = 0
    bpy.context.view_layer.update()
    assert "scaled to nothing" in error_of(bpy.ops.lsf.animate)


def test_absolute_shape_keys(said, head):
    head.shape_key_add(name="Basis")
    head.data.shape_keys.use_relative = False
    assert "absolute" in error_of(bpy.ops.lsf.animate)


def test_linked_data(said, head, tmp_path):
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {head})
    bpy.data.objects.remove(head)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["Head"]
    linked = wanted.objects[0]
    said.collection.objects.link(linked)
    said.lsf.target = linked
    message = error_of(bpy.ops.lsf.animate)
    assert "'Head' is linked from" in message
    assert "library.blend" in message
    assert "Make it local" in message
    assert not len(bpy.data.actions)


def test_a_library_override(said, head, tmp_path):
    """Blender lets us add shape keys to one, and loses them when the file is opened again."""
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {head})
    bpy.data.objects.remove(head)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["Head"]
    said.collection.objects.link(wanted.objects[0])
    own = wanted.objects[0].override_hierarchy_create(said, bpy.context.view_layer)
    said.lsf.target = own
    assert "'Head' is linked from" in error_of(bpy.ops.lsf.animate), "the object is ours, its mesh is still linked"
    own.data.override_create(remap_local_usages=True)
    assert "is a library override: new shape keys on it are lost" in error_of(bpy.ops.lsf.animate)
    assert own.data.shape_keys is None


def test_the_message_is_the_one_that_the_panel_shows(said, head):
    head.data.vertices[5].co.y = float("nan")
    message = error_of(bpy.ops.lsf.animate)
    assert said.lsf.error
    assert said.lsf.error in message


# ---------------------------------------------------------------- export
def test_export_without_a_take_or_a_folder(said, head, tmp_path):
    assert "'Head' has no take yet. Press Animate first" in error_of(
        lambda: bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx")))
    bpy.ops.lsf.animate()
    place = str(tmp_path / "nowhere" / "a.fbx")
    assert f"There is no folder '{tmp_path / 'nowhere'}'" in error_of(lambda: bpy.ops.lsf.export_fbx(filepath=place))
    assert "Choose another place" in error_of(lambda: bpy.ops.lsf.export_fbx(filepath=""))
