"""Why a model answers as it does: what a map is made of, what it depends on, and where it lies on the film."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_prep.phantom import film as phantom_film
from data_prep.phantom import masks
from data_prep.phantom.findings import Sign
from medvill_jax.app import explaining
from medvill_jax.app.film import placed, read
from medvill_jax.app.model import Model
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.data.transforms import Crop, square_image
from medvill_jax.errors import ConfigError
from medvill_jax.films.stored import ImageOptions
from medvill_jax.hub.arrays import explanations
from medvill_jax.hub.export import HEADS, Export
from medvill_jax.models import attention, relevance
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.models.resnet import ResNetConfig
from medvill_jax.models.vit_patch import PatchConfig
from tests.conftest import TESTS

VOCABULARY = TESTS / "golden" / "export" / "generate" / "tokenizer" / "vocab.txt"
NAMES = ("Edema", "No Finding", "Fracture")
SIZE = 32
RESNET = ResNetConfig((1, 1), 8, (8, 16), False)  # 8 pixels a cell
FILM = np.random.default_rng(0).integers(0, 256, (40, 36), dtype=np.uint8)


def network(stage: str = "classification", *, seed: int = 0, encoder: Any = RESNET, **heads: Any) -> Model:
    """A tiny model of random weights, all of which are large enough to matter."""
    tokenizer = Tokenizer.from_file(VOCABULARY)
    bert = BertConfig(tokenizer.vocab_size, 16, 2, 2, 32, 24, dropout=0.0, initializer_range=0.4, layer_norm_eps=1e-12)
    config = MedvillConfig(
        bert, image_encoder=encoder, image_size=SIZE, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id
    )
    heads_config = HeadsConfig(**heads)
    params, stats = Functional(
        lambda rngs: Finetuned(config, heads_config, dtype=jnp.dtype("float32"), rngs=rngs)
    ).init(jax.random.key(seed))
    own = params.pop(HEADS, {})
    names = NAMES if heads.get("classes") else ()
    extra = {"inputs": "image", "fusion": heads_config.fusion, "answers": ["yes", "no"], "text_len": 10}
    extra |= {"decode": {"max_len": 6}}
    export = Export(config, params, stats, own, stage, (*params,), names, VOCABULARY, extra)
    return Model(export, config, "float32")


@pytest.fixture(scope="module")
def model() -> Model:
    return network(classes=3)


@pytest.fixture(scope="module")
def writer() -> Model:
    return network("generation")


def attentions(rows: int, last: int) -> list[jax.Array]:
    """Probabilities of two layers, the second of which computes the last states only."""
    rng = np.random.default_rng(1)
    logits = [rng.normal(size=(2, 3, count, rows)) for count in (rows, last)]
    return [jax.nn.softmax(jnp.asarray(values, jnp.float32), axis=-1) for values in logits]


def test_the_rows_of_a_rollout_sum_to_one() -> None:
    layers = attentions(7, 4)
    flow = relevance.rollout(layers)
    assert flow.shape == (2, 4, 7)
    np.testing.assert_allclose(flow.sum(axis=-1), 1, rtol=0, atol=1e-6)
    first, second = (
        0.5 * (np.eye(7)[-count:] + np.asarray(probs).mean(1)) for probs, count in zip(layers, (7, 4), strict=True)
    )
    np.testing.assert_allclose(flow, second @ first, rtol=0, atol=1e-6)


def test_relevance_counts_only_what_speaks_for_the_output() -> None:
    layers = attentions(5, 5)
    against = [-jnp.ones_like(probs) for probs in layers]
    np.testing.assert_array_equal(relevance.relevance(layers, against), np.broadcast_to(np.eye(5), (2, 5, 5)))
    means = [np.asarray(probs).mean(1) for probs in layers]
    expected = (np.eye(5) + means[1]) @ (np.eye(5) + means[0])
    flow = relevance.relevance(layers, [jnp.ones_like(probs) for probs in layers])
    np.testing.assert_allclose(flow, expected, rtol=1e-6)


def test_attention_is_watched_with_its_gradient_and_leaves_no_trace() -> None:
    rng = np.random.default_rng(2)
    queries, keys, values = (jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32) for _ in range(3))
    mask = jnp.zeros((1, 1, 4, 4))

    def attended() -> jax.Array:
        return attention.attend(queries, keys, values, mask, 0.0, None)

    before = str(jax.make_jaxpr(attended)())
    [probs], [gradient] = relevance.attentions(lambda: attended().sum(axis=(1, 2, 3)))
    expected = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", queries, keys) / np.sqrt(5), axis=-1)
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-6)
    # Every query adds each value with the weight of its probability.
    np.testing.assert_allclose(gradient, np.broadcast_to(values.sum(-1)[:, :, None], (2, 3, 4, 4)), atol=1e-5)
    with attention.watched(lambda probs: 2 * probs):
        assert str(jax.make_jaxpr(lambda: attended())()) != before
    assert str(jax.make_jaxpr(lambda: attended())()) == before


def test_gradcam_of_a_linear_output_is_its_positive_part() -> None:
    rng = np.random.default_rng(3)
    features, weights = rng.normal(size=(2, 9, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    found = relevance.of_cells("gradcam", lambda x: (x @ weights).sum(axis=1), jnp.asarray(features), jnp.zeros(()))
    np.testing.assert_allclose(found, np.maximum(features @ weights, 0), atol=1e-5)
    assert 0 < (np.asarray(found) == 0).sum() < found.size


@pytest.mark.parametrize("corner", [(2, 20), (17, 9)])
def test_occlusion_finds_the_only_pixels_that_matter(
    model: Model, corner: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = np.full((SIZE, SIZE), 40, np.uint8)
    block = (slice(corner[0], corner[0] + 6), slice(corner[1], corner[1] + 6))
    film[block] = 250

    def bright(params: Any, stats: Any, images: Any, given: Any, *, output: Any) -> Any:
        return np.asarray(images, np.float32)[:, *block].sum(axis=(1, 2)) * given["outputs"]

    monkeypatch.setattr(model.arrays, "_run_score", bright)
    heat = model.explain(film, finding="Fracture", method="occlusion").map
    assert heat[block].min() > 0.3
    # Windows of a sixteenth of the side on each side of it, and the interpolation between places.
    near = np.zeros_like(heat, bool)
    near[max(corner[0] - 4, 0) : corner[0] + 10, max(corner[1] - 4, 0) : corner[1] + 10] = True
    assert heat[~near].max() == 0
    assert block[0].start <= np.unravel_index(heat.argmax(), heat.shape)[0] < block[0].stop
    assert block[1].start <= np.unravel_index(heat.argmax(), heat.shape)[1] < block[1].stop


def test_every_place_is_covered_equally_often() -> None:
    for side in (SIZE, 50, 8):
        covered = np.zeros((side, side), int)
        for window in explanations.occlusion_windows(side):
            covered[window] += 1
        assert np.unique(covered).tolist() == [4]
    grid = np.zeros((17, 17))
    grid[5, 9] = 4
    places = explanations.mean_of_windows(grid.ravel())
    assert np.argwhere(places).tolist() == [[4, 8], [4, 9], [5, 8], [5, 9]]
    assert places.max() == 1


@pytest.mark.parametrize("method", explanations.METHODS)
def test_maps_follow_film_weights_and_finding(model: Model, method: str) -> None:
    heat = model.explain(FILM, finding="Fracture", method=method)
    assert (heat.map.shape, heat.map.dtype, heat.map.min() >= 0, heat.map.max() <= 1) == (
        (SIZE, SIZE),
        np.float32,
        1,
        1,
    )
    assert (heat.method, heat.target, heat.task) == (method, "Fracture", "explain")
    assert heat.probability == pytest.approx(model.findings(FILM).probabilities["Fracture"], abs=1e-6)
    np.testing.assert_array_equal(heat.pixels, read(FILM, model.films, SIZE).pixels)
    assert np.ptp(heat.map) > 0.5
    others = [
        model.explain(FILM[::-1], finding="Fracture", method=method),
        network(classes=3, seed=5).explain(FILM, finding="Fracture", method=method),
        model.explain(FILM, finding="Edema", method=method),
    ]
    same = [np.abs(other.map - heat.map).max() < 1e-3 for other in others]
    # Rollout knows nothing of the output.
    assert same == [False, False, method == "rollout"]
    batch = model.explain([FILM, FILM[::-1]], finding="Fracture", method=method)
    np.testing.assert_allclose(batch[1].map, others[0].map, rtol=0, atol=1e-3)


def test_the_likeliest_finding_is_explained_by_default(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = model.findings(FILM).probabilities
    likeliest = max(("Edema", "Fracture"), key=probabilities.__getitem__)
    heat = model.explain(FILM, method="gradcam")
    assert heat.target == likeliest
    assert any("does not find" in warning for warning in heat.warnings) == (probabilities[likeliest] < 0.5)
    monkeypatch.setattr(explaining, "DEFAULT", "rollout")
    assert model.explain(FILM).method == "rollout"


def test_an_image_encoder_of_patches_is_explained() -> None:
    patches = network(encoder=PatchConfig(8, 16), classes=3)
    heat = patches.explain(FILM, finding="Edema", method="gradcam")
    assert np.ptp(heat.map) > 0.5


def test_an_answer_is_explained() -> None:
    asked = network("vqa", answers=2)
    heat = asked.explain(FILM, question="Is there an effusion?", method="chefer")
    answer = asked.ask(FILM, "Is there an effusion?")
    assert (heat.target, heat.probability) == (answer.answer, pytest.approx(answer.probability, abs=1e-6))
    assert np.ptp(heat.map) > 0.5


def test_words_are_explained_as_they_are_written(writer: Model) -> None:
    [written] = writer.arrays.generate(read(FILM, writer.films, SIZE).pixels[None], max_len=6, banned=())
    ids = np.array([written["token_ids"]], np.int32)
    assert ids.shape == (1, 6)
    pixels = read(FILM, writer.films, SIZE).pixels[None]
    _, log_probs = writer.arrays.explain(pixels, "rollout", "words", text_ids=ids, words=np.ones((1, 6)))
    assert log_probs[0] == pytest.approx(written["log_prob"], abs=1e-4)
    parts = [
        writer.arrays.explain(pixels, "rollout", "words", text_ids=ids, words=np.eye(6)[[k]])[1][0] for k in range(6)
    ]
    assert sum(parts) == pytest.approx(written["log_prob"], abs=1e-4)
    report = "No pleural effusion. No effusion."
    heat = writer.explain(FILM, word="effusion", report=report, method="chefer")
    assert (heat.target, heat.options["report"]) == ("effusion", report)
    np.testing.assert_array_equal(heat.map, writer.explain(FILM, word=2, report=report, method="chefer").map)
    last = writer.explain(FILM, word=-1, report=report, method="chefer")
    assert (last.target, np.abs(last.map - heat.map).max() > 1e-3) == ("effusion", True)
    assert writer.explain(FILM, word=0, method="gradcam").target in writer.report(FILM).text.lower()


def test_words_have_the_numbers_that_explain_takes(writer: Model) -> None:
    text = "No edema. No effusion."
    words = writer.words(text)
    assert words == ["no", "edema", "no", "effusion"]
    assert [writer.explain(FILM, word=number, report=text).target for number in (1, 3)] == ["edema", "effusion"]


def test_words_beyond_the_text_length_are_explained_too(writer: Model) -> None:
    """A model may write more word pieces than it reads of a text."""
    said = "edema effusion " * 9
    assert writer.export.extra["text_len"] == 10 < len(said.split()) == 18
    assert writer.words(said) == said.split()
    heat = writer.explain(FILM, word=16, report=said, method="gradcam")
    assert (heat.target, "longer than" in " ".join(heat.warnings)) == ("edema", False)
    longer = network("generation")
    longer.export.extra["text_len"] = 23
    expected = longer.explain(FILM, word=16, report=said, method="gradcam")
    np.testing.assert_allclose(heat.map, expected.map, rtol=0, atol=1e-6)
    assert heat.probability == expected.probability
    too_long = "edema " * 30
    assert len(writer.words(too_long)) == 23  # with [SEP], all positions that the network has
    cut = writer.explain(FILM, word=0, report=too_long, method="gradcam")
    assert "longer than the 23 word pieces" in " ".join(cut.warnings)


def test_words_are_of_word_pieces_without_punctuation() -> None:
    tokenizer = Tokenizer({token: number for number, token in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "pneumo", "##thorax", ".", "-", "2"]
    )})  # fmt: skip
    ids = tokenizer.encode("No pneumothorax. 2 - no, unheard").tolist()
    assert ids.count(tokenizer.unk_id) == 2
    assert explaining.word_pieces(ids, tokenizer) == [("no", [0]), ("pneumothorax", [1, 2]), ("2", [4]), ("no", [6])]


def test_occlusion_tells_how_much_of_it_is_done(model: Model) -> None:
    told: list[tuple[int, int]] = []
    heat, _ = model.explain([FILM, FILM], finding="Edema", progress=lambda *step: told.append(step))
    batches = -(-(len(explanations.occlusion_windows(SIZE)) + 1) // 32)
    assert told == [(done, 2 * batches) for done in range(1, 2 * batches + 1)]
    assert "progress" not in heat.options
    np.testing.assert_array_equal(heat.map, model.explain(FILM, finding="Edema").map)


def test_who_is_told_can_end_a_map(model: Model) -> None:
    told: list[int] = []

    def enough(done: int, of: int) -> None:
        told.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.explain(FILM, finding="Edema", progress=enough)
    assert told == [1]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model, writer: model.explain(FILM, finding="Tumour", method="gradcam"), "knows Edema, No Finding"),
        (lambda model, writer: model.explain(FILM, method="lime"), "no method 'lime'"),
        (lambda model, writer: model.explain(FILM, finding="Edema"), "give method="),
        (lambda model, writer: model.explain(FILM, finding="Edema", word=1, method="gradcam"), "leave out finding or"),
        (lambda model, writer: model.explain(FILM, word=1, method="gradcam"), "it can do: findings"),
        (lambda model, writer: model.explain(FILM, findings="Edema"), "no option findings"),
        (lambda model, writer: writer.explain(FILM, method="gradcam"), "say what to explain: word="),
        (lambda model, writer: writer.explain(FILM, word="edema", report="No edema", method="x"), "no method 'x'"),
        (
            lambda model, writer: writer.explain(FILM, word="mass", report="No edema", method="gradcam"),
            "no word 'mass'",
        ),
        (lambda model, writer: writer.explain(FILM, word=2, report="No edema", method="gradcam"), "has 2 words"),
        (lambda model, writer: writer.explain(FILM, word=1.5, report="No edema", method="gradcam"), "word=1.5"),
        (lambda model, writer: model.explain(FILM, finding="Edema", report="a", method="gradcam"), "leave report out"),
    ],
)
def test_what_cannot_be_explained_is_said(
    ask: Callable[[Model, Model], Any], words: str, model: Model, writer: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "DEFAULT", None)
    with pytest.raises(ConfigError, match=words) as error:
        ask(model, writer)
    assert "\n" not in str(error.value)


def test_late_fusion_has_no_attention_from_the_image() -> None:
    late = network(classes=3, fusion="late")
    late.export.extra["inputs"] = "image+report"
    with pytest.raises(ConfigError, match="choose gradcam or occlusion"):
        late.explain(FILM, finding="Edema", report="No edema.", method="rollout")


def test_a_map_is_saved_without_words(model: Model, tmp_path: Path) -> None:
    heat = model.explain(FILM, finding="Edema", method="gradcam")
    heat.save(tmp_path / "edema.png")
    with Image.open(tmp_path / "edema.png") as image:
        assert (image.size, image.mode, image.info) == ((512, 512), "RGB", {})
        shown = np.asarray(image)
    np.testing.assert_array_equal(shown, heat.overlay())
    # Where the map is zero the film is seen as it is, in gray.
    plain = shown[np.asarray(Image.fromarray(heat.map).resize((512, 512), Image.Resampling.NEAREST)) == 0]
    assert (plain == plain[:, :1]).mean() > 0.9
    with pytest.raises(ConfigError, match=r"\.png"):
        heat.save(tmp_path / "edema.jpg")
    told = json.loads(json.dumps(heat.to_dict()))
    np.testing.assert_array_equal(np.array(told["map"], np.float32), heat.map)
    assert {"target", "method", "probability", "warnings", "weights"} <= told.keys()
    assert "pixels" not in told


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(("view", "seed"), [("AP", 3), ("LATERAL", 8)])
def test_masks_lie_where_the_network_sees_the_finding(square: bool, view: str, seed: int, tmp_path: Path) -> None:
    signs = (Sign("Consolidation", "left", "upper", "moderate"), Sign("Pleural Effusion", "right", severity="large"))
    seen: dict[str, Any] = {"image_size": 120}
    shown = phantom_film.render(seed, view, signs, **seen)
    assert shown.shape[0] != shown.shape[1]
    found = masks.drawn(shown, seed, view, signs, **seen)
    masks.write(tmp_path / "film.png", found, shown.shape)
    found = masks.read(tmp_path / "film.png")
    assert {*found} == {"Consolidation", "Pleural Effusion"}
    options = ImageOptions(image_size=96, square=square)
    for name, mask in found.items():
        without = phantom_film.render(seed, view, signs, **seen, hidden=name)
        pair = [read(phantom_film.eight_bit(film), options, 64).pixels.astype(int) for film in (shown, without)]
        changed = np.abs(pair[0] - pair[1]) >= 10
        on_input = placed(mask, options, 64)
        assert (changed & on_input).sum() / (changed | on_input).sum() > 0.85
        # A crop of training is one of the mask too.
        crop = Crop((0.4, 0.6), (0.9, 1.1))
        cut = [
            square_image(pixels, 64, crop, np.random.default_rng(4)).astype(int)
            for pixels in (*(phantom_film.eight_bit(film) for film in (shown, without)), np.uint8(255) * mask)
        ]
        changed, on_crop = np.abs(cut[0] - cut[1]) >= 10, cut[2] >= 128
        assert (changed & on_crop).sum() / max((changed | on_crop).sum(), 1) > 0.85
