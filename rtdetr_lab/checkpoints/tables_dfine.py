r"""# Tables of D-FINE: the names of its tensors in other code

Most rows are RT-DETR's (`tables.py`); the rows here come first. transformers calls parts of two
different fusion blocks `conv1` and `conv2`. So a name alone does not tell whose it is, and D-FINE
needs tables of its own. `rename.py` takes the table that knows most of the names.

`up` and `reg_scale` are constants of the configuration here.
"""

from dataclasses import replace

from rtdetr_lab.checkpoints.tables import AUTHORS, TRANSFORMERS, Pairs

WAY = "encoder.<way>.<i>"
OURS = "encoder.ccff.<way>.<i>"
CONSTANTS = (r"^(model\.)?decoder\.(decoder\.)?(up|reg_scale)$", r"num_points_scale$")

TRANSFORMERS_ROWS: Pairs = (
    ("encoder.ccff.downsample.<i>.<light>.<p>", "encoder.downsample_convs.<i>.<light>.<p>"),
    (f"{OURS}.<elan>.<p>", f"{WAY}.<elan>.<p>"),
    (f"{OURS}.<csp>.0.<conv>.<p>", f"{WAY}.<csp>.<conv>.<p>"),
    (f"{OURS}.<csp>.0.blocks.<j>.<rep>.<p>", f"{WAY}.<csp>.bottlenecks.<j>.<rep>.<p>"),
    ("decoder.layers.<i>.gate.<p>", "decoder.layers.<i>.gateway.<p>"),
    ("decoder.start_head.<p>", "decoder.pre_bbox_head.<p>"),
    ("decoder.quality_heads.<i>.mlp.<p>", "decoder.lqe_layers.<i>.reg_conf.<p>"),
)

AUTHORS_ROWS: Pairs = (
    ("encoder.ccff.downsample.<i>.<sc>.<p>", "encoder.downsample_convs.<i>.0.<sc>.<p>"),
    (f"{OURS}.<elan>.<p>", f"{WAY}.<elan>.<p>"),
    (f"{OURS}.<branch>.1.<p>", f"{WAY}.<branch>.1.<p>"),
    (f"{OURS}.<branch>.0.<conv>.<p>", f"{WAY}.<branch>.0.<conv>.<p>"),
    (f"{OURS}.<branch>.0.blocks.<j>.<rep>.<p>", f"{WAY}.<branch>.0.bottlenecks.<j>.<rep>.<p>"),
    ("decoder.layers.<i>.gate.<p>", "decoder.decoder.layers.<i>.gateway.<p>"),
    ("decoder.start_head.<p>", "decoder.pre_bbox_head.<p>"),
    ("decoder.quality_heads.<i>.mlp.<p>", "decoder.decoder.lqe_layers.<i>.reg_conf.<p>"),
)

DFINE = replace(
    TRANSFORMERS,
    title="transformers' D-FINE",
    rows=(*((ours, f"model.{theirs}") for ours, theirs in TRANSFORMERS_ROWS), *TRANSFORMERS.rows),
    words={
        **TRANSFORMERS.words,
        "elan": (
            ("split", "conv1"),
            ("branch1.1", "conv2"),
            ("branch2.1", "conv3"),
            ("merge", "conv4"),
        ),
        "csp": (("branch1", "csp_rep1"), ("branch2", "csp_rep2")),
    },
    aliases=(
        *TRANSFORMERS.aliases,
        (r"(layers\.\d+)\.mlp\.layers\.0\.", r"\1.fc1."),
        (r"(layers\.\d+)\.mlp\.layers\.1\.", r"\1.fc2."),
    ),
    derived=(*TRANSFORMERS.derived, *CONSTANTS),
)

DFINE_AUTHORS = replace(
    AUTHORS,
    title="the D-FINE authors' code",
    rows=(*AUTHORS_ROWS, *AUTHORS.rows),
    words={
        **AUTHORS.words,
        "sc": (("0", "cv1"), ("1", "cv2")),
        "elan": (("split", "cv1"), ("merge", "cv4")),
        "branch": (("branch1", "cv2"), ("branch2", "cv3")),
    },
    derived=(*AUTHORS.derived, *CONSTANTS),
)

DFINE_TABLES = (DFINE, DFINE_AUTHORS)
