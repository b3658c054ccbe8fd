"""A weights folder for `neural_clinical`, in the form of the real one, with tiny random models in it.

Uses PyTorch and transformers, which the "clinical" extra brings, and nothing of `radeval`'s code: the names and shapes
of the two checkpoints that are not in Hugging Face's form stand here.
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

TEXT = """no small large left right effusion effusions edema heart lungs opacity is are the clear enlarged .
pneumothorax mild new old lower upper lobe a b ab 1 2 ##s ##d"""
WORDS = TEXT.split()
HIDDEN, LAYERS = 8, {"num_hidden_layers": 6}
SIZES = {"hidden_size": HIDDEN, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
FEATURES, WIDE = 4, 6
ENTITIES = ("", "Anatomy::definitely present", "Observation::definitely present", "Observation::definitely absent")
RELATIONS = ("modify", "located_at", "suggestive_of")
# radeval has 13 findings with four classes (blank, positive, negative, uncertain) and "No Finding" with two.
HEADS = (4,) * 13 + (2,)


def write(folder: Path) -> None:
    """Everything that every metric needs."""
    torch.manual_seed(0)
    _chexbert(folder)
    for name in ("radgraph", "radgraph-xl"):
        _radgraph(folder, name)
    _model(folder / "distilbert-base-uncased", transformers.DistilBertModel, n_layers=6, dim=HIDDEN, n_heads=2)
    _model(folder / "distilroberta-base", transformers.RobertaModel, **SIZES, **LAYERS, pad_token_id=0)
    modern = folder / "IAMJB/RadEvalModernBERT"
    special = dict(zip(("pad", "cls", "sep", "bos", "eos"), (0, 2, 3, 2, 3), strict=True))
    ids = {f"{name}_token_id": value for name, value in special.items()}
    _model(modern, transformers.ModernBertModel, **SIZES, **ids, num_hidden_layers=22)
    mapping = Path(find_spec("radeval").submodule_search_locations[0], "metrics/SRRBert")  # pyright: ignore
    count = len(json.loads((mapping / "leaves_with_statuses_mapping.json").read_text()))
    srr = folder / "StanfordAIMI/SRR-BERT-Leaves-with-Statuses"
    _model(srr, transformers.BertForSequenceClassification, **SIZES, **LAYERS, num_labels=count)
    _tokenizer(folder / "microsoft/BiomedVLP-CXR-BERT-general")
    _config(folder / "microsoft/BiomedVLP-CXR-BERT-general")
    punkt = folder / "nltk_data/tokenizers/punkt_tab/english"
    punkt.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (punkt / name).touch()


def _tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    # tokenizer.json too, which is all that some models' tokenizers read.
    transformers.BertTokenizer.from_pretrained(folder, model_max_length=64).save_pretrained(folder)


def _config(folder: Path) -> transformers.BertConfig:
    config = transformers.BertConfig(vocab_size=len(WORDS) + 5, num_hidden_layers=1, **SIZES)
    config.save_pretrained(folder)
    return config


def _model(folder: Path, kind: Any, **settings: Any) -> None:
    _tokenizer(folder)
    model = kind(kind.config_class(vocab_size=len(WORDS) + 5, **settings))
    model.load_state_dict(_random(model.state_dict()))
    model.save_pretrained(folder)


def _random(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values that give every text an answer of its own: attention looks at all words, and weights outdo biases."""
    scale = {name: 0.1 if any(part in name for part in ("query", "q_lin", "bias")) else 2.0 for name in state}
    return {name: scale[name] * torch.randn(x.shape) if x.is_floating_point() else x for name, x in state.items()}


def _chexbert(folder: Path) -> None:
    base = folder / "bert-base-uncased"
    _tokenizer(base)
    state = {f"bert.{name}": x for name, x in transformers.BertModel(_config(base)).state_dict().items()}
    for number, classes in enumerate(HEADS):
        state |= {f"linear_heads.{number}.weight": torch.empty(classes, HIDDEN)}
        state |= {f"linear_heads.{number}.bias": torch.empty(classes)}
    (folder / "chexbert").mkdir()
    state = {f"module.{name}": x for name, x in _random(state).items()}
    torch.save({"epoch": 1, "model_state_dict": state}, folder / "chexbert/chexbert.pth")


def _radgraph(folder: Path, name: str) -> None:
    torch.manual_seed(8)  # With which some entities have relations and some have none.
    archive, encoder = folder / name, f"some/encoder-of-{name}"
    _tokenizer(folder / encoder)
    bert = transformers.BertModel(_config(folder / encoder))
    (archive / "vocabulary").mkdir(parents=True)
    for file, lines in (
        ("non_padded_namespaces", ("*tags", "*labels")),
        (f"{name}__ner_labels", ENTITIES),
        (f"{name}__relation_labels", RELATIONS),
    ):
        (archive / f"vocabulary/{file}.txt").write_text("\n".join(lines) + "\n")
    named = {"bert": {"type": "pretrained_transformer_mismatched", "model_name": encoder, "max_length": 64}}
    # Spans of one word, all of which may have relations.
    model = {
        "type": "dygie",
        "embedder": {"token_embedders": named},
        "initializer": {},
        "module_initializer": {},
        "modules": {
            "ner": {},
            "relation": {"spans_per_word": 1},
            "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
            "events": {"trigger_spans_per_word": 0.3, "argument_spans_per_word": 0.8, "loss_weights": {"trigger": 1}},
        },
        "feature_size": FEATURES,
        "max_span_width": 1,
        "target_task": "relation",
        "feedforward_params": {"num_layers": 2, "hidden_dims": WIDE, "dropout": 0.4},
        "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
    }
    settings = {"dataset_reader": {"max_span_width": 1, "token_indexers": named}, "model": model}
    (archive / "config.json").write_text(json.dumps(settings))
    prefix = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
    state = {prefix + key: x for key, x in bert.state_dict().items()}
    torch.save(_random(state | _dygie(name)), archive / "weights.th")


def _dygie(name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}

    def linear(key: str, out: int, size: int) -> None:
        state.update({f"{key}.weight": torch.empty(out, size), f"{key}.bias": torch.empty(out)})

    def feedforward(key: str, size: int) -> None:
        linear(f"{key}._linear_layers.0", WIDE, size)
        linear(f"{key}._linear_layers.1", WIDE, WIDE)

    span = 2 * HIDDEN + FEATURES
    state["_endpoint_span_extractor._span_width_embedding.weight"] = torch.empty(1, FEATURES)
    for part in ("_coref", "_events"):
        state[f"{part}._distance_embedding.weight"] = torch.empty(10, FEATURES)
    for key, out in (
        (f"_ner._ner_scorers.{name}__ner_labels", len(ENTITIES) - 1),
        (f"_relation._mention_pruners.{name}__relation_labels._scorer", 1),
        ("_coref._mention_pruner._scorer", 1),
    ):
        feedforward(f"{key}.0._module", span)
        linear(f"{key}.1._module", out, WIDE)
    feedforward("_coref._antecedent_feedforward._module", 3 * span + FEATURES)
    linear("_coref._antecedent_scorer._module", 1, WIDE)
    linear("_coref._f_network._linear_layers.0", span, 2 * span)
    feedforward(f"_relation._relation_feedforwards.{name}__relation_labels", 3 * span)
    linear(f"_relation._relation_scorers.{name}__relation_labels", len(RELATIONS), WIDE)
    return state


def linear(state: dict[str, torch.Tensor], key: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer of a checkpoint."""
    return lambda x: x @ state[f"{key}.weight"].T + state[f"{key}.bias"]
