"""audio.py: any sound file becomes 16 kHz mono at the right times; what cannot be used is told in words."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from lsf_core.audio import SAMPLE_RATE, check_speech, load_audio, loudness_db, voice_activity
from lsf_core.errors import AudioError

DEMO = Path(__file__).parents[2] / "assets" / "demo" / "speech.ogg"
FOLDER = "süß 音声 with spaces"
SECONDS = 3.0
BEEP = (1.2, 1.5)


def chirps(rate: int, channels: int = 1) -> np.ndarray:
    """(n, channels): soft noise with a loud 440 Hz beep from 1.2 to 1.5 s, the same moments at every rate."""
    times = np.arange(round(SECONDS * rate)) / rate
    sound = 0.001 * np.random.default_rng(0).standard_normal(len(times))
    beep = (times >= BEEP[0]) & (times < BEEP[1])
    sound[beep] += 0.5 * np.sin(2 * np.pi * 440 * times[beep])
    return np.repeat(sound[:, None], channels, axis=1).astype(np.float32)


def write_m4a(path: Path, sound: np.ndarray, rate: int) -> None:
    """AAC as an iPhone or a video editor writes it."""
    layout = {1: "mono", 2: "stereo"}[sound.shape[1]]
    with av.open(str(path), "w", format="ipod") as file:
        stream = file.add_stream("aac", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        cut = av.AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)
        for piece in [*cut.resample(frame), *cut.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))


def write_silent_video(path: Path) -> None:
    """A film without any sound."""
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 64
        for i in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i * 10, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name is not ASCII and has spaces."""
    path = tmp_path / FOLDER
    path.mkdir()
    return path


def beep_of(audio: np.ndarray) -> tuple[float, float]:
    """Seconds at which the loud part begins and ends."""
    loud = np.flatnonzero(np.abs(audio) > 0.1)
    return loud[0] / SAMPLE_RATE, loud[-1] / SAMPLE_RATE


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 2)])
def test_every_format_rate_and_channel_count_gives_the_same_sound(folder, extension, rate, channels):
    path = folder / f"speech é.{extension}"
    sound = chirps(rate, channels)
    write_m4a(path, sound, rate) if extension == "m4a" else sf.write(path, sound, rate)
    audio = load_audio(path)
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    assert len(audio) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.001)
    assert beep_of(audio) == pytest.approx(BEEP, abs=0.004)
    # the same loudness too: channels are averaged, not added; 0.5 is the beep's amplitude
    middle = audio[round(1.25 * SAMPLE_RATE) : round(1.45 * SAMPLE_RATE)]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_part_is_the_same_as_that_part_of_the_whole(folder, extension):
    path = folder / f"part.{extension}"
    sound = np.tile(chirps(44100, 2), (4, 1))  # beeps at 1.2, 4.2, 7.2, 10.2 s
    write_m4a(path, sound, 44100) if extension == "m4a" else sf.write(path, sound, 44100)
    part = load_audio(path, offset=6.5, duration=2.0)
    assert len(part) == 2 * SAMPLE_RATE
    assert beep_of(part) == pytest.approx((0.7, 1.0), abs=0.004)
    whole = load_audio(path)[round(6.5 * SAMPLE_RATE) : round(8.5 * SAMPLE_RATE)]
    assert np.corrcoef(part, whole)[0, 1] > 0.99


def test_opposite_channels_cancel_as_the_average_says(folder):
    sound = chirps(48000, 2)
    sound[:, 1] *= -1
    sf.write(folder / "a.wav", sound, 48000, subtype="FLOAT")
    assert np.abs(load_audio(folder / "a.wav")).max() < 1e-6


