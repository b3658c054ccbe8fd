"""Checkpoints in and out: every format, strict reports, bitwise round trips, the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig as HfBertConfig
from transformers import BertForPreTraining, BertModel, ResNetForImageClassification
from transformers import ResNetConfig as HfResNetConfig

from medvill_jax.app.model import load
from medvill_jax.hub.convert import convert, main
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import read_export
from medvill_jax.hub.names import UPSTREAM
from medvill_jax.models.compat import Compat
from medvill_jax.models.resnet import ResNetConfig
from medvill_jax.trees import flatten
from tests.hub.checkpoints import SIZES, inputs, save, stage_state, state_of, without_torch, write_config
from tests.models.reference import Sizes, TorchMedvill, TorchvisionResNet, difference, randomise

VOCAB = ["[PAD]", *(f"w{number}" for number in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def tiny_bert(**fields: int) -> HfBertConfig:
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
    return HfBertConfig(vocab_size=104, max_position_embeddings=50, **{**sizes, **fields})


@pytest.mark.parametrize("stage", sorted(UPSTREAM))
def test_round_trip_is_bitwise(stage: str, reference: TorchMedvill, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    content = stage_state(stage, reference)
    file = save(folder / ("checkpoint.pt" if stage == "classification" else "model.3.bin"), content)
    write_config(folder, SIZES)
    convert(file, tmp_path / "export")
    export = read_export(tmp_path / "export")
    assert export.stage == stage
    convert(tmp_path / "export", tmp_path / "back", to="upstream")
    back = state_of(torch.load(tmp_path / "back" / "pytorch_model.bin", weights_only=True))
    original = state_of(content)
    dropped = {"crit_mask_lm_smoothed.one_hot", "enc.clf.weight"} & set(original)
    assert set(back) == set(original) - dropped
    for name, tensor in back.items():
        assert tensor.dtype == original[name].dtype, name
        assert bits(tensor) == bits(original[name]), name
    convert(tmp_path / "back", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "export" / "model.safetensors"
    ).read_bytes()


def test_the_published_names_come_back_in_order_and_load(
    upstream: Path, reference: TorchMedvill, tmp_path: Path
) -> None:
    convert(upstream, tmp_path / "export", family="upstream")
    convert(tmp_path / "export", tmp_path / "back", to="upstream", family="export")
    state = torch.load(tmp_path / "back" / "pytorch_model.bin", weights_only=True)
    assert list(state) == list(reference.state_dict())
    TorchMedvill(SIZES, seed=5).load_state_dict(state, strict=True)
    words = state["enc.txt_embeddings.word_embeddings.weight"]
    assert words.data_ptr() == state["mlm.predictions.decoder.weight"].data_ptr()
    stated = json.loads((tmp_path / "back" / "config.json").read_text())
    assert stated["architectures"] == ["CXRBERT"]
    assert HfBertConfig(**stated).num_attention_heads == SIZES.heads


@pytest.mark.slow
def test_full_size_has_532_entries_and_comes_back_with_the_same_logits(tmp_path: Path) -> None:
    sizes = Sizes(30522, 768, 12, 12, 3072, 512, (3, 4, 6, 3), 64, (256, 512, 1024, 2048))
    model = TorchMedvill(sizes)
    state = model.state_dict()
    assert len(state) == 532
    (tmp_path / "source").mkdir()
    file = save(tmp_path / "source" / "pytorch_model.bin", state)
    convert(file, tmp_path / "export")
    loaded = load(tmp_path / "export")
    assert loaded.config.image_encoder == "resnet50"
    assert loaded.config.image_size == 512
    assert sum(leaf.size for leaf in flatten(loaded.export.params).values()) == 135_188_092

    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 512, 512, 3)).astype(np.float32)
    ids, lens = rng.integers(1000, 30522, (2, 24)).astype(np.int32), np.array([24, 9], np.int32)
    cells = np.sort(rng.permutation(256)[:180])
    with torch.no_grad():
        mlm, itm = model(
            torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(ids).long(),
            lens,
            "bar",
            cells=torch.from_numpy(cells).expand(2, -1),
        )
    logits = loaded.arrays.logits(images, ids, lens, cells=cells)
    assert difference(logits["mlm"], mlm, where=np.arange(24)[None] < lens[:, None]) <= 1e-4
    assert difference(logits["itm"], itm) <= 1e-4

    convert(tmp_path / "export", tmp_path / "back", to="upstream")
    back = torch.load(tmp_path / "back" / "pytorch_model.bin", weights_only=True)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_sizes_come_from_the_source(tmp_path: Path) -> None:
    sizes = Sizes(130, 20, 3, 5, 28, 21, (1, 1, 2, 1), 4, (8, 12, 16, 20), bottleneck=False, eps=1e-6)
    model = TorchMedvill(sizes)
    save(tmp_path / "pytorch_model.bin", model.state_dict())
    write_config(tmp_path, sizes)
    convert(tmp_path, tmp_path / "export")
    loaded = load(tmp_path / "export")
    bert = loaded.config.bert
    assert (bert.vocab_size, bert.hidden_size, bert.num_layers, bert.num_heads) == (130, 20, 3, 5)
    assert (bert.intermediate_size, bert.max_positions, bert.layer_norm_eps) == (28, 21, 1e-6)
    assert loaded.config.image_encoder == ResNetConfig((1, 1, 2, 1), 4, (8, 12, 16, 20), False)
    images, ids, lens = inputs()
    mlm, itm = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(ids).long(), lens, "bar")
    logits = loaded.arrays.logits(images, ids, lens)
    real = np.arange(ids.shape[1])[None] < lens[:, None]
    assert difference(logits["mlm"], mlm, where=real) <= 1e-4
    assert difference(logits["itm"], itm) <= 1e-4


def test_every_problem_is_reported_at_once(reference: TorchMedvill, tmp_path: Path) -> None:
    state = dict(reference.state_dict())
    del state["enc.pooler.dense.bias"]
    del state["enc.img_encoder.model.5.0.bn2.running_var"]
    state["itm.linear.weight"] = torch.zeros(3, SIZES.hidden)
    state["itm.linear.bias"] = torch.zeros(2, dtype=torch.float16)
    state["enc.surprise.weight"] = torch.zeros(2)
    state["mlm.predictions.decoder.weight"] = state["mlm.predictions.decoder.weight"] + 1
    save(tmp_path / "pytorch_model.bin", state)
    write_config(tmp_path, SIZES)
    with pytest.raises(HubError) as error:
        convert(tmp_path, tmp_path / "export")
    text = str(error.value)
    for line in (
        "missing: enc.pooler.dense.bias",
        "missing: enc.img_encoder.model.5.0.bn2.running_var",
        "misshaped: itm.linear.weight",
        "wrong dtype: itm.linear.bias is float16, expected float32; --cast",
        "extra: enc.surprise.weight",
        "untied: mlm.predictions.decoder.weight",
    ):
        assert line in text
    assert not (tmp_path / "export").exists()
    some = [r"enc\.pooler\..*", r"itm/.*", r"enc\.surprise.*"]
    with pytest.raises(HubError, match=r"running_var(.|\n)*untied"):
        convert(tmp_path, tmp_path / "export", allow=some)
    convert(tmp_path, tmp_path / "export", allow=[*some, r".*bn2\.running_var", r"mlm\.predictions\.decoder\.weight"])
    assert "itm" not in read_export(tmp_path / "export").params
    with pytest.raises(HubError, match=r"converted without arrays.*: pooler/dense/bias"):
        load(tmp_path / "export").arrays.logits(*inputs())


def test_a_missing_last_layer_is_named_by_config_json(reference: TorchMedvill, tmp_path: Path) -> None:
    state = {name: t for name, t in reference.state_dict().items() if "encoder.layer.1." not in name}
    save(tmp_path / "pytorch_model.bin", state)
    write_config(tmp_path, SIZES)
    with pytest.raises(HubError, match=r"missing: enc\.encoder\.layer\.1\.attention\.self\.query\.weight"):
        convert(tmp_path, tmp_path / "export")


def test_heads_are_not_guessed(reference: TorchMedvill, tmp_path: Path) -> None:
    file = save(tmp_path / "pytorch_model.bin", reference.state_dict())
    with pytest.raises(HubError, match="--num_heads"):
        convert(file, tmp_path / "export")
    assert main([f"--source={file}", f"--out={tmp_path / 'export'}", "--num_heads=4"]) == 0
    assert read_export(tmp_path / "export").config.bert.num_heads == 4


@pytest.mark.parametrize("prefix", ["module.", "bert.", "module.bert."])
def test_wrappers_prefixes_are_stripped(prefix: str, reference: TorchMedvill, tmp_path: Path) -> None:
    state = {
        (name if name.startswith("cls.") else prefix + name): tensor
        for name, tensor in stage_state("generation", reference).items()
    }
    save(tmp_path / "model.30.bin", state)
    write_config(tmp_path, SIZES)
    convert(tmp_path, tmp_path / "export")
    assert read_export(tmp_path / "export").stage == "generation"


def test_heads_of_fine_tuned_models(reference: TorchMedvill, tmp_path: Path) -> None:
    for stage, shapes in (
        ("vqa", {"answer/hidden/kernel": (32, 64), "answer/output/kernel": (64, 11), "answer/output/bias": (11,)}),
        ("classification", {"classifier/kernel": (32, 5), "classifier/bias": (5,)}),
    ):
        folder = tmp_path / stage
        folder.mkdir()
        content = stage_state(stage, reference)
        save(folder / "model.pt", content)
        write_config(folder, SIZES)
        convert(folder, folder / "export", compat="upstream")
        export = read_export(folder / "export")
        heads = flatten(export.heads)
        for name, shape in shapes.items():
            assert heads[name].shape == shape
        name = "ans_classifier.2.weight" if stage == "vqa" else "clf.weight"
        kernel = heads["answer/output/kernel" if stage == "vqa" else "classifier/kernel"]
        np.testing.assert_array_equal(kernel, state_of(content)[name].numpy().T)
        assert export.config.compat == Compat.upstream(stage)
        assert load(folder / "export", compat="clean").config.compat == Compat()
        assert load(folder / "export").arrays.logits(*inputs()) == {}


def test_a_head_whose_layers_do_not_follow_is_refused(reference: TorchMedvill, tmp_path: Path) -> None:
    state = stage_state("vqa", reference)
    state["ans_classifier.2.weight"] = torch.zeros(11, 5)
    save(tmp_path / "model.1.bin", state)
    write_config(tmp_path, SIZES)
    with pytest.raises(HubError, match="misshaped: heads/answer/output/kernel"):
        convert(tmp_path, tmp_path / "export")


@pytest.mark.parametrize("form", ["safetensors", "sharded", "bin", "pretraining", "tensorflow_names"])
def test_hugging_face_bert(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_bert()
    model = (BertForPreTraining if form in ("pretraining", "tensorflow_names") else BertModel)(config).eval()
    randomise(model, 3)
    folder = tmp_path / "bert"
    if form in ("bin", "tensorflow_names"):
        folder.mkdir()
        config.save_pretrained(folder)
        state = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            if form == "tensorflow_names"
            else name: tensor
            for name, tensor in model.state_dict().items()
        }
        save(folder / "pytorch_model.bin", state)
    else:
        model.save_pretrained(folder, max_shard_size="8KB" if form == "sharded" else "1GB")
        assert (folder / "model.safetensors.index.json").exists() == (form == "sharded")
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    notes = convert(folder, tmp_path / "export", family="huggingface")
    export = read_export(tmp_path / "export")
    heads = form in ("pretraining", "tensorflow_names")
    assert set(export.parts) == {"embeddings", "encoder", "pooler"} | ({"mlm"} if heads else set())
    assert any("cls.seq_relationship" in note for note in notes) == heads
    assert (export.config.bert.num_heads, export.config.bert.hidden_size) == (3, 24)
    assert (export.config.cls_id, export.config.sep_id) == (101, 102)
    assert export.vocab is not None
    assert export.vocab.read_text().split("\n")[:-1] == VOCAB
    ids = np.random.default_rng(0).integers(5, 104, (3, 9))
    lens = np.array([9, 1, 4])
    mask = np.arange(9)[None] < lens[:, None]
    base = model.bert if heads else model
    expected = base(torch.from_numpy(ids), torch.from_numpy(mask).long()).last_hidden_state
    loaded = load(tmp_path / "export")
    assert difference(loaded.arrays.text_hidden(ids, lens), expected, where=mask) <= 1e-4
    with pytest.raises(HubError, match="lacks image_encoder, image_projection"):
        loaded.arrays.logits(*inputs())
    with pytest.raises(HubError, match="only a whole MedViLL model"):
        convert(tmp_path / "export", tmp_path / "back", to="upstream")


def test_a_folder_of_torch_shards(tmp_path: Path) -> None:
    model = BertModel(tiny_bert())
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    files = {name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(state)}
    for file in set(files.values()):
        save(tmp_path / file, {name: tensor for name, tensor in state.items() if files[name] == file})
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    convert(tmp_path, tmp_path / "export")
    assert len(flatten(read_export(tmp_path / "export").params)) == len(state)
    save(tmp_path / "pytorch_model-00001-of-00002.bin", state)
    with pytest.raises(HubError, match="in two shards"):
        convert(tmp_path, tmp_path / "export")


def test_the_patch_embedder_of_the_released_code(reference: TorchMedvill, tmp_path: Path) -> None:
    state = {name: t for name, t in reference.state_dict().items() if ".img_encoder." not in name}
    state["enc.img_embeddings.img_embeddings.weight"] = torch.randn(SIZES.hidden, 2048)
    state["enc.img_encoder.patch_to_embedding.weight"] = torch.randn(2048, 3072)
    state["enc.img_encoder.patch_to_embedding.bias"] = torch.randn(2048)
    state["enc.img_encoder.pos_embedding"] = torch.randn(1, 257, 2048)
    save(tmp_path / "pytorch_model.bin", state)
    write_config(tmp_path, SIZES)
    notes = convert(tmp_path, tmp_path / "export")
    assert "enc.img_encoder.pos_embedding" in notes[0]
    loaded = load(tmp_path / "export")
    assert loaded.config.image_encoder == "vit_patch32"
    assert np.isfinite(np.asarray(loaded.arrays.logits(*inputs())["mlm"])).all()


@pytest.mark.parametrize("layer_type", ["bottleneck", "basic"])
def test_hugging_face_resnet(layer_type: str, tmp_path: Path) -> None:
    config = HfResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32], depths=[1, 2, 1], layer_type=layer_type)
    model = ResNetForImageClassification(config)
    randomise(model, 2)
    model.save_pretrained(tmp_path / "resnet")
    convert(tmp_path / "resnet", tmp_path / "export")
    export = read_export(tmp_path / "export")
    assert export.parts == ("image_encoder",)
    assert export.config.image_encoder == ResNetConfig((1, 2, 1), 8, (8, 16, 32), layer_type == "bottleneck")
    norm = export.stats["image_encoder"]["stages"][1][1]["layer"][0]["normalization"]
    theirs = model.resnet.encoder.stages[1].layers[1].layer[0].normalization
    np.testing.assert_array_equal(norm["var"], theirs.running_var.numpy())
    with pytest.raises(HubError, match="lacks embeddings, encoder"):
        load(tmp_path / "export").arrays.text_hidden(np.ones((1, 2), int), np.array([2]))


@pytest.mark.parametrize("name", ["resnet.pth", "resnet.safetensors"])
def test_torchvision_resnet(name: str, tmp_path: Path) -> None:
    sizes = Sizes(depths=(2, 2, 2, 2), stem=64, widths=(64, 128, 256, 512), bottleneck=False)
    model = TorchvisionResNet(sizes)
    state = dict(model.state_dict())
    if name.endswith(".pth"):
        save(tmp_path / name, {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "epoch": 1})
    else:
        save_file(state, tmp_path / name)
    convert(tmp_path / name, tmp_path / "export", family="torchvision")
    export = read_export(tmp_path / "export")
    assert export.config.image_encoder == "resnet18"
    np.testing.assert_array_equal(
        export.params["image_encoder"]["stages"][2][0]["shortcut"]["convolution"]["kernel"],
        state["layer3.0.downsample.0.weight"].numpy().transpose(2, 3, 1, 0),
    )


def test_half_precision_needs_to_be_asked_for(tmp_path: Path) -> None:
    model = BertModel(tiny_bert()).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "bert")
    with pytest.raises(HubError, match="is bfloat16, expected float32; --cast"):
        convert(tmp_path / "bert", tmp_path / "export")
    convert(tmp_path / "bert", tmp_path / "export", cast=True)
    words = read_export(tmp_path / "export").params["embeddings"]["word_embeddings"]["embedding"]
    np.testing.assert_array_equal(words, model.embeddings.word_embeddings.weight.detach().float().numpy())


def test_networks_that_compute_something_else_are_refused(tmp_path: Path) -> None:
    BertModel(tiny_bert()).save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stated, "hidden_act": "relu"}))
    with pytest.raises(HubError, match="hidden_act is 'relu'"):
        convert(tmp_path, tmp_path / "export")
    (tmp_path / "config.json").write_text(json.dumps({**stated, "num_hidden_layers": 10**9}))
    with pytest.raises(HubError, match=r"num_layers .* is 1000000000"):
        convert(tmp_path, tmp_path / "export")


def test_the_format_that_was_asked_for(upstream: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="is a pretraining checkpoint, of format upstream, not torchvision"):
        convert(upstream, tmp_path / "export", family="torchvision")
    with pytest.raises(HubError, match="is no export"):
        convert(upstream, tmp_path / "export", family="export")
    save(tmp_path / "other.pt", {"alien.weight": torch.zeros(2)})
    with pytest.raises(HubError, match=r"has no known format.*alien\.weight"):
        convert(tmp_path / "other.pt", tmp_path / "export")


def test_without_torch(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(upstream, tmp_path / "export")
    without_torch(monkeypatch)
    with pytest.raises(HubError, match=r"needs torch: pip install 'medvill_jax\[convert\]'"):
        convert(upstream, tmp_path / "other")
    with pytest.raises(HubError, match=r"needs torch: pip install 'medvill_jax\[convert\]'"):
        convert(tmp_path / "export", tmp_path / "other", to="upstream")
    convert(tmp_path / "export", tmp_path / "copy")


def test_command_line(upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--source={upstream}", f"--out={tmp_path / 'e'}", "--format=upstream", "--allow=a", "--allow=b"]) == 0
    assert "pretraining" in capsys.readouterr().out
    for arguments in ([f"--source={tmp_path / 'none'}"], [f"--source={upstream}", "--allow=("]):
        assert main([*arguments, f"--out={tmp_path / 'x'}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    for arguments in (["--out=x"], ["--source=a", "--out=b", "--format=onnx"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert main([f"--source={tmp_path / 'e'}", f"--out={tmp_path / 'e'}"]) == 1
    assert "is the source itself" in capsys.readouterr().err


def test_as_a_program() -> None:
    command = [sys.executable, "-m", "medvill_jax.hub.convert", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    for word in ("upstream", "huggingface", "torchvision", "--allow", "sharded"):
        assert word in done.stdout
