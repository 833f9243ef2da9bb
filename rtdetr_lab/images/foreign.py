"""# Foreign: files that are not pictures, recognised by their first bytes or their ending

recognise(b"%PDF-1.7 …", "scan.pdf")  →  "a PDF", and what to do about it
"""

from pathlib import PurePath

_VIDEO = ("a video", "give it alone: `rtdetr-lab detect VIDEO --out boxes.mp4`")
_PAGE = ("a web page, perhaps a failed download", "fetch the picture itself")
_WEIGHTS = ("weights of a model", "give pictures, and this file after --model")
_EXPORTED = ("an exported model", "give pictures, and the original checkpoint after --model")

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
    b"version https://git-lfs": ("a Git LFS pointer, not the picture itself", "run `git lfs pull`"),
}
"""First bytes, in lower case → kind and remedy; an empty remedy means: convert it."""

ENDINGS = {
    ".onnx": ("an ONNX model", _WEIGHTS[1]),
    ".pt2": _EXPORTED,
    ".xml": ("XML, an exported OpenVINO model or annotations", _EXPORTED[1]),
    ".safetensors": _WEIGHTS,
    ".pth": _WEIGHTS,
    ".pt": _WEIGHTS,
    ".json": ("JSON, perhaps annotations", "give pictures, and annotations after --annotations"),
}
VIDEOS = (b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"OggS")
"""First bytes of Matroska and WebM, Windows Media, MPEG, Flash and Ogg."""
BOXES = (b"ftyp", b"moov", b"mdat", b"wide")
"""First bytes of MP4, QuickTime, HEIC and AVIF, after a length of four bytes."""
HEIC = (b"hei", b"hev", b"mif1", b"msf1")


def recognise(data: bytes, where: str) -> tuple[str, str]:
    """Name a file that is not a picture, and say what to do with it.

    The second text is empty if it helps to convert the file.
    """
    brand, ending = data[8:12], PurePath(where).suffix.lower()
    boxes = data[4:8] in BOXES and not brand.startswith(b"avi")
    if boxes and brand.startswith(HEIC):
        return "an HEIC photo", "save it as JPEG: `heif-convert PHOTO photo.jpg`"
    if boxes or data.startswith(VIDEOS) or (data.startswith(b"RIFF") and brand == b"AVI "):
        return _VIDEO
    if ending in ENDINGS:
        return ENDINGS[ending]
    start = data[:64].lstrip().lower()
    known = (known for magic, known in STARTS.items() if start.startswith(magic))
    return next(known, ("not a picture in a format we read, or its first bytes are damaged", ""))
