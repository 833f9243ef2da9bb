"""Checkpoints against transformers: they read what we write, we read what they write.

Oracle: transformers, its own `save_pretrained` and `from_pretrained`.
"""

import json
import logging

import pytest
import torch

pytest.importorskip(
    "transformers", reason="transformers, the oracle, is not installed; runs with the extra [dev]"
)

import transformers
from oracle import THEIRS, VERSIONS, preset, same_weights, spread, theirs

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.checkpoints.compare import compare
from rtdetr_lab.checkpoints.files import digest, read_weights
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.rename import import_tensors, is_derived, table_of, to_ours, to_theirs
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.tables import TRANSFORMERS
from rtdetr_lab.checkpoints.verify import verify
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.query_selection import LearnedContent, TopScore
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.samplers import Discrete

CASES = [(version, size) for version in VERSIONS for size in THEIRS]


def tiny(version="v1", **changes):
    """Theirs with everything an r18 has, only narrow."""
    backbone = {"layer_type": "basic", "hidden_sizes": [16, 24, 32, 48], "embedding_size": 16}
    resnet = transformers.RTDetrResNetConfig(**backbone, depths=[2, 1, 1, 1], out_indices=[2, 3, 4])
    settings = {
        "backbone_config": resnet, "encoder_in_channels": [24, 32, 48], "hidden_expansion": 0.5,
        "encoder_hidden_dim": 32, "encoder_ffn_dim": 40, "encoder_attention_heads": 4,
        "decoder_in_channels": [32] * 3, "d_model": 32, "decoder_ffn_dim": 40,
        "decoder_attention_heads": 4, "decoder_layers": 3, "num_queries": 60, "num_labels": 7,
    }  # fmt: skip
    config, model, _, _ = VERSIONS[version]
    return model(config(**settings | changes)).eval()


TINY = RTDETRConfig(
    7,
    backbone=ResNetDConfig((2, 1, 1, 1), (16, 24, 32, 48), stem_width=16),
    encoder=HybridEncoderConfig(32, AIFIConfig(num_heads=4, ffn_dim=40), CCFFConfig(0.5)),
    selection=TopScore(num_queries=60),
    decoder=DecoderConfig(dim=32, num_layers=3, num_heads=4, ffn_dim=40),
)
"""The same model, as ours."""


@pytest.fixture(scope="module")
def oracle():
    return {version: spread(tiny(version)) for version in VERSIONS}


@pytest.fixture(scope="module")
def folders(oracle, tmp_path_factory):
    """What transformers itself writes of both versions."""
    root = tmp_path_factory.mktemp("theirs")
    for version, model in oracle.items():
        model.save_pretrained(root / version)
    return {version: root / version for version in oracle}


@pytest.fixture
def images():
    return torch.rand(2, 3, 128, 96, dtype=torch.float64)


@torch.no_grad()
def differences(ours, theirs, images):
    a, b = ours.double()(images), theirs.double()(images)
    ours.float(), theirs.float()
    return max((a.logits - b.logits).abs().max(), (a.boxes - b.pred_boxes).abs().max()).item()


@pytest.mark.parametrize(("version", "size"), CASES)
def test_every_name_in_memory_is_one_of_ours_and_every_shape_agrees(version, size):
    with torch.device("meta"):
        state = theirs(size, version).state_dict()
        ours = preset(size, version).build().state_dict()
    assert table_of(state) is TRANSFORMERS
    renamed = {
        to_ours(TRANSFORMERS, n): t for n, t in state.items() if not is_derived(TRANSFORMERS, n)
    }
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in ours.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_names_in_their_files_are_the_names_of_the_table(version, folders):
    names = read_weights(folders[version] / "model.safetensors").tensors
    for name in names:
        if not is_derived(TRANSFORMERS, name):
            assert to_theirs(TRANSFORMERS, to_ours(TRANSFORMERS, name)) == name


@pytest.mark.parametrize("version", VERSIONS)
def test_their_folder_gives_the_same_answers_here(version, folders, oracle, images):
    ours = load_pretrained(folders[version])
    assert differences(ours, oracle[version], images) < 1e-9
    assert ours.metadata.names[6] == "LABEL_6"
    assert diff(ours.cfg, TINY) == {}


def saved_and_read_back(model, folder, version):
    save_pretrained(model, folder, layout="transformers")
    _, cls, _, _ = VERSIONS[version]
    return cls.from_pretrained(folder, output_loading_info=True)


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("v1", {}),
        ("v1", {"decoder.num_points": 3}),
        ("v1", {"decoder.num_levels": 4}),
        ("v1", {"selection": LearnedContent(num_queries=60)}),
        ("v1", {"denoising": None}),
        ("v1", {"backbone.norm": torch.nn.BatchNorm2d}),
        ("v1", {"encoder.aifi.num_layers": 2}),
        ("v2", {"decoder.sampler": Discrete(shift=0.5)}),
        ("v2", {"decoder.sampler": Discrete(shift=0.5), "decoder.num_points": 2}),
    ],
    ids=str,
)
def test_our_folder_is_read_there_without_a_missing_key(version, changes, tmp_path, images):
    cfg = TINY
    for path, value in changes.items():
        cfg = replace_at(cfg, path, value)
    ours = spread_ours(cfg)
    model, info = saved_and_read_back(ours, tmp_path, version)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    if "selection" not in changes:  # their forward with learned queries raises AttributeError
        assert differences(ours, model.eval(), images) < 1e-9
    back = load_pretrained(tmp_path)
    assert diff(back.cfg, cfg) == {}
    assert digest(back.state_dict()) == digest(ours.state_dict())


