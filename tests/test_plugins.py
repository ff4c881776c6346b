"""A score function, a fusion and an encoder from outside, used as the program's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_graph import write_tiny_graph

import mocme_jax
from mocme_jax.data.features.raw_values import encode_raw
from mocme_jax.data.media.file_encoders import ADDED
from mocme_jax.errors import UserError
from mocme_jax.method.complementarity import FUSIONS, Complementarity, Fusion
from mocme_jax.method.scoring import Score
from mocme_jax.plugins import add_encoder, add_fusion, add_score

SMALL = dict(width=8, expert_hidden=4, pool=16, batch_size=32, epochs=4, eval_every=2, patience=0, devices=1)


def quaternion_query(head, relation, core=None):
    """QuatE: the Hamilton product of the head and the relation of unit length (Zhang et al., NeurIPS 2019)."""
    a, b, c, d = jnp.split(head, 4, axis=-1)
    p, q, u, v = jnp.split(relation, 4, axis=-1)
    length = jnp.sqrt(p**2 + q**2 + u**2 + v**2 + 1e-9)
    p, q, u, v = p / length, q / length, u / length, v / length
    parts = a * p - b * q - c * u - d * v, a * q + b * p + c * v - d * u
    parts += a * u - b * v + c * p + d * q, a * v + b * u - c * q + d * p
    return jnp.concatenate(parts, axis=-1)


QUATERNION = Score(
    "quate",
    quaternion_query,
    match=lambda q, tails: q @ tails.T,
    pair=lambda q, tails: jnp.sum(q * tails, axis=-1),
    moduli=jnp.abs,
    relation_width=lambda d, core: d,
)


class OneNumber(Fusion):
    """A number for each expert, fitted on dev."""

    fitted_on = "dev"

    def setup(self):
        self.number = self.param("number", jax.nn.initializers.zeros, (self.experts,))

    def entity(self, vectors, has, evidence, *, answers):
        return jnp.broadcast_to(self.number, has.shape)


@pytest.mark.slow
def test_a_score_and_a_fusion_of_ones_own_train_and_load(plug_ins_forgotten, tmp_path):
    for _ in range(2):
        add_score(QUATERNION)
        add_fusion("one number", OneNumber)
    graph = mocme_jax.KnowledgeGraph.from_folder(write_tiny_graph(tmp_path / "tiny"))
    fields = dict(score="quate", fusion="one number", **SMALL)
    model = mocme_jax.fit(graph, workdir=tmp_path / "run", **fields)
    numbers = np.asarray(model.served.params.model["params"]["fusion"]["number"])
    assert numbers.shape == (4,)
    assert (numbers != 0).all()
    again = mocme_jax.load(tmp_path / "run")
    triple = ("place 1", "next", "place 2")
    np.testing.assert_array_equal(again.score([triple]), model.score([triple]))
    # The score by hand: each expert's Hamilton product, weighed, and its mirror image for the head.
    parameters = model.served.params.model["params"]
    row, count = model.triples([triple])[0], len(model.relations)
    weights = np.exp(np.asarray(jnp.zeros((2 * count, 4))))
    by_hand = 0.0
    for asked, relation, answer in ((row[0], row[1], row[2]), (row[2], row[1] + count, row[0])):
        q = model.encode([int(asked)]).reshape(4, 8), np.asarray(parameters["relation"])[relation].reshape(4, 8)
        a = model.encode([int(answer)], answers=True).reshape(4, 8)
        by_hand += float(np.sum(weights[relation][:, None] * np.asarray(quaternion_query(*q)) * a)) / 2
    assert model.score([triple])[0] == pytest.approx(by_hand, rel=1e-5)


def test_a_name_that_is_taken_is_refused(plug_ins_forgotten):
    with pytest.raises(mocme_jax.UserError, match="complex is already in use"):
        add_score(QUATERNION._replace(name="complex"))
    with pytest.raises(mocme_jax.UserError, match="mean is already in use"):
        add_fusion("mean", Complementarity)
    assert FUSIONS["mean"] is not Complementarity


def test_a_fusion_that_is_fitted_on_unknown_triples_is_refused(plug_ins_forgotten):
    class Outdated(Fusion):
        fitted_on = "held_out"

    with pytest.raises(
        mocme_jax.UserError, match="outdated: fitted_on is 'held_out'; it must be one of dev, train, no"
    ):
        add_fusion("outdated", Outdated)
    assert "outdated" not in FUSIONS


def test_a_name_that_was_not_added_is_refused():
    with pytest.raises(mocme_jax.UserError, match="quate"):
        mocme_jax.fit(mocme_jax.KnowledgeGraph.from_triples([("a", "r", "b")]), score="quate")


def test_an_encoder_of_ones_own_encodes_the_graph_and_what_comes_later(plug_ins_forgotten, tmp_path):
    """Files of numbers: their vector is what is in them, so that every vector is known."""

    def read(paths):
        seen.append([path.name for path in paths])
        return [np.loadtxt(path) if path.stat().st_size else np.full(3, np.nan) for path in paths]

    seen = []
    rows = np.random.default_rng(0).normal(size=(21, 3)).round(3)
    for place, row in enumerate(rows):
        np.savetxt(tmp_path / f"p{place}.mesh", row)
    add_encoder("mesh", "numbers", read)
    triples = [(f"p{a}", "next", f"p{(a + 1) % 20}") for a in range(20)]
    files = {f"p{a}": tmp_path / f"p{a}.mesh" for a in range(19)}
    graph = mocme_jax.KnowledgeGraph.from_triples(triples, features={"mesh": files}, encoders={"mesh": "numbers"})
    (mesh,) = graph.modalities
    assert (mesh.name, mesh.made_by) == ("mesh", "numbers")
    np.testing.assert_allclose(mesh.features, [*rows[:19], [0, 0, 0]], atol=1e-6)
    assert sorted(name for names in seen for name in names) == sorted(path.name for path in files.values())
    (tmp_path / "empty.mesh").touch()
    with pytest.raises(UserError, match=r"empty\.mesh: the encoder gave no vector"):
        mocme_jax.KnowledgeGraph.from_triples(
            triples, features={"mesh": files | {"p19": tmp_path / "empty.mesh"}}, encoders={"mesh": "numbers"}
        )
    np.testing.assert_allclose(encode_raw(mesh, [tmp_path / "p20.mesh", None])[0], rows[20], atol=1e-6)
    # In a process that knows nothing of it.
    ADDED.clear()
    with pytest.raises(UserError, match="encoded with 'numbers'; encode the new values with it"):
        encode_raw(mesh, [tmp_path / "p20.mesh"])


def test_encoders_by_name(tmp_path, plug_ins_forgotten):
    triples = [("a", "next", "b"), ("b", "next", "c")]
    make = mocme_jax.KnowledgeGraph.from_triples
    for features, encoders, told in (
        ({"image": {"a": [1.0]}}, {"image": "layout"}, "these values are not encoded"),
        ({"image": {"a": [1.0]}}, {"audio": "mel"}, "audio is not among the features"),
        ({"image": {"a": tmp_path / "a.png"}}, {"image": "lay"}, r"did you mean layout\?"),
        ({"text": {"a": "words"}}, {"text": "usem4"}, "text encoder 'usem4' is unknown"),
        ({"mesh": {"a": tmp_path / "a.png"}}, {"mesh": "numbers"}, "files are read only for image, audio, video"),
    ):
        with pytest.raises(UserError, match=told):
            make(triples, features=features, encoders=encoders)
    for modality, name, told in (
        ("text", "mine", "not made from files"),
        ("structure", "mine", "not made from files"),
        ("image", "layout", "layout is already in use"),
        ("image", "a:b", "contains a colon"),
    ):
        with pytest.raises(UserError, match=told):
            add_encoder(modality, name, np.zeros)
    add_encoder("image", "wrong", lambda paths: np.zeros((len(paths) + 1, 2)))
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"gave an array \[2, 2\] for 1 files"):
        make(triples, features={"image": {"a": tmp_path / "a.png"}}, encoders={"image": "wrong"})
