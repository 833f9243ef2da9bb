"""The second half of `mutants.py`: from query selection to denoising."""

AFTER = (
    # --- query selection
    (
        "query_selection",
        "x = (column.to(exact) + 0.5) / width",
        "x = column.to(exact) / width",
        "anchors at corners of cells",
    ),
    (
        "query_selection",
        "y = (row.to(exact) + 0.5) / height",
        "y = (row.to(exact) + 0.5) / width",
        "rows divided by the width",
    ),
    (
        "query_selection",
        "side = ANCHOR_SIDE * 2.0 ** level",
        "side = ANCHOR_SIDE * 2.0 ** (level + 1)",
        "off by one level",
    ),
    (
        "query_selection",
        "valid.to(memory.dtype) * memory",
        "memory",
        "invalid anchors keep their memory",
    ),
    (
        "query_selection",
        'score = tap("score", logits.amax(-1))',
        'score = tap("score", logits.sum(-1))',
        "the sum over the classes decides",
    ),
    (
        "query_selection",
        "rows_at(tokens, index).detach()",
        "rows_at(tokens, index)",
        "content keeps its gradient",
    ),
    (
        "query_selection",
        "reference_logits = rows_at(box_logits, index).detach()",
        "reference_logits = rows_at(box_logits, index)",
        "the reference keeps its gradient",
    ),
    (
        "query_selection",
        "logits.masked_fill(~valid, torch.inf)",
        "logits.masked_fill(valid, torch.inf)",
        "the mask inverted",
    ),
    # --- sampling
    (
        "samplers",
        "grid = (2 * _readable(plan.locations) - 1)",
        "grid = _readable(plan.locations)",
        "[0, 1] given to grid_sample",
    ),
    (
        "samplers",
        'mode="bilinear", align_corners=False',
        'mode="bilinear", align_corners=True',
        "corners aligned",
    ),
    (
        "samplers",
        "index.append(start + row * width + column)",
        "index.append(start + row * height + column)",
        "row stride of a square map",
    ),
    (
        "samplers",
        "index.append(start + row",
        "index.append(0 * start + row",
        "every level reads from the first",
    ),
    (
        "samplers",
        "column = (where[..., 0] * width + self.shift).floor().long().clamp(0, width - 1)",
        "column = (where[..., 0] * width + self.shift).floor().long().clamp(0, height - 1)",
        "x clamped by the height",
    ),
    # --- deformable attention
    (
        "deformable_attention",
        "logits.softmax(-1)",
        "logits.sigmoid()",
        "weights that do not sum to one",
    ),
    (
        "deformable_attention",
        "centre + part / count * size * 0.5",
        "centre + part / count * size",
        "twice as far",
    ),
    (
        "deformable_attention",
        "centre + part / count * size * 0.5",
        "centre + part * size * 0.5",
        "steps not divided by the number of points",
    ),
    (
        "deformable_attention",
        "requires_grad_(self.sampler.trains_offsets)",
        "requires_grad_(True)",
        "offsets of a discrete sampler drift",
    ),
    # --- decoder
    (
        "decoder",
        "self.self_attn(where, where, content, blocked)",
        "self.self_attn(where, where, content, None)",
        "denoising leaks",
    ),
    (
        "decoder",
        "seen = self.cross_attn(content + position, reference, memory, shapes)",
        "seen = self.cross_attn(content, reference, memory, shapes)",
        "cross-attention without the position",
    ),
    (
        "decoder",
        "reference = start.detach() if self.training else start",
        "reference = start",
        "references keep their gradient",
    ),
    (
        "decoder",
        "start = move(delta, reference) if alone else boxes",
        "start = reference",
        "every layer starts from the proposal",
    ),
    (
        "decoder",
        "position = self.query_position(reference)",
        "position = self.query_position(torch.sigmoid(reference_logits))",
        "the position stays that of the proposal",
    ),
    # --- denoising
    (
        "denoising",
        "negative = torch.arange(size * repeat, device=device) % (2 * size) >= size",
        "negative = torch.arange(size * repeat, device=device) % (2 * size) < size",
        "positives and negatives swapped",
    ),
    (
        "denoising",
        "return (looks != seen) & (seen >= 0)",
        "return (looks != seen) & (looks >= 0)",
        "the mask transposed: matching queries see the denoising ones",
    ),
    (
        "denoising",
        "< self.cfg.label_noise * 0.5",
        "< self.cfg.label_noise",
        "labels re-drawn twice as often",
    ),
    (
        "denoising",
        "boxes[..., 2:].repeat(1, 1, 2) * 0.5 * self.cfg.box_noise",
        "boxes[..., 2:].repeat(1, 1, 2) * self.cfg.box_noise",
        "box noise twice as large",
    ),
    (
        "denoising",
        "amount = torch.rand_like(boxes) + negative.to(boxes.dtype)[:, None]",
        "amount = torch.rand_like(boxes)",
        "negatives as near as positives",
    ),
    (
        "denoising",
        "reference_logits=inverse_sigmoid(boxes)",
        "reference_logits=boxes",
        "boxes given for their logits",
    ),
    (
        "denoising",
        "is_positive=~negative & (index >= 0)",
        "is_positive=~negative",
        "padding counts as an object",
    ),
)
