"""# Foreign: what people hand over by mistake, told by its first bytes or its ending

recognise(b"%PDF-1.7 …", "scan.pdf")  →  "a PDF", what to do about it
"""

from pathlib import PurePath

_PAGE = ("a web page, perhaps a failed download", "fetch the picture itself")
_VIDEO = ("a video", "take its frames first: `ffmpeg -i VIDEO frames/%06d.png`")
_HEIC = ("an HEIC photo", "save it as JPEG: `heif-convert PHOTO photo.jpg`")
_WEIGHTS = ("weights of a model", "give pictures, and this after --model")
_EXPORTED = (
    "an exported model",
    "give pictures, and after --model the checkpoint it was exported from",
)

STARTS = {
    b"%pdf": ("a PDF", ""),
    b"%!ps": ("PostScript", ""),
    b"<svg": ("an SVG drawing", ""),
    b"<?xml": ("XML, perhaps an SVG drawing", ""),
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"pk\x03\x04": ("a zip archive", "unpack it, and give the pictures"),
    b"\x1f\x8b": ("gzip", "unpack it, and give the pictures"),
    b"\x93numpy": ("a NumPy array", "give the array itself: numpy.load(FILE)"),
    b"version https://git-lfs": (
        "a Git LFS pointer, not the picture itself",
        "fetch it: `git lfs pull`",
    ),
    b"\x1ae\xdf\xa3": _VIDEO,  # Matroska, WebM
    b"0&\xb2u\x8ef\xcf\x11": _VIDEO,  # Windows Media
    b"\x00\x00\x01\xba": _VIDEO,  # MPEG
    b"\x00\x00\x01\xb3": _VIDEO,
    b"flv\x01": _VIDEO,
    b"oggs": _VIDEO,
}
"""First bytes, in small letters → what it is, and the remedy if it is not to convert it."""

ENDINGS = {
    ".onnx": _EXPORTED,
    ".pt2": _EXPORTED,
    ".xml": ("XML, an exported OpenVINO model or annotations", _EXPORTED[1]),
    ".safetensors": _WEIGHTS,
    ".pth": _WEIGHTS,
    ".pt": _WEIGHTS,
    ".json": ("JSON, perhaps annotations", "give pictures, and annotations after --annotations"),
}
VIDEO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide")
"""What an MP4 or QuickTime file may begin with, after four bytes of length."""
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF = (b"avif", b"avis")


def recognise(data: bytes, where: str) -> tuple[str, str]:
    """What a file is that is no picture, and what to do, or "" where converting it helps."""
    brand = data[8:12]
    if data[4:8] == b"ftyp" and brand in HEIC:
        return _HEIC
    avi = data[:4] == b"RIFF" and brand == b"AVI "
    if avi or (data[4:8] in VIDEO_BOXES and brand not in AVIF):
        return _VIDEO
    ending = PurePath(where).suffix.lower()
    if ending in ENDINGS:
        return ENDINGS[ending]
    start = data[:64].lstrip().lower()
    for magic, known in STARTS.items():
        if start.startswith(magic):
            return known
    return "no picture in a format we read, or its first bytes are damaged", ""
