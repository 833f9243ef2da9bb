r"""# Tables: the names of our tensors in other code

`rename.py` reads these two tables. A row is *our name ↔ their name*. `<i> <j> <k>` stand for a
number, `<n>` for a number other than 0, and `<p>` for the rest of the name. A word such as `<unit>`
stands for one of the pairs in `words`. A row depends on nothing but the name, so the same data work
in both directions.

Their name is the name **in a file**. transformers 5 gives some tensors other names in memory, and
renames them while it loads and saves. `aliases` turn those names, and the names of tied copies,
into the name in the file. `derived` tensors follow from the configuration: they are not weights,
and we skip them.

The authors store the three input maps of an attention in one matrix. Our side of such a row has the
name `in_proj`, and `rename.py` splits and joins.
"""

from dataclasses import dataclass

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Naming of tensors: rows, the words in them, and the other contents of such files."""

    title: str
    rows: Pairs
    words: dict[str, Pairs]
    aliases: Pairs = ()
    derived: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    """A file uses this table if the name of a tensor starts with one of these."""
    stacks_attention: bool = False
    """True if the three input maps of an attention are one matrix."""


STAGES = "model.backbone.model.encoder.stages"
LAYERS = "backbone.res_layers"

BLOCKS = "blocks.<j>.layers.<k>"
HGNET = ("downsample", BLOCKS, f"{BLOCKS}.<light>", "blocks.<j>.aggregation.<k>")
"""Convolutions in a stage of an HGNetv2; the light ones have other names here."""

HGNET_WORDS: dict[str, Pairs] = {
    "stem": tuple((f"stem{part}", f"stem{part}") for part in ("1", "2a", "2b", "3", "4")),
    "light": (("0", "conv1"), ("1", "conv2")),
}


def hgnet(stem: str, stages: str, part: str) -> Pairs:
    """Rows of an HGNetv2: their names of stem and stages, and the word for parts of a unit."""
    inside = [f"<i>.{name}.{part}.<p>" for name in HGNET]
    rows = [(f"backbone.stages.{name}", f"{stages}.{name}") for name in inside]
    return ((f"backbone.stem.<stem>.{part}.<p>", f"{stem}.<stem>.{part}.<p>"), *rows)


CCFF: Pairs = (
    ("encoder.ccff.lateral.<i>.<p>", "encoder.lateral_convs.<i>.<p>"),
    ("encoder.ccff.downsample.<i>.<p>", "encoder.downsample_convs.<i>.<p>"),
    ("encoder.ccff.<way>.<i>.<conv>.<p>", "encoder.<way>.<i>.<conv>.<p>"),
    ("encoder.ccff.<way>.<i>.blocks.<j>.<rep>.<p>", "encoder.<way>.<i>.bottlenecks.<j>.<rep>.<p>"),
)

CCFF_WORDS: dict[str, Pairs] = {
    "way": (("top_down", "fpn_blocks"), ("bottom_up", "pan_blocks")),
    "conv": (("conv1", "conv1"), ("conv2", "conv2"), ("conv3", "conv3")),
    "rep": (("dense", "conv1"), ("pointwise", "conv2")),
}

AUTHORS_LAYER: Pairs = (
    ("self_attn.out_proj", "self_attn.out_proj"),
    ("norm1", "norm1"),
    ("ffn.fc1", "linear1"),
    ("ffn.fc2", "linear2"),
    ("norm2", "norm2"),
    ("norm3", "norm3"),
)

TRANSFORMERS_WORDS: dict[str, Pairs] = {
    "u": (("conv", "convolution"), ("norm", "normalization"), ("act", "lab")),
    "b": (("conv1", "layer.0"), ("conv2", "layer.1"), ("conv3", "layer.2")),
    "layer": (
        ("self_attn", "self_attn"),
        ("norm1", "self_attn_layer_norm"),
        ("ffn.fc1", "fc1"),
        ("ffn.fc2", "fc2"),
        ("norm2", "final_layer_norm"),
    ),
    "deep": (
        ("self_attn", "self_attn"),
        ("norm1", "self_attn_layer_norm"),
        ("cross_attn", "encoder_attn"),
        ("norm2", "encoder_attn_layer_norm"),
        ("ffn.fc1", "fc1"),
        ("ffn.fc2", "fc2"),
        ("norm3", "final_layer_norm"),
    ),
}
"""Words for RT-DETR and DETR: a unit and a block of a ResNet, an encoder layer, a decoder layer."""

SHARED_WORDS: dict[str, Pairs] = {
    **CCFF_WORDS,
    **HGNET_WORDS,
    "s": (("conv", "0"), ("norm", "1")),
    "enc": (
        ("project", "enc_output.0"),
        ("norm", "enc_output.1"),
        ("class_head", "enc_score_head"),
        ("box_head", "enc_bbox_head"),
    ),
}

TRANSFORMERS = Table(
    "transformers",
    rows=(
        *hgnet("model.backbone.model.embedder", STAGES, "<u>"),
        ("backbone.stem.<i>.<u>.<p>", "model.backbone.model.embedder.embedder.<i>.<u>.<p>"),
        ("backbone.stages.<i>.<j>.<b>.<u>.<p>", f"{STAGES}.<i>.layers.<j>.<b>.<u>.<p>"),
        ("backbone.stages.0.<j>.shortcut.<u>.<p>", f"{STAGES}.0.layers.<j>.shortcut.<u>.<p>"),
        # Only the first stage keeps its size; other shortcuts pool before they project.
        ("backbone.stages.<n>.<j>.shortcut.<u>.<p>", f"{STAGES}.<n>.layers.<j>.shortcut.1.<u>.<p>"),
        # A shortcut that does not pool is not in a sequence there (`transformers_resnet.py`).
        ("backbone.stages.<n>.<j>.shortcut.0.<u>.<p>", f"{STAGES}.<n>.layers.<j>.shortcut.<u>.<p>"),
        ("encoder.project.<i>.<s>.<p>", "model.encoder_input_proj.<i>.<s>.<p>"),
        ("encoder.aifi.layers.<i>.<layer>.<p>", "model.encoder.encoder.0.layers.<i>.<layer>.<p>"),
        *((ours, f"model.{theirs}") for ours, theirs in CCFF),
        ("to_memory.<i>.<s>.<p>", "model.decoder_input_proj.<i>.<s>.<p>"),
        ("proposal_head.<enc>.<p>", "model.<enc>.<p>"),
        ("selection.content", "model.weight_embedding.weight"),
        ("denoising.label_embedding.weight", "model.denoising_class_embed.weight"),
        ("decoder.query_position.<p>", "model.decoder.query_pos_head.<p>"),
        ("decoder.<head>.<i>.<p>", "model.decoder.<head>.<i>.<p>"),
        ("decoder.layers.<i>.<deep>.<p>", "model.decoder.layers.<i>.<deep>.<p>"),
    ),
    words={
        **SHARED_WORDS,
        **TRANSFORMERS_WORDS,
        "head": (("class_heads", "class_embed"), ("box_heads", "bbox_embed")),
    },
    aliases=(
        (r"^model\.encoder\.aifi\.", "model.encoder.encoder."),
        (r"(layers\.\d+)\.mlp\.(fc[12])\.", r"\1.\2."),
        (r"self_attn\.o_proj\.", "self_attn.out_proj."),
        (r"^(class|bbox)_embed\.", r"model.decoder.\1_embed."),
    ),
    derived=(r"encoder_attn\.n_points_scale$",),
    probes=("model.backbone.", "model.encoder", "model.decoder"),
)

AUTHORS = Table(
    "the authors' code",
    rows=(
        *hgnet("backbone.stem", "backbone.stages", "<unit>"),
        *((f"backbone.stem.{i}.<p>", f"backbone.conv1.conv1_{i + 1}.<p>") for i in range(3)),
        ("backbone.stages.<i>.<j>.<b>.<p>", f"{LAYERS}.<i>.blocks.<j>.<b>.<p>"),
        ("backbone.stages.0.<j>.shortcut.<p>", f"{LAYERS}.0.blocks.<j>.short.<p>"),
        ("backbone.stages.<n>.<j>.shortcut.<p>", f"{LAYERS}.<n>.blocks.<j>.short.conv.<p>"),
        ("encoder.project.<i>.<s>.<p>", "encoder.input_proj.<i>.<s>.<p>"),
        ("encoder.aifi.layers.<i>.<layer>.<p>", "encoder.encoder.0.layers.<i>.<layer>.<p>"),
        ("encoder.aifi.layers.<i>.<in>_proj.<p>", "encoder.encoder.0.layers.<i>.<in>_proj_<p>"),
        *CCFF,
        ("to_memory.<i>.<p>", "decoder.input_proj.<i>.<p>"),
        ("proposal_head.<enc>.<p>", "decoder.<enc>.<p>"),
        ("selection.content", "decoder.tgt_embed.weight"),
        ("denoising.label_embedding.weight", "decoder.denoising_class_embed.weight"),
        ("decoder.query_position.<p>", "decoder.query_pos_head.<p>"),
        ("decoder.<head>.<i>.<p>", "decoder.<head>.<i>.<p>"),
        ("decoder.layers.<i>.cross_attn.<p>", "decoder.decoder.layers.<i>.cross_attn.<p>"),
        ("decoder.layers.<i>.<layer>.<p>", "decoder.decoder.layers.<i>.<layer>.<p>"),
        ("decoder.layers.<i>.<in>_proj.<p>", "decoder.decoder.layers.<i>.<in>_proj_<p>"),
    ),
    words={
        **SHARED_WORDS,
        "b": (("conv1", "branch2a"), ("conv2", "branch2b"), ("conv3", "branch2c")),
        "unit": (("conv", "conv"), ("norm", "bn"), ("act", "lab")),
        "in": (("self_attn.in", "self_attn.in"),),
        "layer": AUTHORS_LAYER,
        "head": (("class_heads", "dec_score_head"), ("box_heads", "dec_bbox_head")),
    },
    aliases=(
        # v2 uses names where v1 uses numbers; everything else is the same.
        (r"^encoder\.input_proj\.(\d+)\.conv\.", r"encoder.input_proj.\1.0."),
        (r"^encoder\.input_proj\.(\d+)\.norm\.", r"encoder.input_proj.\1.1."),
        (r"^decoder\.enc_output\.proj\.", "decoder.enc_output.0."),
        (r"^decoder\.enc_output\.norm\.", "decoder.enc_output.1."),
    ),
    derived=(
        r"cross_attn\.num_points_scale$",
        r"^decoder\.(anchors|valid_mask)$",
        r"^encoder\.pos_embed\d+$",
    ),
    probes=(
        "backbone.conv1.",
        "backbone.res_layers.",
        "backbone.stem.stem1.bn.",
        "decoder.dec_score_head.",
    ),
    stacks_attention=True,
)

TABLES = (TRANSFORMERS, AUTHORS)
