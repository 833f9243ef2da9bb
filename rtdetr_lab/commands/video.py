"""# Video: detect in a clip, a camera or a stream, and write a clip with boxes

Beside the clip lies a file of JSON lines with the boxes of every frame. Its memory does not grow
with the length of the video. What is done stays when the video is damaged, or after Ctrl-C.
"""

import glob
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TextIO

from rtdetr_lab.commands.base import DONE, bar, say
from rtdetr_lab.commands.wanted import Wanted
from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError, OutputError
from rtdetr_lab.writing import file_stem, replacing, writing

if TYPE_CHECKING:
    from rtdetr_lab.deployment.video import Clip, VideoFrame
    from rtdetr_lab.detections import Detections
    from rtdetr_lab.detector import Detector

WRITTEN = (".mp4", ".m4v", ".mov", ".mkv")
"""Endings of the clips that we write."""

OTHERS = (".avi", ".webm", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob", ".wmv", ".asf")
ENDINGS = (*WRITTEN, *OTHERS, ".flv", ".3gp", ".ogv")
"""Endings of files that we take for a video."""


def is_live(word: str) -> bool:
    """Return whether a word means a camera (a number) or a stream (an address)."""
    return "://" in word or (word.isdecimal() and not Path(word).exists())


def is_video(word: str) -> bool:
    """Return whether a word means a clip (by its ending), a camera (a number) or a stream."""
    path = Path(word).expanduser()
    if "://" in word:
        from rtdetr_lab.images.decode import SUFFIXES

        return PurePosixPath(word.partition("?")[0]).suffix.lower() not in SUFFIXES
    several = path.is_dir() or (glob.has_magic(word) and not path.exists())
    return is_live(word) or (not several and word.lower().endswith(ENDINGS))


@dataclass(kw_only=True)
class Watch:
    """Detect in one video. `out` is the new clip, or the folder for it."""

    word: str
    out: Path
    pictures: bool
    json: bool
    limit: int | None
    batch_size: int

    def __post_init__(self) -> None:
        """Raise `OutputError` if a file that we write is there already."""
        ending = self.out.suffix.lower()
        given = ending in WRITTEN and not self.out.is_dir()
        clip = ending in (*ENDINGS, ".jsonl") and not self.out.is_dir()
        remedy = f"end its name with one of {', '.join(WRITTEN)}, or give a folder"
        require(given or not clip, self.out, "is no clip that we write", remedy, OutputError)
        stem = Path(self.word).stem if "://" not in self.word else "stream"
        stem = f"camera{stem}" if self.word.isdecimal() else file_stem(stem)
        self.clip = self.out if given else self.out / f"{stem}_detected.mp4"
        self.lines = self.clip.with_suffix(".jsonl")
        for path in (self.clip, self.lines):
            remedy = "remove it, or give another name with --out"
            require(not path.exists(), path, "is there already", remedy, OutputError)
        self.seen, self.counts = 0, Counter[str]()

    def run(self, load: "Callable[[], Detector]", wanted: Wanted) -> int:
        """Write the clip and the lines. Raises `ImageError` for a damaged video, at the end."""
        from rtdetr_lab.deployment.video import Clip, Video, detected

        live = is_live(self.word)
        detector = load() if live else None  # a stream does not wait for a download
        video = Video(self.word if live else Path(self.word).expanduser())
        detector = detector or load()

        def detect(frames: list[Any]) -> list[Any]:
            results = list(detector.each(frames, batch_size=self.batch_size))
            for wrong in (one for one in results if isinstance(one, ImageError)):
                raise wrong
            return results

        results = islice(detected(video, detect, self.batch_size), self.limit)
        shown = bar()(results, total=self.limit or video.count, unit="frame")
        with writing(self.clip):
            self.clip.parent.mkdir(parents=True, exist_ok=True)
        end: ImageError | KeyboardInterrupt | BrokenPipeError | None = None
        with ExitStack() as stack:
            file = stack.enter_context(replacing(self.lines))
            lines = stack.enter_context(open(file, "w", encoding="utf8"))
            clip = None
            if self.pictures:
                file = stack.enter_context(replacing(self.clip))
                clip = stack.enter_context(Clip(file, str(self.clip), video.rate))
            try:
                for frame, found in shown:
                    self._take(frame, wanted.of(found), lines, clip)
            except (ImageError, KeyboardInterrupt, BrokenPipeError) as error:  # keep what is done
                end = error
            if end is not None and not self.seen:
                raise end
        names = ", ".join(f"{n} {name}" for name, n in self.counts.most_common()) or "nothing"
        where = f"{self.clip}, {self.lines.name}" if self.pictures else self.lines
        say(f"{video.name}: {self.seen} frames, {names} → {where}", aside=self.json)
        if end is not None:
            raise end
        return DONE

    def _take(
        self, frame: "VideoFrame", found: "Detections", lines: TextIO, clip: "Clip | None"
    ) -> None:
        row = {"index": self.seen, "seconds": round(frame.seconds, 6), "size": list(found.size)}
        line = json.dumps(row | {"detections": found.to_json()["detections"]})
        if self.json:
            print(line)
        self.seen += 1
        self.counts.update(found.names)
        lines.write(line + "\n")
        if clip is not None:
            clip.add(found.drawn(), frame.seconds)
