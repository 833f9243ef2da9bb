"""# Inference form: RT-DETR without the parts that only a loss or a reader needs

The chapters compute what a reader or a loss may want to see. A deployed model needs only its last
prediction, so some steps can be left out or shortened. Every row is exact algebra. FLOPs are those
of r18 at 640², where the training form needs 61 GFLOP:

| left out, or moved | why it changes nothing | GFLOP |
|---|---|---|
| boxes of 8400 tokens | only the Q selected tokens go on, and the scores select them | 2.1 |
| 1×1 beside 3×3 (RepVGG), batch norms | sums of linear maps are linear (`folding.py`) | 1.1 |
| 1×1 after upsampling | a 1×1 convolution and repeating cells commute: convolve first | 0.8 |
| class heads of all layers but the last | nothing reads them (box heads move the box) | 0.03 |

Another decoder, such as D-FINE's, stays as it is; the other rows still apply.

In half precision the coordinates stay in single precision. Between ½ and 1, bfloat16 has steps of
1/256; at 640 pixels such a step is 2.5 pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.ccff import CCFF, CSPRepLayer
from rtdetr_lab.decoder import Decoder, move
from rtdetr_lab.images.postprocess import at_least_single, rows_at
from rtdetr_lab.kernels.folding import ConvAct, SplitConv
from rtdetr_lab.model import DetectionModel
from rtdetr_lab.notation import Size, tokens_from_maps
from rtdetr_lab.query_selection import ProposalHead, QuerySelection, anchors
from rtdetr_lab.rtdetr import RTDETR
from rtdetr_lab.structures import LayerPrediction, Prediction, check_batch


class InferenceRTDETR(DetectionModel):
    """RT-DETR with the prediction of its last layer only. `model`'s blocks are already fused."""

    def __init__(self, model: RTDETR) -> None:
        super().__init__(model.cfg)
        self.backbone, self.encoder = model.backbone, model.encoder
        self.to_memory = model.to_memory
        self.proposals = InferenceProposals(model.proposal_head, model.selection)
        chapters = type(model.decoder) is Decoder
        self.decoder = InferenceDecoder(model.decoder) if chapters else model.decoder
        self.num_queries, self.join = model.num_queries, tokens_from_maps
        self.mask_head, self.draws_masks = model.mask_head, model.draws_masks

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Prediction:
        check_batch(images, None, self.cfg.num_classes)
        maps = self.backbone(images)
        fused = self.encoder(maps[self.draws_masks :])
        levels = self.to_memory(fused)
        shapes = [(m.shape[-2], m.shape[-1]) for m in levels]
        memory = self.join(levels)
        last = self.decoder(*self.proposals(memory, shapes), memory, shapes)[-1]
        found = Prediction(last.logits, last.boxes, (last,))
        return self.mask_head(found, (maps[0], *fused)) if self.mask_head else found


class InferenceProposals(nn.Module):
    """Proposal head and selection in one: scores for all tokens, boxes for the selected ones."""

    def __init__(self, head: ProposalHead, selection: QuerySelection) -> None:
        super().__init__()
        self.head, self.selection = head, selection

    def forward(
        self, memory: Float[Tensor, "B N D"], shapes: Sequence[Size]
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q 4"]]:
        """Return the content and the reference logits of the selected tokens."""
        head, select = self.head, self.selection
        single = at_least_single(memory[:1, :1]).dtype
        anchor_logits, valid = anchors(tuple(shapes), memory.device, single)
        tokens = head.norm(head.project(valid.to(memory.dtype) * memory))
        score = head.class_head(tokens).amax(-1)
        index = score.topk(select.num_kept(score), dim=1).indices

        chosen = rows_at(tokens, index)
        reference_logits = head.box_head(chosen) + anchor_logits[index]
        return select.content_of(chosen), reference_logits


class InferenceDecoder(nn.Module):
    """Decoder with the layers that run, all their box heads, and one class head."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        count = decoder.num_running
        self.query_position = decoder.query_position
        self.layers = decoder.layers[:count]
        self.box_heads = decoder.box_heads[:count]
        self.class_head = decoder.class_heads[count - 1]

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        reference_logits: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
    ) -> tuple[LayerPrediction]:
        reference = torch.sigmoid(reference_logits)
        for layer, box_head in zip(self.layers, self.box_heads, strict=True):
            position = self.query_position(reference.to(content.dtype))
            content = layer(content, position, reference, memory, shapes, None)
            reference = move(box_head(content), reference)
        return (LayerPrediction(self.class_head(content), reference, content=content),)


class InferenceCCFF(nn.Module):
    """`CCFF` that convolves before it upsamples."""

    def __init__(self, ccff: CCFF) -> None:
        super().__init__()
        self.lateral, self.downsample = ccff.lateral, ccff.downsample
        self.top_down = nn.ModuleList(SplitCSP(fuse) for fuse in ccff.top_down)
        self.bottom_up = ccff.bottom_up

    def forward(self, maps: Sequence[Float[Tensor, "B D _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        down = [maps[-1]]
        steps = zip(reversed(maps[:-1]), self.lateral, self.top_down, strict=True)
        for finer, lateral, fuse in steps:
            down[0] = lateral(down[0])
            down.insert(0, fuse(down[0], finer))
        up = [down[0]]
        steps = zip(down[1:], self.downsample, self.bottom_up, strict=True)
        for coarser, downsample, fuse in steps:
            up.append(fuse(torch.cat([downsample(up[-1]), coarser], dim=1)))
        return up


class SplitCSP(nn.Module):
    """`CSPRepLayer` on a coarse and a fine map: it neither upsamples its input nor stacks."""

    def __init__(self, fuse: nn.Module) -> None:
        assert isinstance(fuse, CSPRepLayer), "checked by splits()"
        super().__init__()
        self.conv1, self.conv2 = (_split(conv) for conv in (fuse.conv1, fuse.conv2))
        self.blocks, self.conv3 = fuse.blocks, fuse.conv3

    def forward(
        self, coarse: Float[Tensor, "B D h w"], fine: Float[Tensor, "B D H W"]
    ) -> Float[Tensor, "B Do H W"]:
        return self.conv3(self.blocks(self.conv1(coarse, fine)) + self.conv2(coarse, fine))


def splits(ccff: nn.Module) -> bool:
    """Return True for the chapter's CCFF if the 1×1 of every fusion is folded."""
    if type(ccff) is not CCFF or not all(type(fuse) is CSPRepLayer for fuse in ccff.top_down):
        return False
    return all(isinstance(c, ConvAct) for f in ccff.top_down for c in (f.conv1, f.conv2))


def _split(block: nn.Module) -> SplitConv:
    assert isinstance(block, ConvAct), "checked by splits()"
    conv = block.conv
    made: list[nn.Conv2d] = []
    half = conv.in_channels // 2
    for part in conv.weight.detach().split(half, dim=1):
        one = nn.Conv2d(half, conv.out_channels, 1, bias=bool(made)).to(part)
        one.weight = nn.Parameter(part.clone(), requires_grad=False)
        made.append(one)
    made[1].bias = conv.bias  # once, on the fine map
    return SplitConv(made[0], made[1], block.act)