def test_a_16_khz_file_is_not_touched(folder):
    sound = chirps(SAMPLE_RATE)
    sf.write(folder / "a.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    assert np.array_equal(load_audio(folder / "a.wav"), sound[:, 0])


def test_the_length_is_rounded_down_so_that_frames_count_as_the_file_has_them(folder):
    sf.write(folder / "a.wav", chirps(44100)[:1470], 44100)  # exactly one frame of 30 fps
    assert len(load_audio(folder / "a.wav")) == 533  # not 534, which would begin a second frame


def test_a_duration_over_the_end_gives_what_is_there(folder):
    sf.write(folder / "a.wav", chirps(22050), 22050)
    assert len(load_audio(folder / "a.wav", offset=2.5, duration=10.0)) / SAMPLE_RATE == pytest.approx(0.5, abs=1e-3)


def test_a_wrong_extension_does_not_matter(folder):
    sf.write(folder / "really a wav.flac", chirps(16000), 16000, format="WAV")
    write_m4a(folder / "really aac.wav", chirps(48000, 2), 48000)
    for name in ("really a wav.flac", "really aac.wav"):
        assert beep_of(load_audio(folder / name)) == pytest.approx(BEEP, abs=0.004)


def test_the_end_of_a_long_file_is_sought_not_decoded(tmp_path):
    """Ten minutes of stereo, of which half a second is wanted: less than 1 % of the samples may be read."""
    path = tmp_path / "long.wav"
    rate = 48000
    with sf.SoundFile(path, "w", rate, 2) as file:
        for _ in range(200):
            file.write(chirps(rate, 2))
    read = []
    original = sf.SoundFile.read

    def counting(self, frames=-1, *args, **kwargs):
        block = original(self, frames, *args, **kwargs)
        read.append(len(block))
        return block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf.SoundFile, "read", counting)
        audio = load_audio(path, offset=598.0, duration=0.6)
    assert beep_of(audio) == pytest.approx((0.2, 0.5), abs=0.004)
    assert sum(read) < 0.01 * 600 * rate


def test_loading_needs_no_librosa_numba_or_torch(tmp_path):
    """They cost the worker seconds at its start."""
    sf.write(tmp_path / "a.wav", chirps(44100), 44100)
    code = (
        "import sys; from lsf_core.audio import load_audio, voice_activity;"
        f"voice_activity(load_audio({str(tmp_path / 'a.wav')!r}));"
        "print([m for m in ('librosa', 'numba', 'torch', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=DEMO.parents[2])
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- what is refused, and in which words


def refused(path: object, *words: str, **options: float) -> None:
    """load_audio must raise an AudioError that names the path and holds all the words."""
    with pytest.raises(AudioError) as caught:
        load_audio(path, **options)  # type: ignore[arg-type]
    for word in (os.fspath(path), *words):  # type: ignore[call-overload]
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(folder):
    refused(folder / "nö.wav", "does not exist", "Check the path")


def test_a_folder(folder):
    refused(folder, "folder", "Choose a file")


@pytest.mark.parametrize("extension", ["wav", "mp3", "m4a", "ogg"])
def test_an_empty_file(folder, extension):
    path = folder / f"a.{extension}"
    path.touch()
    refused(path, "empty (0 bytes)", "Export it again")


def test_a_file_with_a_header_and_no_samples(folder):
    sf.write(folder / "a.wav", np.zeros((0, 1)), 16000)
    refused(folder / "a.wav", "no samples")


@pytest.mark.parametrize("extension", ["wav", "mp3", "m4a", "ogg", "flac"])
def test_a_corrupt_file(folder, extension):
    path = folder / f"a.{extension}"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    refused(path, "cannot be decoded", "convert it")


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "m4a"])
def test_a_file_whose_header_was_destroyed(folder, extension):
    path = folder / f"a.{extension}"
    write_m4a(path, chirps(48000), 48000) if extension == "m4a" else sf.write(path, chirps(16000), 16000)
    whole = path.read_bytes()
    path.write_bytes(bytes(600) + whole[600:])
    refused(path, "cannot be decoded")


@pytest.mark.parametrize("name", ["notes.txt", "samples without a header.raw"])
def test_files_that_only_look_like_media(folder, name):
    (folder / name).write_text("This is no sound at all. " * 400)
    refused(folder / name, "no audio stream")


