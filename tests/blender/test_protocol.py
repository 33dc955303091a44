"""The lines that Blender and the engine exchange."""

from __future__ import annotations

import json

import pytest

from blender_addon.shared import protocol
from blender_addon.shared import protocol as p


def test_messages_come_out_as_they_went_in():
    request = p.Request(3, "animate", {"audio": "/tmp/Ünï 日本.wav", "frames": None, "offset": -0.25})
    assert p.decode_request(p.encode(request)) == request
    for event in (p.Event(3, p.PROGRESS, 0.25, "Listening"), p.Event(3, p.RESULT, data={"names": ["jawOpen"]}),
                  p.Event(3, p.ERROR, kind=p.USER, message="No face.", trace="a\nb")):
        assert p.decode_event(p.encode(event)) == event


def test_a_message_is_one_line_of_ascii():
    line = p.encode(p.Event(1, p.ERROR, message="zwei\nZeilen ü \u2028", trace="\n\n"))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.isascii()


@pytest.mark.parametrize("line", [
    b"", b"\n", b"hello\n", b"[1]\n", b"{}\n", b'{"id": "1", "event": "result"}\n', b'{"id": 1, "event": "explode"}\n',
    b'{"id": 1, "event": "progress", "fraction": "half"}\n', b'{"id": 1, "event": "result", "data": [1]}\n',
    b"\xff\xfe\n", b"[" * 100_000, b'{"id": 1, "event": "error", "message": 5}',
])
def test_lines_of_something_else_are_refused(line):
    with pytest.raises(p.ProtocolError):
        p.decode_event(line)


def test_unknown_methods_are_refused_and_unknown_fields_left_out():
    with pytest.raises(p.ProtocolError, match="Unknown method 'exec'"):
        p.decode_request(b'{"id": 1, "method": "exec"}')
    assert p.decode_event(b'{"id": 1, "event": "result", "colour": "blue"}') == p.Event(1, p.RESULT)


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        p.encode(p.Request(1, "rig", {"x": float("nan")}))


def test_a_line_that_would_be_too_long_is_refused():
    with pytest.raises(p.ProtocolError, match="over the"):
        p.encode(p.Request(1, "rig", {"x": "y" * protocol.MAX_LINE}))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", None, 3])
def test_file_names_do_not_lead_out_of_the_jobs_folder(name):
    with pytest.raises(p.ProtocolError, match="plain file name"):
        p.inside("/tmp/job", name)


def test_every_line_is_json(tmp_path):
    assert json.loads(p.encode(p.Request(1, "hello"))) == {"id": 1, "method": "hello"}
