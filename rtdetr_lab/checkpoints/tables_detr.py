r"""# Tables of DETR: three namings of one model, with and without masks

These tables work like those in `tables.py`, for `detr/model.py` and `detr/segmentation.py`. The
backbone is a ResNet. Most files use torchvision's names for its parts, below a prefix of their own.
Only transformers' own ResNet has other names:

| file                         | prefix of the backbone              | a convolution        |
|------------------------------|-------------------------------------|----------------------|
| the authors'                 | `backbone.0.body`                   | `layer1.0.conv1`     |
| transformers, timm's names   | `model.backbone.conv_encoder.model` | `layer1.0.conv1`     |
| transformers, its own        | the same                            | `….layers.0.layer.0`  |

The `facebook/detr-*` on the hub have timm's names; their revision `no_timm` has the others.

A file with masks puts the whole detector below `detr.`. The mask head is beside it, under the
authors' names. So there are six tables from four lists of rows.
"""

from rtdetr_lab.checkpoints.tables import AUTHORS_LAYER, TRANSFORMERS_WORDS, Pairs, Table

TORCHVISION: Pairs = (
    ("backbone.stem.<stem>.<p>", "<stem>.<p>"),
    ("backbone.stages.<stage>.<j>.<unit>.<p>", "<stage>.<j>.<unit>.<p>"),
)

THEIR_RESNET: Pairs = (
    ("backbone.stem.<u>.<p>", "embedder.embedder.<u>.<p>"),
    ("backbone.stages.<i>.<j>.<b>.<u>.<p>", "encoder.stages.<i>.layers.<j>.<b>.<u>.<p>"),
    ("backbone.stages.<i>.<j>.shortcut.<u>.<p>", "encoder.stages.<i>.layers.<j>.shortcut.<u>.<p>"),
)

BACKBONE_WORDS: dict[str, Pairs] = {
    "stem": (("conv", "conv1"), ("norm", "bn1")),
    "stage": tuple((str(i), f"layer{i + 1}") for i in range(4)),
    "unit": (
        *((f"conv{k}.conv", f"conv{k}") for k in (1, 2, 3)),
        *((f"conv{k}.norm", f"bn{k}") for k in (1, 2, 3)),
        ("shortcut.conv", "downsample.0"),
        ("shortcut.norm", "downsample.1"),
    ),
}

MASKS: Pairs = (
    ("mask_attention.<way>_proj.<p>", "bbox_attention.<way>_linear.<p>"),
    *((f"mask_head.{ours}.<p>", f"mask_head.{theirs}.<p>") for ours, theirs in (
        ("blend.conv", "lay1"),
        ("blend.norm", "gn1"),
        ("narrow.conv", "lay2"),
        ("narrow.norm", "gn2"),
        *((f"levels.{i}.refine.conv", f"lay{i + 3}") for i in range(3)),
        *((f"levels.{i}.refine.norm", f"gn{i + 3}") for i in range(3)),
        *((f"levels.{i}.adapt", f"adapter{i + 1}") for i in range(3)),
        ("out", "out_lay"),
    )),
)  # fmt: skip

MASK_WORDS: dict[str, Pairs] = {"way": (("q", "q"), ("k", "k"))}

TRANSFORMERS_REST: Pairs = (
    ("project.<p>", "model.input_projection.<p>"),
    ("positions.columns", "model.position_embedding.column_embeddings.weight"),
    ("positions.rows", "model.position_embedding.row_embeddings.weight"),
    ("encoder.layers.<i>.<layer>.<p>", "model.encoder.layers.<i>.<layer>.<p>"),
    ("decoder.query_positions", "model.query_position_embeddings.weight"),
    ("decoder.layers.<i>.<deep>.<p>", "model.decoder.layers.<i>.<deep>.<p>"),
    ("decoder.norm.<p>", "model.decoder.layernorm.<p>"),
    ("class_head.<p>", "class_labels_classifier.<p>"),
    ("box_head.<p>", "bbox_predictor.<p>"),
)

FPN = r"^mask_head\.fpn_stages\."

