r"""# Video: frames of a clip, a camera or a stream, and a clip with boxes

    clip = Video("clip.mp4")                          # or 0, a camera; or "rtsp://…"
    for frame, found in detected(clip, detector):
        print(frame.seconds, found)

PyAV reads and writes video (the extra [video]). A thread decodes ahead, another one detects, and
the caller draws and encodes: the three overlap (`stream.py`).

| property of a clip    | what we do                                                               |
|-----------------------|--------------------------------------------------------------------------|
| rotation              | frames are upright, as a player shows them                               |
| variable frame rate   | each frame keeps its time                                                |
| no times in the file  | the frame rate gives them                                                |
| odd width or height   | H.264 stores colour for 2 × 2 pixels: the last row or column is repeated |
| a clock that goes back | it starts anew, one frame after the last                                |
| a frame that is no frame | the frames before it are yielded, then `ImageError` is raised         |
| other damage          | H.264 hides it: some frames are wrong, and no error is raised            |
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rtdetr_lab.config import require
from rtdetr_lab.deployment.stream import ahead
from rtdetr_lab.detections import Detections
from rtdetr_lab.errors import ImageError, OutputError, converting, import_extra
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.writing import MAKE_ROOM

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Endings of the clips that we write → format of the container."""

CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
"""System → format of its cameras in FFmpeg, and the name of camera {}."""

TICKS = 90_000
"""Ticks per second of the clips that we write, as in MPEG."""

BT601, LIMITED = 6, 1
"""Numbers of the colours that we write, in FFmpeg: without them a player has to guess."""

WAIT = 15.0
"""Seconds to wait for a stream, or for a camera that its driver lets us interrupt."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """Upright picture, and its time in seconds since the first frame."""

    rgb: RGB
    seconds: float


class Video:
    """Frames of a file, of a camera (its number) or of a stream (an address with `://`).

    `count` is the number of frames that the file states, or None. Raises `MissingExtraError`
    without PyAV, and `ImageError` for what cannot be opened or has no video.
    """

    def __init__(self, source: str | Path | int) -> None:
        word = str(source)
        self.name = word  # a message must not show a password
        if "://" in word:
            self.name = re.sub(r"//[^/]*@", "//", word).partition("?")[0]
        self._av = import_extra("av", "video")
        with self._reading("cannot be opened as a video: {}"):
            self._container = self._opened(word)
        some = self._container.streams.video
        require(some, self.name, "has no video", "give a clip, a camera or a stream", ImageError)
        self._stream = some[0]
        self._stream.thread_type = "SLICE"
        self._fresh = True
        self.rate = Fraction(self._stream.average_rate or 25)
        self.count: int | None = self._stream.frames or None

    def _opened(self, word: str) -> Any:
        if word.isdecimal() and not Path(word).exists():
            form, name = CAMERAS.get(sys.platform, ("dshow", "video={}"))
            return self._av.open(name.format(word), format=form, timeout=WAIT)
        streamed: dict[str, Any] = {"timeout": WAIT} if "://" in word else {}
        if word.startswith("rtsp"):
            streamed["options"] = {"rtsp_transport": "tcp"}  # UDP loses parts of frames
        return self._av.open(word, **streamed)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames, once. Raises `ImageError` where the video is damaged, or has none."""
        require(self._fresh, self.name, "was read already", "open it again", ImageError)
        self._fresh, number, start, last = False, 0, None, -1.0
        with self._container:
            decoded = self._container.decode(self._stream)
            while frame := self._next(decoded, number):
                turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                start = frame.time if start is None else start
                timed = frame.time is not None and start is not None
                seconds = float(frame.time - start if timed else number / self.rate)
                if seconds <= last:  # a clock that goes back starts anew
                    seconds = last + float(1 / self.rate)
                    start = frame.time - seconds if timed else start
                yield VideoFrame(np.ascontiguousarray(turned), seconds)
                number, last = number + 1, seconds
        require(number, self.name, "has no frame", "give a clip that a player plays", ImageError)

    def _next(self, decoded: Iterator[Any], number: int) -> Any:
        with self._reading(f"is damaged after {number} frames: {{}}"):
            return next(decoded, None)

    def _reading(self, what: str) -> AbstractContextManager[None]:
        kinds = (self._av.FFmpegError, ValueError)  # the second for a format it does not have
        return converting(kinds, ImageError, self.name, what, "try whether a player plays it")


def detected(
    frames: Iterable[VideoFrame],
    detect: Callable[[list[Any]], list[Detections]],
    batch: int = 1,
) -> Iterator[tuple[VideoFrame, Detections]]:
    """Yield every frame with its detections; `detect` is a `Detector` or an `Engine`.

    One thread decodes and another one detects, a few batches ahead of the caller. `batch` frames
    are detected at a time. An error of the frames is raised at its place.
    """
    require(batch >= 1, "batch", f"{batch} frames", "take at least one")

    def found() -> Iterator[tuple[VideoFrame, Detections]]:
        decoded, damage = ahead(frames, 2 * batch), None
        while damage is None:
            chunk: list[VideoFrame] = []
            try:
                chunk.extend(islice(decoded, batch))
            except ImageError as error:  # after the frames before it
                damage = error
            if not chunk:
                break
            yield from zip(chunk, detect([frame.rgb for frame in chunk]), strict=True)
        if damage is not None:
            raise damage

    return ahead(found(), 2 * batch)


class Clip:
    """Writes frames as an H.264 clip; `with Clip(path) as clip: clip.add(rgb, seconds)`.

    The ending of `name` chooses the container. Raises `OutputError`.
    """

    def __init__(self, path: Path, name: str, rate: Fraction) -> None:
        self._av = import_extra("av", "video")
        self.where, self.rate, self._last = name, rate, -1
        self._stream: Any = None
        form = CONTAINERS.get(Path(name).suffix.lower())
        remedy = f"end its name with one of {', '.join(CONTAINERS)}"
        require(form, name, "is no clip that we write", remedy, OutputError)
        with self._writing():
            self._container = self._av.open(str(path), "w", format=form)

    def __enter__(self) -> "Clip":
        return self

    def add(self, rgb: RGB, seconds: float) -> None:
        """Encode one frame. Frames of another size are stretched to that of the first one."""
        height, width = rgb.shape[:2]
        even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with self._writing():
            if self._stream is None:
                self._stream = self._begun(even)
            frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
            self._last = max(self._last + 1, round(seconds * TICKS))
            frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
            self._container.mux(self._stream.encode(frame))

    def _begun(self, rgb: RGB) -> Any:
        stream = self._container.add_stream("libx264", rate=self.rate)
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.colorspace, stream.codec_context.color_range = BT601, LIMITED
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what the encoder still holds, and close the file."""
        with self._writing():
            try:
                if self._stream is not None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()

    def _writing(self) -> AbstractContextManager[None]:
        kinds = (self._av.FFmpegError, ValueError)  # the second for an encoder it does not have
        return converting(kinds, OutputError, self.where, "cannot be written: {}", MAKE_ROOM)
