"""A clip goes in, a clip with boxes comes out, and every frame has its line."""

import json
import os
import sys
import threading
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from green_things import GreenThings, meadow

from rtdetr_lab.cli import main
from rtdetr_lab.commands import detect as detect_command
from rtdetr_lab.commands import video as video_command
from rtdetr_lab.commands.video import is_video
from rtdetr_lab.deployment import video
from rtdetr_lab.deployment.video import Clip, Video, detected
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ImageError, OutputError

av = pytest.importorskip("av", reason="runs with the extra [video]")

SECONDS = (0.0, 0.04, 0.1, 0.5, 0.54, 0.9)
"""A clip without a constant frame rate."""


def left(i):
    """The left side of the green thing in frame i."""
    return 10 + 6 * i


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A working folder with clip.mp4: 91 × 61, and a green thing that walks to the right."""
    monkeypatch.chdir(tmp_path)
    write("clip.mp4")
    monkeypatch.setattr(detect_command, "model_of", lambda *_, **__: GreenThings().eval())
    return tmp_path


def write(name, height=61, width=91, seconds=SECONDS):
    with Clip(Path(name), name, Fraction(25)) as clip:
        for i, at in enumerate(seconds):
            clip.add(meadow(height, width, (left(i), 12, left(i) + 20, 36)), at)


def detect(*words):
    return main(["detect", *words, "--device", "cpu", "--batch-size", "4"])


def lines(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def lefts(rows):
    return [row["detections"][0]["box_xyxy"][0] for row in rows]


def test_every_frame_keeps_its_time_and_gets_its_boxes(clips, capsys):
    assert detect("clip.mp4", "--out", "new/boxes.mp4") == 0
    rows = lines("new/boxes.jsonl")
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["seconds"] for row in rows] == pytest.approx(SECONDS, abs=1e-4)
    assert lefts(rows) == pytest.approx([left(i) for i in range(6)], abs=1.5)
    assert "clip.mp4: 6 frames, 6 class 1 → new/boxes.mp4, boxes.jsonl" in capsys.readouterr().out
    drawn = list(Video("new/boxes.mp4"))
    assert [frame.seconds for frame in drawn] == pytest.approx(SECONDS, abs=1e-4)
    assert drawn[3].rgb[:12].max() > 100, "the label is drawn above the thing"
    assert sorted(os.listdir("new")) == ["boxes.jsonl", "boxes.mp4"]


@pytest.mark.parametrize(
    "words", [("0.1", "--only", "class 0"), ("class 1=0.99,class 0=0.1",)], ids=["only", "by class"]
)
def test_only_what_is_wanted_is_in_lines_and_counts(clips, capsys, words):
    assert detect("clip.mp4", "--out", "boxes.mp4", "--threshold", *words) == 0
    names = [[found["name"] for found in row["detections"]] for row in lines("boxes.jsonl")]
    assert names == [["class 0"]] * 6
    assert "6 frames, 6 class 0 → " in capsys.readouterr().out


def test_an_odd_size_gets_one_more_row_and_column_that_repeat_the_last(clips):
    odd = meadow(61, 91, (71, 41, 91, 61))
    with Clip(Path("odd.mkv"), "odd.mkv", Fraction(25)) as clip:
        clip.add(odd, 0.0)
    (frame,) = Video("odd.mkv")
    assert frame.rgb.shape == (62, 92, 3)
    assert frame.rgb[50:, 80:, 1].min() > 200


def turned(name, degrees):
    """Let the header of an MP4 ask a player to rotate the clip clockwise."""
    data = bytearray(Path(name).read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b = {90: (0, 1), 180: (-1, 0)}[degrees]
    for i, value in enumerate((a, b, 0, -b, a)):
        data[at + 4 * i : at + 4 * i + 4] = (value << 16).to_bytes(4, "big", signed=True)
    Path(name).write_bytes(data)


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2)])
def test_a_rotated_clip_is_upright_as_a_player_shows_it(clips, degrees, turns):
    lying = next(iter(Video("clip.mp4"))).rgb
    turned("clip.mp4", degrees)
    assert np.array_equal(next(iter(Video("clip.mp4"))).rgb, np.rot90(lying, turns))


@pytest.mark.parametrize("name", ["damaged.mp4", "none.mp4", "text.mp4"])
def test_a_clip_that_cannot_be_read_is_named_in_one_line(clips, capsys, name):
    data = Path("clip.mp4").read_bytes()
    if name != "none.mp4":
        Path(name).write_bytes(data[: len(data) // 2] if name == "damaged.mp4" else b"no clip")
    assert detect(name, "--out", "boxes.mp4") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rtdetr-lab: {name}: cannot be opened as a video: ")
    assert not Path("boxes.mp4").exists()


def test_the_frames_before_the_damage_are_kept(clips, capsys):
    """Every frame is a PNG of its own, and the fourth one loses its first bytes."""
    with av.open("clip.avi", "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 61, 91, "rgb24"
        for i in range(6):
            rgb = meadow(61, 91, (left(i), 12, left(i) + 20, 36))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
    parts = Path("clip.avi").read_bytes().split(b"\x89PNG")
    parts[4] = b"rubb" + parts[4][4:]
    Path("clip.avi").write_bytes(b"\x89PNG".join(parts))
    assert detect("clip.avi", "--out", "boxes.mp4") == 1
    shown = capsys.readouterr()
    assert "clip.avi: 3 frames" in shown.out
    assert "clip.avi: is damaged after 3 frames: Invalid data" in shown.err
    assert len(lines("boxes.jsonl")) == len(list(Video("boxes.mp4"))) == 3


def test_a_reader_that_goes_away_keeps_what_is_done(clips, monkeypatch, capsys):
    """`rtdetr-lab detect clip.mp4 --json | head -2`"""
    printed = []

    def told(line):
        printed.append(line)
        if len(printed) == 3:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(video_command, "print", told, raising=False)
    detect("clip.mp4", "--out", "boxes.mp4", "--json")
    assert "make room" not in capsys.readouterr().err
    assert len(lines("boxes.jsonl")) == len(list(Video("boxes.mp4"))) == 2


@pytest.mark.parametrize(
    ("told", "wanted", "late"),
    [
        ((10, 10.2, 10.4, 0, 0.2, 0.5), (0, 0.2, 0.4, 0.4, 0.6, 0.9), 3),
        ((10, 10.2, 10.2, 10.4), (0, 0.2, 0.2, 0.4), 2),
    ],
    ids=["goes back", "stands still"],
)
def test_a_clock_that_does_not_go_on_starts_anew(clips, monkeypatch, told, wanted, late):
    """From frame `late` on, all times are one frame later."""
    frames, times = list(Video("clip.mp4")), iter([*told, None])

    class Late:
        rotation = 0

        def __init__(self, time):
            self.time = time

        def to_ndarray(self, format):
            return frames[0].rgb

    monkeypatch.setattr(Video, "_next", lambda *_: (t := next(times)) is not None and Late(t))
    clip = Video("clip.mp4")
    step = float(1 / clip.rate)
    moved = [at + step * (i >= late) for i, at in enumerate(wanted)]
    assert [frame.seconds for frame in clip] == pytest.approx(moved)


def test_a_video_is_read_once_and_a_clip_has_a_known_ending(clips):
    clip = Video("clip.mp4")
    assert len(list(clip)) == 6
    with pytest.raises(ImageError, match=r"clip.mp4: was read already; open it again"):
        next(iter(clip))
    with pytest.raises(OutputError, match=r"x.avi: is no clip that we write; end its name with"):
        Clip(Path("x.avi"), "x.avi", Fraction(25))


def test_a_written_clip_says_how_its_colours_are_stored(clips):
    with av.open("clip.mp4") as container:
        codec = container.streams.video[0].codec_context
        next(container.decode(video=0))
        assert (codec.colorspace, codec.color_range) == (6, 1)


def test_as_many_frames_are_detected_at_a_time_as_asked(clips, monkeypatch):
    sizes, forward = [], GreenThings.forward

    def counted(self, images, *rest, **more):
        sizes.append(len(images))
        return forward(self, images, *rest, **more)

    monkeypatch.setattr(GreenThings, "forward", counted)
    write("long.mp4", seconds=[i / 25 for i in range(12)])
    command = ["detect", "long.mp4", "--out", "new.mp4", "--device", "cpu", "--batch-size", "10"]
    assert main(command) == 0
    assert sizes == [10, 2]


def test_words_that_mean_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames.mp4").mkdir()
    (tmp_path / "7").mkdir()
    videos = ("a.mp4", "A.MOV", "b/c.ogv", "0", "rtsp://h/a", "https://h/a.m3u8?x=a.jpg")
    assert [word for word in videos if not is_video(word)] == []
    others = ("a.png", "*.mp4", "frames.mp4", "7", "https://h/a.jpg", "file:///a.PNG?x", "a")
    assert [word for word in others if is_video(word)] == []


def test_a_clip_without_a_frame_leaves_no_file(clips, capsys):
    with av.open("empty.avi", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert detect("empty.avi", "--out", "boxes.mp4") == 1
    assert "empty.avi: has no frame" in capsys.readouterr().err
    assert not [name for name in os.listdir() if "boxes" in name]


@pytest.mark.parametrize("there", ["boxes.mp4", "boxes.jsonl"])
def test_a_file_that_is_there_is_not_replaced(clips, capsys, there):
    Path(there).write_text("mine")
    assert detect("clip.mp4", "--out", "boxes.mp4") == 1
    assert f"{there}: is there already; remove it, or give another name" in capsys.readouterr().err
    assert Path(there).read_text() == "mine"


def test_a_clip_is_not_replaced_by_its_own_boxes(clips, capsys):
    assert detect("clip.mp4", "--out", "clip.mp4") == 1
    assert "clip.mp4: is there already" in capsys.readouterr().err


def test_a_camera_is_read_like_a_clip(clips, monkeypatch, capsys):
    stand_in = dict.fromkeys(
        ("linux", "darwin"), ("lavfi", "testsrc=size=80x50:rate=10,settb=1/{}9")
    )
    monkeypatch.setattr(video, "CAMERAS", stand_in)
    waited, opened = [], av.open
    monkeypatch.setattr(
        av, "open", lambda *a, **k: waited.append(k.get("timeout")) or opened(*a, **k)
    )
    assert detect("1", "--limit", "3", "--json", "--no-pictures") == 0
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert rows == lines("out/camera1_detected.jsonl")
    assert [row["seconds"] for row in rows] == pytest.approx([0, 0.1, 0.2], abs=0.06)
    assert os.listdir("out") == ["camera1_detected.jsonl"]
    assert waited == [video.WAIT]


def test_a_stream_is_read_and_its_password_is_not_shown(clips, capsys):
    handler = partial(SimpleHTTPRequestHandler, directory=str(clips))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://me:secret@127.0.0.1:{server.server_port}"
        assert detect(f"{address}/clip.mp4") == 0
        assert len(lines("out/stream_detected.jsonl")) == 6
        assert detect(f"{address}/no.mp4", "--out", "no") == 1
        server.shutdown()
    shown = capsys.readouterr()
    assert "no.mp4: cannot be opened as a video: " in shown.err
    told = [line for line in (shown.out + shown.err).splitlines() if line.startswith("rtdetr-lab:")]
    assert not [line for line in told if "secret" in line]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("clip.mp4", "a.png"), "detect: 2 words, and a video among them; give a video alone"),
        (("clip.mp4", "--write", "csv"), "--write: is for pictures; leave it out"),
        (("clip.mp4", "--coco", "r.json"), "--coco: is for pictures"),
    ],
)
def test_what_a_video_cannot_have_is_refused(clips, capsys, words, says):
    assert detect(*words) == 1
    assert says in capsys.readouterr().err


def test_without_pyav_the_extra_is_named(clips, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert detect("clip.mp4") == 1
    assert "av: is not installed; pip install 'rtdetr_lab[video]'" in capsys.readouterr().err


def test_decoding_detecting_and_encoding_overlap(clips):
    """While the caller holds the first frame, the threads decode and detect the next ones."""
    detector, third = Detector(GreenThings().eval(), size=(62, 92)), threading.Event()

    def watched(pictures):
        found = detector(pictures)
        if abs(float(found[0].boxes_xyxy[0, 0]) - left(2)) < 2:
            third.set()
        return found

    results = detected(Video("clip.mp4"), watched, batch=1)
    next(results)
    assert third.wait(30)
    assert len(list(results)) == 5


def test_an_error_of_the_frames_comes_after_the_frames_before_it(clips):
    def broken():
        yield from list(Video("clip.mp4"))[:3]
        raise ImageError("clip.mp4", "is damaged", "look")

    results = detected(broken(), Detector(GreenThings().eval(), size=(62, 92)), batch=2)
    assert [frame.seconds for frame, _ in (next(results) for _ in range(3))] == pytest.approx(
        SECONDS[:3], abs=1e-4
    )
    with pytest.raises(ImageError, match="is damaged"):
        next(results)
