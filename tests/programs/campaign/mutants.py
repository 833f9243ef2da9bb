"""Plausible bugs, one line each: what a tired person, or a careless reading of the papers, writes.

(module, what it says, what it would say, the bug in words). The text must occur exactly once in the
module, so that a bug which the code has outgrown is noticed. `bugs.py` plants one at a time, and
asks the tests.
"""

BEFORE = (
    # --- boxes
    (
        "boxes",
        "centre - 0.5 * size, centre + 0.5 * size",
        "centre - size, centre + size",
        "size taken for half a size",
    ),
    (
        "boxes",
        "torch.cat([(low + high) / 2, high - low], dim=-1)",
        "torch.cat([(low + high) / 2, low - high], dim=-1)",
        "negative sizes",
    ),
    (
        "boxes",
        "new_tensor([width, height, width, height])",
        "new_tensor([height, width, height, width])",
        "width and height swapped",
    ),
    (
        "boxes",
        "size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)",
        "size = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]",
        "a box inside out has an area",
    ),
    ("boxes", "size = (high - low).clamp(min=0)", "size = high - low", "boxes far apart overlap"),
    (
        "boxes",
        "intersection, area(a) + area(b) - intersection",
        "intersection, area(a) + area(b)",
        "union counts the overlap twice",
    ),
    (
        "boxes",
        "_ratio(intersection, union) - _ratio(enclosing - union, enclosing)",
        "_ratio(intersection, union) + _ratio(enclosing - union, enclosing)",
        "GIoU rewards empty space",
    ),
    (
        "boxes",
        "return paired_iou(a_xyxy[:, None], b_xyxy[None, :])",
        "return paired_iou(a_xyxy[None, :], b_xyxy[:, None])",
        "IoU matrix transposed",
    ),
    # --- matching
    ("matching", "return yes - no", "return yes + no", "both focal terms are costs"),
    ("matching", "- self.cfg.giou_cost *", "+ self.cfg.giou_cost *", "overlap is a cost"),
    (
        "matching",
        "torch.cdist(boxes, target_boxes, p=1)",
        "torch.cdist(boxes, target_boxes, p=2)",
        "L2 for L1",
    ),
    (
        "matching",
        "return -logits.softmax(-1)[:, labels]",
        "return -logits.sigmoid()[:, labels]",
        "DETR's cost without its softmax",
    ),
    (
        "matching",
        "yes = -self.alpha * (1 - p)",
        "yes = -(1 - self.alpha) * (1 - p)",
        "alpha on the wrong side",
    ),
    # --- losses
    (
        "losses",
        "score = logits.detach().sigmoid()",
        "score = logits.sigmoid()",
        "the varifocal weight gets a gradient",
    ),
    (
        "losses",
        "self.alpha * score**self.gamma)",
        "(1 - self.alpha) * score**self.gamma)",
        "alpha on the wrong side",
    ),
    (
        "losses",
        "balance = self.alpha * found + (1 - self.alpha) * (1 - found)",
        "balance = (1 - self.alpha) * found + self.alpha * (1 - found)",
        "focal alpha swapped",
    ),
    (
        "losses",
        "weight[nothing] = self.no_object",
        "weight[0] = self.no_object",
        "the first class is down-weighted, not the background",
    ),
    (
        "losses",
        "return (1 - overlap).sum() / num_boxes",
        "return (1 - overlap).mean()",
        "mean instead of a sum over the batch's boxes",
    ),
    (
        "losses",
        "return (boxes - wanted).abs().sum() / num_boxes",
        "return (boxes - wanted).square().sum() / num_boxes",
        "squared for absolute",
    ),
    # --- criterion
    (
        "criterion",
        "paired_iou(xyxy_from_cxcywh(boxes.detach())",
        "paired_iou(xyxy_from_cxcywh(boxes)",
        "the IoU target carries a gradient",
    ),
    (
        "criterion",
        "paired_iou(xyxy_from_cxcywh(boxes.detach()), xyxy_from_cxcywh(wanted))",
        "paired_iou(boxes.detach(), wanted)",
        "IoU of boxes in the wrong format",
    ),
    ("criterion", "num_boxes * times)", "num_boxes)", "denoising counts once per group"),
    (
        "criterion",
        "*before, last = prediction.layers",
        "last, *before = prediction.layers",
        "the first layer is the answer",
    ),
    (
        "structures/ranks",
        "return max(float(count), 1.0)",
        "return float(count)",
        "an empty batch divides by zero",
    ),
    (
        "criterion",
        "row.nonzero()[:, 0] for row in batch.is_positive",
        "(~row).nonzero()[:, 0] for row in batch.is_positive",
        "negatives are denoised",
    ),
    # --- backbone
    (
        "backbone",
        "nn.AvgPool2d(2, 2, ceil_mode=True)",
        "nn.AvgPool2d(2, 2, ceil_mode=False)",
        "odd maps lose their last row in the shortcut",
    ),
    (
        "backbone",
        "self.conv1 = ConvNormAct(channels_in, width // 4, 1, 1, act, norm)",
        "self.conv1 = ConvNormAct(channels_in, width // 4, 1, stride, act, norm)",
        "the bottleneck's stride twice",
    ),
    (
        "backbone",
        "self.conv2 = ConvNormAct(width, width, 3, 1, identity, norm)",
        "self.conv2 = ConvNormAct(width, width, 3, 1, act, norm)",
        "activation before the sum",
    ),
    (
        "backbone",
        "return self.act(self.branch(x) + self.shortcut(x))",
        "return self.branch(x) + self.shortcut(x)",
        "no activation after the sum",
    ),
    ("backbone", "1 if index == 0 else 2", "2", "the first stage halves, too"),
    # --- AIFI
    (
        "aifi",
        "self.self_attn(where, where, x)",
        "self.self_attn(where, where, where)",
        "values carry the position",
    ),
    (
        "aifi",
        "where = x if positions is None else x + positions",
        "where = x",
        "positions are forgotten",
    ),
    (
        "aifi",
        "return self.norm2(x + self.dropout(self.ffn(x)))",
        "return x + self.dropout(self.ffn(self.norm2(x)))",
        "pre-norm for post-norm",
    ),
    (
        "aifi",
        ".unflatten(2, (height, width)).contiguous()",
        ".unflatten(2, (width, height)).transpose(2, 3).contiguous()",
        "the map comes back column by column",
    ),
    # --- CCFF
    (
        "ccff",
        "return self.act(self.dense(x) + self.pointwise(x))",
        "return self.act(self.dense(x))",
        "RepVGG without its 1×1",
    ),
    (
        "ccff",
        "return self.conv3(self.blocks(self.conv1(x)) + self.conv2(x))",
        "return self.conv3(self.blocks(self.conv1(x)))",
        "CSP without its second path",
    ),
    (
        "ccff",
        "torch.cat([upsample_to(down[0], finer), finer], dim=1)",
        "torch.cat([finer, upsample_to(down[0], finer)], dim=1)",
        "order of the concatenation",
    ),
    (
        "ccff",
        "torch.cat([downsample(up[-1]), coarser], dim=1)",
        "torch.cat([downsample(maps[0]), coarser], dim=1)",
        "always from the finest map",
    ),
    (
        "ccff",
        'up = [tap("bottom_up.0", maps[0])]',
        'up = [tap("bottom_up.0", maps[0].detach())]',
        "the way up is cut off",
    ),
    # --- hybrid encoder
    (
        "hybrid_encoder",
        "[*projected[:-1], self.aifi(projected[-1])]",
        "[self.aifi(projected[0]), *projected[1:]]",
        "AIFI on the finest map",
    ),
    (
        "hybrid_encoder",
        "coarsest = project(coarsest)\n",
        "coarsest = project(maps[-1])\n",
        "every extra level from S5",
    ),
)

from mutants_decoder import AFTER  # noqa: E402

MUTANTS = BEFORE + AFTER
