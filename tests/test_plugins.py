"""A score function and a fusion from outside, trained and loaded as the program's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_graph import write_tiny_graph

import mocme_jax
from mocme_jax.config_fields import FIELDS
from mocme_jax.method.complementarity import FUSIONS, Complementarity, Fusion
from mocme_jax.method.scoring import SCORES, Score
from mocme_jax.plugins import add_fusion, add_score

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
    """A number for each expert, fitted on held-out triples."""

    fitted_on = "held_out"

    def setup(self):
        self.number = self.param("number", jax.nn.initializers.zeros, (self.experts,))

    def entity(self, vectors, has, evidence, *, answers):
        return jnp.broadcast_to(self.number, has.shape)


@pytest.fixture
def undone():
    """Forgets what a test adds."""
    before = dict(FIELDS), dict(SCORES), dict(FUSIONS)
    yield
    for now, then in zip((FIELDS, SCORES, FUSIONS), before, strict=True):
        now.clear()
        now.update(then)


def test_a_score_and_a_fusion_of_ones_own_train_and_load(undone, tmp_path):
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


def test_a_name_that_is_taken_is_refused(undone):
    with pytest.raises(mocme_jax.UserError, match="has complex already"):
        add_score(QUATERNION._replace(name="complex"))
    with pytest.raises(mocme_jax.UserError, match="has mean already"):
        add_fusion("mean", Complementarity)
    assert FUSIONS["mean"] is not Complementarity


def test_a_name_that_was_not_added_is_refused():
    with pytest.raises(mocme_jax.UserError, match="quate"):
        mocme_jax.fit(mocme_jax.KnowledgeGraph.from_triples([("a", "r", "b")]), score="quate")