def test_an_m4a_cut_off_in_the_middle(folder):
    write_m4a(folder / "whole.m4a", chirps(48000, 2), 48000)
    whole = (folder / "whole.m4a").read_bytes()
    (folder / "cut.m4a").write_bytes(whole[: len(whole) // 2])  # its index stands at the end and is gone
    refused(folder / "cut.m4a", "cannot be decoded")


def test_a_film_without_sound(folder):
    write_silent_video(folder / "film.mp4")
    refused(folder / "film.mp4", "no audio stream", "Choose a file with sound")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_numbers(folder, value):
    sound = chirps(16000)
    sound[8000] = value
    sf.write(folder / "a.wav", sound, 16000, subtype="FLOAT")
    refused(folder / "a.wav", "NaN", "0.500 s", "Export it again")


@pytest.mark.parametrize("extension", ["wav", "m4a"])
def test_an_offset_beyond_the_end(folder, extension):
    path = folder / f"a.{extension}"
    sound = chirps(48000, 2)
    write_m4a(path, sound, 48000) if extension == "m4a" else sf.write(path, sound, 48000)
    refused(path, "offset 7.25 s", "beyond the end", "3.00 s", "trim", offset=7.25)


@pytest.mark.parametrize("options", [{"offset": -1.0}, {"offset": float("nan")}, {"duration": 0.0}, {"duration": -2.0}])
def test_times_that_make_no_sense(folder, options):
    sf.write(folder / "a.wav", chirps(16000), 16000)
    refused(folder / "a.wav", str(next(iter(options.values()))), **options)


def test_silence_is_refused_and_its_level_named():
    with pytest.raises(AudioError, match=r"is silent: its loudest moment is at -100 dB.*offset and trim"):
        check_speech(np.zeros(SAMPLE_RATE, np.float32))
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    with pytest.raises(AudioError, match=r"'take 3.wav' is silent: its loudest moment is at -(79|80) dB"):
        check_speech(hiss, "'take 3.wav'")


def test_a_tenth_of_a_second_is_refused_and_a_quarter_is_not():
    with pytest.raises(AudioError, match=r"too short: 0.10 s, at least 0.2 s"):
        check_speech(chirps(SAMPLE_RATE)[:1600, 0])
    check_speech(chirps(SAMPLE_RATE)[round(1.2 * SAMPLE_RATE) :][:4000, 0])


def test_quiet_speech_and_a_single_word_in_long_silence_are_accepted():
    speech = load_audio(DEMO)
    check_speech(speech * 0.01)
    long = np.zeros(60 * SAMPLE_RATE, np.float32)
    long[:4000] = speech[SAMPLE_RATE : SAMPLE_RATE + 4000]
    check_speech(long)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.full(SAMPLE_RATE, np.nan, np.float32), "NaN"),
        (np.zeros((SAMPLE_RATE, 2), np.float32), "mono"),
        (np.zeros(SAMPLE_RATE, np.int16), "int16"),
    ],
)
def test_arrays_that_are_no_mono_float_sound(audio, words):
    with pytest.raises(AudioError, match=words):
        check_speech(audio)


# ---------------------------------------------------------------- loudness and voice


def test_loudness_is_in_decibels_and_centred_on_the_frames_of_a_motion():
    audio = chirps(SAMPLE_RATE)[:, 0]
    level = loudness_db(audio)
    assert len(level) == 150
    assert level[65] == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.1)
    # half of the window lies in the beep where it begins and ends: 3 dB under its level there
    for edge in BEEP:
        assert level[round(edge * 50)] == pytest.approx(level[65] - 3.01, abs=0.5)
    assert loudness_db(np.zeros(1000, np.float32)).tolist() == [-100.0] * 4


@pytest.mark.parametrize("rate", [24.0, 30.0, 50.0, 100.0])
def test_loudness_has_as_many_frames_as_a_motion(rate):
    audio = np.ones(round(7.651 * SAMPLE_RATE), np.float32)
    assert len(loudness_db(audio, rate)) == int(np.ceil(7.651 * rate))


def test_loudness_stays_exact_after_a_long_loud_past():
    audio = np.concatenate([np.ones(600 * SAMPLE_RATE, np.float32), np.zeros(SAMPLE_RATE, np.float32)])
    assert loudness_db(audio)[-10:].tolist() == [-100.0] * 10


@pytest.mark.parametrize("noise_db", [-90, -60, -45])
@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_voice_is_found_where_it_is_at_any_level_and_noise_floor(noise_db, gain):
    speech = load_audio(DEMO)[: 2 * SAMPLE_RATE]
    rng = np.random.default_rng(1)
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    audio = np.concatenate([silence, speech, silence, speech, silence])
    audio = (audio + 10 ** (noise_db / 20) * rng.standard_normal(len(audio))) * gain
    active = voice_activity(audio.astype(np.float32))
    assert len(active) == 500
    assert active[110:195].mean() > 0.9
    assert active[310:395].mean() > 0.9
    for quiet in (slice(0, 90), slice(225, 290), slice(425, 500)):
        assert not active[quiet].any()


def test_a_click_is_no_voice_and_a_short_gap_no_pause():
    audio = np.zeros(3 * SAMPLE_RATE, np.float32)
    audio[round(0.5 * SAMPLE_RATE) : round(0.5 * SAMPLE_RATE) + 40] = 0.5  # 2.5 ms
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    audio[round(1.5 * SAMPLE_RATE) : round(2.5 * SAMPLE_RATE)] = tone
    audio[round(1.95 * SAMPLE_RATE) : round(2.05 * SAMPLE_RATE)] = 0  # the closure of a long /t/
    active = voice_activity(audio)
    assert not active[:70].any()
    assert active[75:125].all()
    assert not active[135:].any()


def test_silence_and_nothing_have_no_voice():
    assert not voice_activity(np.zeros(SAMPLE_RATE, np.float32)).any()
    assert voice_activity(np.zeros(0, np.float32)).shape == (0,)