def spread_ours(cfg):
    torch.manual_seed(1)
    return spread(cfg.build().eval())


def test_their_processor_reads_our_preprocessor_config(oracle, tmp_path):
    ours = same_weights(oracle["v1"], TINY)
    save_pretrained(ours, tmp_path, layout="transformers")
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    processor = RTDetrImageProcessorPil.from_pretrained(tmp_path)
    assert dict(processor.size) == {"height": 640, "width": 640}
    assert not processor.do_normalize
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "rt_detr"


def test_a_backbone_of_theirs_alone_is_read(tmp_path):
    from transformers.models.rt_detr.modeling_rt_detr_resnet import RTDetrResNetBackbone

    backbone = spread_backbone(RTDetrResNetBackbone(tiny().config.backbone_config))
    backbone.save_pretrained(tmp_path)
    ours = TINY.build().eval()
    load_backbone(ours, tmp_path)
    image = torch.rand(1, 3, 96, 128)
    for mine, other in zip(ours.backbone(image), backbone(image).feature_maps, strict=True):
        torch.testing.assert_close(mine, other)


@torch.no_grad()
def spread_backbone(backbone):
    for name, buffer in backbone.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return backbone.eval()


@pytest.mark.parametrize("version", VERSIONS)
def test_verify_finds_that_everything_agrees(version, folders):
    report = verify(folders[version], size=(128, 160))
    assert report.ok
    assert all(stage.agrees for stage in report.comparison.stages)
    text = str(report)
    for row in ("backbone S3", "backbone S5", "AIFI F5", "CCFF 2", "proposals", "decoder 2"):
        assert row in text
    assert "Everything agrees" in text


def test_verify_finds_that_a_model_without_attention_on_its_last_map_agrees(tmp_path):
    save_pretrained(spread_ours(replace_at(TINY, "encoder.aifi.num_layers", 0)), tmp_path)
    report = verify(tmp_path, size=(96, 128))
    assert report.ok
    assert "AIFI" not in str(report)


def test_verify_reads_our_own_layout_too(oracle, tmp_path):
    save_pretrained(same_weights(oracle["v1"], TINY), tmp_path)
    assert verify(tmp_path / "model.safetensors", size=(96, 128)).ok


def test_without_transformers_verify_says_that_it_compared_nothing(folders, monkeypatch):
    monkeypatch.setattr("rtdetr_lab.checkpoints.verify.find_spec", lambda name: None)
    report = verify(folders["v1"], size=(96, 128))
    assert report.ok
    assert report.comparison is None
    assert "Install transformers" in str(report)


CORRUPTED = {
    "backbone.stages.1.0.shortcut.conv.weight": "backbone S3",
    "encoder.project.2.norm.running_mean": "AIFI F5",
    "encoder.aifi.layers.0.self_attn.k_proj.weight": "AIFI F5",
    "encoder.ccff.bottom_up.1.blocks.2.pointwise.conv.weight": "CCFF 2",
    "proposal_head.class_head.weight": "proposals logits",
    "decoder.query_position.layers.0.bias": "decoder 0 logits",
    "decoder.layers.1.cross_attn.sampling_offsets.weight": "decoder 1 logits",
    "decoder.box_heads.2.layers.2.weight": "decoder 2 boxes",
    "denoising.label_embedding.weight": None,
}


@pytest.mark.parametrize("name", CORRUPTED)
def test_one_wrong_value_names_its_module_and_its_first_stage(name, folders, oracle, images):
    ours = load_pretrained(folders["v1"])
    with torch.no_grad():
        ours.state_dict()[name].view(-1)[1] += 0.05
    found = compare(ours, oracle["v1"], images)
    assert found.module == name.rpartition(".")[0]
    assert found.tensors == (name,)
    assert not found.agrees
    wrong = [s.name for s in found.stages if not s.agrees]
    assert (wrong[0] if wrong else None) == CORRUPTED[name]


def test_the_files_of_older_releases_are_read(folders, oracle, tmp_path, caplog):
    """Before 5.0 the heads were stored twice, and v2 kept its scales; both under the old names."""
    found = read_weights(folders["v2"] / "model.safetensors").tensors
    tied = {n.removeprefix("model.decoder."): t for n, t in found.items() if "_embed." in n}
    tied = {n: t for n, t in tied.items() if n.startswith(("class_embed", "bbox_embed"))}
    assert len(tied) == 3 * 2 + 3 * 6
    from safetensors.torch import save_file

    clones = {n: t.clone() for n, t in (found | tied).items()}
    save_file(clones, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((folders["v2"] / "config.json").read_text())
    with caplog.at_level(logging.INFO):
        ours = load_pretrained(tmp_path)
    renamed = import_tensors(TRANSFORMERS, oracle["v2"].state_dict(), "")
    assert digest(ours.state_dict()) == digest(renamed)
