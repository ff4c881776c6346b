"""The class ``TrainedModel``, which answers queries given by name with names, scores and probabilities."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.serving import completion
from mocme_jax.serving.answers import Answer, ListOfRows, Neighbour, Rows
from mocme_jax.serving.compiled_queries import rows_of
from mocme_jax.serving.explanation import Explanation, explain_triple
from mocme_jax.serving.fitted_structure import Fitting
from mocme_jax.serving.name_lookup import Key, Lookup
from mocme_jax.serving.new_entities import STRUCTURES, Features, extended, read_features
from mocme_jax.serving.rated_answers import Answered, answer_entities, answer_relations
from mocme_jax.serving.run_model import RunModel
from mocme_jax.training.setup.settings import settings_of

Keys = Key | Iterable[Key]


class TrainedModel(RunModel):
    """A trained model, as ``mocme_jax.load`` and ``mocme_jax.fit`` return it; see ``RunModel`` for its attributes.

    Methods take entities and relations by name, by readable name or by id. Most take one key or several.
    """

    def complete(
        self,
        head: Keys | None = None,
        relation: Keys | None = None,
        tail: Keys | None = None,
        k: int = 10,
        *,
        exclude: Sequence[str] = (),
    ) -> Rows | ListOfRows:
        """Return the k most probable answers to a query, which gives two of head, relation and tail.

        If both given arguments hold several keys, they are paired in order. A single key is paired with each key of the
        other argument.

        Args:
          head: one key or several; None to predict heads.
          relation: one key or several; None to predict relations.
          tail: one key or several; None to predict tails.
          k: the number of answers.
          exclude: splits whose triples are left out, such as ``("train", "valid", "test")``.

        Returns:
          A list of ``Answer``, best first. If any argument holds several keys, a list of such lists, one per query.
          Both have ``to_frame()``, which returns a DataFrame.

        Raises:
          UserError: a name is unknown (the message suggests similar names), not exactly two of the three are given, two
            lists of keys differ in length, or k is no whole number or less than 1.
        """
        given = {"head": head, "relation": relation, "tail": tail}
        missing = [name for name, key in given.items() if key is None]
        if len(missing) != 1:
            raise UserError("give two of head, relation and tail; the third is predicted")
        single = all(key is None or isinstance(key, str | int | np.integer) for key in given.values())
        ids = {
            name: (self.relations if name == "relation" else self.entities).ids(key)
            for name, key in given.items()
            if key is not None
        }
        try:
            first, second = np.broadcast_arrays(*ids.values())
        except ValueError:
            sizes = " and ".join(f"{len(array)} of {name}" for name, array in ids.items())
            raise UserError(f"{sizes} have different lengths; give one value or lists of equal length") from None
        if not len(first):
            return ListOfRows()
        if missing[0] == "relation":
            answered = self.answer_relations(np.stack([first, second], axis=1), k, exclude)
            names = self.relations
        else:
            entity, asked = (first, second) if missing[0] == "tail" else (second, first + len(self.relations))
            answered = self.answer(np.stack([entity, asked], axis=1), k, exclude)
            names = self.entities
        lists = [self._answers(answered, row, names) for row in range(len(first))]
        return lists[0] if single else ListOfRows(lists)

    def answer(self, questions: np.ndarray, k: int, exclude: Sequence[str] = ()) -> Answered:
        """Answer entity queries given by id.

        Args:
          questions: int ``[Q, 2]``, the known entity and the relation in [0, 2R). Relation r + R predicts the head of
            r. Repeated queries are computed once.
          k: the number of answers per query.
          exclude: splits whose triples are left out.

        Returns:
          An ``Answered``, in the order of the queries.

        Raises:
          UserError: k is no whole number or less than 1, or a split is unknown.
        """
        self._check_k(k)
        questions, place = np.unique(np.asarray(questions, np.int32), axis=0, return_inverse=True)
        answered = answer_entities(self.served, self.calibration, questions, k, exclude)
        return answered.take(place.reshape(-1))

    def answer_relations(self, pairs: np.ndarray, k: int, exclude: Sequence[str] = ()) -> Answered:
        """Predict relations between entities given by id.

        The score of a relation is the mean of the scores in both directions.

        Args:
          pairs: int ``[Q, 2]``, head and tail.
          k: the number of answers per query.
          exclude: splits whose triples are left out.

        Returns:
          An ``Answered``, in the order of the pairs.

        Raises:
          UserError: k is no whole number or less than 1, or a split is unknown.
        """
        self._check_k(k)
        return answer_relations(self.served, self.calibration, pairs, k, exclude)

    def score(self, triples: Iterable[tuple[Key, Key, Key]]) -> np.ndarray:
        """Score triples.

        The score of a triple is the mean of two scores: the tail's in the query (head, relation, ?), and the head's in
        the query (?, relation, tail).

        Args:
          triples: T triples of names or ids.

        Returns:
          float64 ``[T]``; higher is more plausible.

        Raises:
          UserError: a row is not a triple, or a name is unknown.
        """
        return completion.score_triples(self.served, self.triples(triples)).astype(np.float64).mean(axis=1)

    def triples(self, triples: Iterable[tuple[Key, Key, Key]]) -> np.ndarray:
        """Convert triples of names or ids to ids.

        Args:
          triples: T triples of names or ids.

        Returns:
          int32 ``[T, 3]``.

        Raises:
          UserError: a row is not a triple, or a name is unknown.
        """
        rows = [tuple(row) for row in triples]
        for row in rows:
            if len(row) != 3:
                raise UserError(f"{row}: a triple is head, relation, tail")
        heads, relations, tails = zip(*rows, strict=True) if rows else ((), (), ())
        columns = self.entities.ids(heads), self.relations.ids(relations), self.entities.ids(tails)
        return np.stack(columns, axis=1)

    def encode(self, entities: Keys, *, answers: bool = False) -> np.ndarray:
        """Return the encodings of entities.

        An encoding holds the vectors of all experts, each weighted for the entity; see ``EntityVectors``. In a model of
        the structure alone, the encodings of both roles are equal.

        Args:
          entities: one key or n keys.
          answers: whether to encode the entities as candidate answers. By default they are encoded as the known entity
            of a query.

        Returns:
          float32 ``[n, W]``.

        Raises:
          UserError: a name is unknown.
        """
        table = self.served.tables.answers if answers else self.served.tables.questions
        return np.asarray(rows_of(table, self.entities.ids(entities)))

    def neighbours(self, entity: Keys, k: int = 10) -> Rows | ListOfRows:
        """Return the k entities with the most similar encodings, by cosine, without the entity itself.

        Encodings are those of the known entity of a query; see ``encode``.

        Args:
          entity: one key or several.
          k: the number of neighbours.

        Returns:
          A list of ``Neighbour``, most similar first. For several keys, a list of such lists, one per key.

        Raises:
          UserError: a name is unknown, or k is no whole number or less than 1.
        """
        self._check_k(k)
        ids = self.entities.ids(entity)
        k = min(k, len(self.entities) - 1)
        best = completion.nearest(self.served, ids, k)
        names, readable = self.entities.names, self.entities.readable
        lists = [
            Rows(
                Neighbour(rank, index, names[index], readable[index], cosine)
                for rank, (index, cosine) in enumerate(zip(found.tolist(), cosines.tolist(), strict=True), start=1)
            )
            for found, cosines in zip(best.ids[:, :k], best.scores[:, :k], strict=True)
        ]
        return lists[0] if isinstance(entity, str | int | np.integer) else ListOfRows(lists)

    def explain(self, triple: tuple[Key, Key, Key], *, nearest: int = 5) -> Explanation:
        """Explain the score of a triple.

        Args:
          triple: head, relation and tail, by name or id.
          nearest: the number of similar training triples to return.

        Returns:
          An ``Explanation``.

        Raises:
          UserError: it is not a triple, or a name is unknown.
        """
        return explain_triple(self, self.triples([triple])[0], nearest)

    def add_entities(
        self,
        names: Sequence[str],
        features: Features,
        triples: Iterable[tuple[Key, Key, Key]] = (),
        *,
        structure: str = "inferred",
        fit: bool = True,
    ) -> "TrainedModel":
        """Return a model with additional entities, encoded from their features and triples without retraining.

        Args:
          names: n new names. Their ids follow the existing ones.
          features: a mapping from modality to one value per entity; None where the entity lacks the modality. Values
            are texts, paths of images, sounds or clips, or ``{attribute: number}`` (see ``data.features.raw_values``).
            Or vectors ``[n, d_m]`` as in the graph's feature files, with a row of NaN for a missing one.
          triples: known triples of the new entities, of names or ids.
          structure: ``inferred`` takes the initial structure from entities with similar features (see
            ``serving.new_entities``). ``missing`` uses none.
          fit: fit the structure to the triples (see ``serving.fitted_structure``). If False, the triples count as known
            answers and change no encoding.

        Raises:
          UserError: a name exists already, or the features do not fit the model.
        """
        if isinstance(names, str):
            raise UserError(f"give the new entities' names as a list, such as [{names!r}]")
        names = list(names)
        if structure not in STRUCTURES:
            raise UserError(f"structure is {structure!r}, expected one of {', '.join(STRUCTURES)}")
        entities = self.entities.extended(names)
        modalities = read_features(self.graph.modalities, features, len(names))
        if not names:
            return self
        grown = dataclasses.replace(self, entities=entities, base=self.base or self)
        facts = grown.triples(triples)
        own = settings_of(self.saved["config"])
        fitting = Fitting(own.table_learning_rate, own.regulariser, own.regularisation)
        infer = structure == "inferred"
        served = extended(self.served, modalities, facts, len(names), infer=infer, fitting=fitting if fit else None)
        return dataclasses.replace(grown, served=served)

    def _answers(self, answered: Answered, row: int, names: Lookup) -> Rows:
        facts = self.served.facts
        return Rows(
            Answer(
                place + 1,
                int(index),
                names.names[index],
                names.readable[index],
                float(answered.scores[row, place]),
                float(answered.probability[row, place]),
                facts.word(int(answered.known[row, place])),
            )
            for place, index in enumerate(answered.ids[row])
            if index >= 0
        )

    @staticmethod
    def _check_k(k: int) -> None:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise UserError(f"k is {k!r}, expected a whole number, at least 1")