IN_MEMORY: Pairs = (
    (r"^(detr\.)?model\.backbone\.model\.", r"\1model.backbone.conv_encoder.model."),
    (r"(layers\.\d+)\.mlp\.(fc[12])\.", r"\1.\2."),
    (r"_attn\.o_proj\.", "_attn.out_proj."),
    (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
    (r"^mask_head\.conv([12])\.conv\.", r"mask_head.lay\1."),
    (r"^mask_head\.conv([12])\.norm\.", r"mask_head.gn\1."),
    *((rf"{FPN}{i}\.refine\.conv\.", f"mask_head.lay{i + 3}.") for i in range(3)),
    *((rf"{FPN}{i}\.refine\.norm\.", f"mask_head.gn{i + 3}.") for i in range(3)),
    *((rf"{FPN}{i}\.fpn_adapter\.", f"mask_head.adapter{i + 1}.") for i in range(3)),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."),
)
"""Names in transformers 5 after loading → names in the file."""

AUTHORS_REST: Pairs = (
    ("project.<p>", "input_proj.<p>"),
    ("positions.columns", "backbone.1.col_embed.weight"),
    ("positions.rows", "backbone.1.row_embed.weight"),
    ("encoder.layers.<i>.<in>_proj.<p>", "transformer.encoder.layers.<i>.<in>_proj_<p>"),
    ("encoder.layers.<i>.<layer>.<p>", "transformer.encoder.layers.<i>.<layer>.<p>"),
    ("decoder.query_positions", "query_embed.weight"),
    ("decoder.layers.<i>.<in>_proj.<p>", "transformer.decoder.layers.<i>.<in>_proj_<p>"),
    ("decoder.layers.<i>.<layer>.<p>", "transformer.decoder.layers.<i>.<layer>.<p>"),
    ("decoder.norm.<p>", "transformer.decoder.norm.<p>"),
    ("class_head.<p>", "class_embed.<p>"),
    ("box_head.<p>", "bbox_embed.<p>"),
)

AUTHORS_WORDS: dict[str, Pairs] = {
    "in": (("self_attn.in", "self_attn.in"), ("cross_attn.in", "multihead_attn.in")),
    "layer": (("cross_attn.out_proj", "multihead_attn.out_proj"), *AUTHORS_LAYER),
}


def _below(prefix: str, rows: Pairs) -> Pairs:
    return tuple((ours, f"{prefix}{theirs}") for ours, theirs in rows)


def _transformers(title: str, roof: str, resnet: Pairs, *probes: str) -> Table:
    """Build a table of transformers' names; `roof` is `detr.` in files with masks."""
    detector = (*_below("model.backbone.conv_encoder.model.", resnet), *TRANSFORMERS_REST)
    return Table(
        title,
        rows=(*_below(roof, detector), *(MASKS if roof else ())),
        words={**BACKBONE_WORDS, **TRANSFORMERS_WORDS, **MASK_WORDS},
        aliases=IN_MEMORY,
        probes=tuple(f"{roof}{probe}" for probe in probes),
    )


def _authors(title: str, roof: str) -> Table:
    detector = (*_below("backbone.0.body.", TORCHVISION), *AUTHORS_REST)
    return Table(
        title,
        rows=(*_below(roof, detector), *(MASKS if roof else ())),
        words={**BACKBONE_WORDS, **AUTHORS_WORDS, **MASK_WORDS},
        probes=(f"{roof}backbone.0.body.", f"{roof}query_embed."),
        stacks_attention=True,
    )


TIMM = tuple(f"model.backbone.{part}model.conv1." for part in ("conv_encoder.", ""))
OWN = "model.query_position_embeddings."

DETR = _transformers("transformers (DETR)", "", THEIR_RESNET, OWN)
DETR_TIMM = _transformers("transformers (DETR, timm)", "", TORCHVISION, *TIMM)
DETR_AUTHORS = _authors("the authors' code (DETR)", "")
DETR_MASKS = _transformers("transformers (DETR, masks)", "detr.", THEIR_RESNET, OWN)
DETR_MASKS_TIMM = _transformers("transformers (DETR, masks, timm)", "detr.", TORCHVISION, *TIMM)
DETR_MASKS_AUTHORS = _authors("the authors' code (DETR, masks)", "detr.")

# timm's names first: the others are recognised by a name that both have.
DETR_TABLES = (DETR_TIMM, DETR, DETR_AUTHORS)
DETR_MASK_TABLES = (DETR_MASKS_TIMM, DETR_MASKS, DETR_MASKS_AUTHORS)
