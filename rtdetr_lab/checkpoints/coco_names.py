r"""# Names of COCO's ids, gaps included

DETR's published models count classes as COCO does: label 17 *is* category 17. 91 labels for the
detection task, of which 80 occur; 250 for the panoptic one, of which 133 occur, 80 things and 53
kinds of stuff. A label that does not occur is called `N/A`, as in their own lists.
"""

from rtdetr_lab.checkpoints.metadata import COCO_CLASSES, COCO_IDS

_STUFF = (
    "92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff, "
    "118 floor-wood, 119 flower, 122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff, "
    "138 net, 141 pillow, 144 platform, 145 playingfield, 147 railroad, 148 river, 149 road, "
    "151 roof, 154 sand, 155 sea, 156 shelf, 159 snow, 161 stairs, 166 tent, 168 towel, "
    "171 wall-brick, 175 wall-stone, 176 wall-tile, 177 wall-wood, 178 water-other, "
    "180 window-blind, 181 window-other, 184 tree-merged, 185 fence-merged, 186 ceiling-merged, "
    "187 sky-other-merged, 188 cabinet-merged, 189 table-merged, 190 floor-other-merged, "
    "191 pavement-merged, 192 mountain-merged, 193 grass-merged, 194 dirt-merged, "
    "195 paper-merged, 196 food-other-merged, 197 building-other-merged, 198 rock-merged, "
    "199 wall-other-merged, 200 rug-merged"
)
COCO_STUFF = {int(i): name for i, _, name in (s.partition(" ") for s in _STUFF.split(", "))}
"""COCO panoptic's kinds of stuff, by category id."""

_BY_ID = dict(zip(COCO_IDS, COCO_CLASSES, strict=True)) | COCO_STUFF


def _names(count: int) -> tuple[str, ...]:
    return tuple(_BY_ID.get(i, "N/A") for i in range(count))


PUBLISHED_NAMES = {91: _names(91), 250: _names(250)}
"""Number of classes → their names, as the published DETRs have them."""
