"""The report's own figures against loops over triples and candidates, and against known values."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from page_reader import Reader
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.evaluation.metrics import mean_and_margin
from mocme_jax.flags import parse
from mocme_jax.report import modality_worth, shown_answers
from mocme_jax.report.expert_weights import Shares, together
from mocme_jax.report.finished_run import read_finished
from mocme_jax.report.modality_worth import Masked, worth
from mocme_jax.report.report_writer import write_report
from mocme_jax.report.run_measurements import measure
from mocme_jax.report.score_tables import side_by_side
from mocme_jax.report.shown_answers import choose
from mocme_jax.serving.explanation import masked_scores
from mocme_jax.serving.new_triples import new_triples
from mocme_jax.training.best_model import restore_best
from mocme_jax.training.run import train_and_evaluate


@pytest.fixture(scope="module")
def measured(tiny_run):
    return measure(read_finished(tiny_run))


@pytest.fixture(scope="module")
def candidates(measured):
    """Scores of every test query's candidates, ``[2T, M + 2, N]``, each triple scored by itself.

    A candidate that a split knows, or that is ruled out, has none; the right answer has.
    """
    served, test = measured.model.served, np.asarray(measured.model.graph.test)
    facts, count = served.facts, served.facts.num_entities
    known = {tuple(row) for rows in facts.splits.values() for row in rows.tolist()}
    found = []
    for direction in (0, 1):
        for head, relation, tail in test.tolist():
            rows = [(head, relation, n) if direction == 0 else (n, relation, tail) for n in range(count)]
            scores = masked_scores(served, np.array(rows))[:, :, direction].T.astype(np.float64)
            asked = np.array([[head, relation] if direction == 0 else [tail, relation + len(measured.model.relations)]])
            out = set(facts.additions.ruled_out(asked)[1].tolist())
            for n, row in enumerate(rows):
                if row != (head, relation, tail) and (row in known or n in out):
                    scores[:, n] = -np.inf
            found.append(scores)
    return np.array(found)


def golds(measured) -> np.ndarray:
    test = np.asarray(measured.model.graph.test)
    return np.concatenate([test[:, 2], test[:, 0]])


def probabilities(measured, query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of candidates ``[N]`` by their scores: a softmax with the relation's sharpness and doubt, then the curve."""
    fit = measured.model.calibration.answers
    sharpness, doubt = fit.sharpness[query[1]], fit.doubt[query[1]]
    powers = np.exp(sharpness * (scores - scores.max()))
    share = doubt / np.isfinite(scores).sum() + (1 - doubt) * powers / powers.sum()
    return measured.model.calibration.answers_curve(share)


def loop_ranks(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Ranks ``[Q]`` of answers among candidates ``[Q, N]``; those that tie with it count half."""
    ranks = []
    for row, answer in zip(scores, answers, strict=True):
        others = np.delete(row, answer)
        near = np.abs(others - row[answer]) < 1e-5
        ranks.append(1 + ((others > row[answer]) & ~near).sum() + near.sum() / 2)
    return np.array(ranks)


def test_the_mean_and_margin_of_known_values():
    # Two triples with means .5 and 1.5: a deviation of the square root of .5, over that of 2.
    mean, margin = mean_and_margin(np.array([0.0, 1.0, 1.0, 2.0]))
    assert mean == 1.0
    assert margin == pytest.approx(1.96 * 0.5)
    assert mean_and_margin(np.array([0.25, 0.75])) == (0.5, None)


def test_intervals_are_those_of_a_loop_over_triples(tiny_run, tiny_baseline, tmp_path):
    drawn = np.random.default_rng(0).integers(1, 20, (2, 10)).astype(float)
    found = [measure(read_finished(folder)) for folder in (tiny_run, tiny_baseline)]
    # Models of a graph as small as this rank nearly all alike.
    pairs = [dataclasses.replace(one, ranks=ranks) for one, ranks in zip(found, drawn, strict=True)]
    (name, rows), *others = side_by_side(pairs, pairs[1])
    assert name == "test"
    triples = len(pairs[0].model.graph.test)

    def by_triple(ranks):
        return [(1 / ranks[i] + 1 / ranks[triples + i]) / 2 for i in range(triples)]

    def margin(values):
        mean = sum(values) / triples
        return 1.96 * (sum((v - mean) ** 2 for v in values) / (triples - 1) / triples) ** 0.5

    mine, base = (by_triple(one.ranks) for one in pairs)
    assert rows[0].margin == pytest.approx(margin(mine))
    assert rows[1].margin == pytest.approx(margin(base))
    assert rows[0].more_margin == pytest.approx(margin([a - b for a, b in zip(mine, base, strict=True)]))
    assert rows[1].more is rows[1].more_margin is None
    assert all(row.margin is row.more_margin is None for _, found in others for row in found)
    rows = side_by_side(found, found[1])[0][1]
    page = write_report([tiny_run], tmp_path / "page.html", baseline=tiny_baseline)
    text = Reader(page.read_text(encoding="utf-8")).text
    told = f"{rows[0].more:+.3f} ± {rows[0].more_margin:.3f}".replace("-", "−")
    assert f"{rows[0].metrics['mrr']:.3f} ± {rows[0].margin:.3f} {told}" in text
    assert "covers the sampling of the test queries (differences are paired by query), not the seed" in text


def test_masked_ranks_are_those_of_a_loop_over_candidates(measured, candidates):
    masked, answers = measured.masked, golds(measured)
    np.testing.assert_allclose(masked.whole, loop_ranks(candidates[:, 0], answers))
    assert list(masked.without) == list(measured.model.modalities)
    for number, name in enumerate(measured.model.modalities, start=1):
        # A loop that masks both ends, and all other candidates, one triple after the other.
        np.testing.assert_allclose(masked.without[name], loop_ranks(candidates[:, number], answers), err_msg=name)
    assert any((ranks != masked.whole).any() for ranks in masked.without.values())


def test_a_sample_has_the_ranks_of_the_whole(tiny_run, measured):
    restored = restore_best(tiny_run, alone=True)
    part = modality_worth.masked_ranks(restored, measured.model.served, measured.ranks, most=3)
    rows = np.sort(np.random.default_rng(0).permutation(5)[:3])
    both = np.concatenate([rows, rows + 5])
    np.testing.assert_array_equal(part.relations, np.asarray(measured.model.graph.test)[rows, 1])
    np.testing.assert_array_equal(part.whole, measured.ranks[both])
    for name, ranks in part.without.items():
        np.testing.assert_array_equal(ranks, measured.masked.without[name][both])


def test_the_heat_map_of_known_ranks():
    # Three triples of relation 1 and one of relation 0; asked for tails, then for heads.
    whole = np.array([1.0, 1, 1, 2] * 2)
    masked = Masked(np.array([1, 1, 1, 0]), whole, {"text": np.array([2.0, 2, 2, 1] * 2), "image": whole})
    added = {"text": {"nats": 0.5, "margin": 0.1}, "image": {"nats": -0.001, "margin": None}}
    run = SimpleNamespace(information={"modalities": added, "relations": {"b": added}})
    everything, first, second = worth(run, masked, ["a", "b"])
    assert (everything.name, first.name, second.name) == (None, "b", "a")
    assert (everything.triples, first.triples, second.triples) == (4, 3, 1)
    # Three lose one half, and one gains one half; without a deviation the interval is a point.
    assert everything.cells[0].lost == pytest.approx(0.25)
    assert everything.cells[0].margin == pytest.approx(1.96 * 0.5 / 2)
    assert not everything.cells[0].is_sure
    assert everything.cells[0].shade == 0
    assert (first.cells[0].lost, first.cells[0].margin, first.cells[0].shade) == (0.5, 0, 45)
    assert first.cells[0].is_sure
    assert (first.cells[1].lost, first.cells[1].is_sure) == (0, False)
    assert [cell.nats for cell in first.cells] == ["0.50 ± 0.10", "0.00"]
    assert second.cells[0].lost == -0.5
    assert (second.cells[0].margin, second.cells[0].nats) == (None, None)
    assert [line.name for line in worth(run, masked, ["a", "b"], most=1)] == [None, "b"]


def test_an_entitys_queries_are_answered_as_a_loop_does(measured, candidates):
    names, relations = measured.model.entities.readable, measured.model.relations.readable
    splits = measured.model.served.facts.splits
    seen = {tuple(row) for name in ("train", "valid") for row in splits[name].tolist()}
    test = {tuple(row) for row in splits["test"].tolist()}
    triples = np.asarray(measured.model.graph.test).tolist()
    shown = 0
    for place, (head, relation, tail) in enumerate(triples):
        for entity, asks_tail, row in ((head, True, place), (tail, False, place + len(triples))):
            query = next(
                one
                for one in shown_answers.queries_of(measured, entity)
                if (one.relation, one.asks_tail) == (relations[relation], asks_tail)
            )
            assert query.entity == names[entity]
            assert len(query.answers) == 5
            for answer in query.answers:
                triple = (entity, relation, answer.id) if asks_tail else (answer.id, relation, entity)
                mark = "right" if triple in test else "known" if triple in seen else "wrong"
                assert (answer.label, answer.mark) == (names[answer.id], mark)
            # What is not known stands in the order of its scores.
            order = np.argsort(-candidates[row, 0], kind="stable").tolist()
            fresh = [answer.id for answer in query.answers if answer.mark != "known"]
            assert fresh == order[: len(fresh)]
            answer = tail if asks_tail else head
            rank = loop_ranks(candidates[row : row + 1, 0], np.array([answer]))[0]
            assert [(gold.label, gold.rank) for gold in query.gold] == [(names[answer], rank)]
            assert [gold.is_given for gold in query.gold] == [answer in {one.id for one in query.answers}]
            assert (query.missed == []) == query.gold[0].is_given
            asked = np.array([entity, relation + (0 if asks_tail else len(relations))])
            told = probabilities(measured, asked, candidates[row, 0])
            for one in query.answers:
                if one.mark != "known":
                    assert one.probability == pytest.approx(told[one.id], rel=2e-3, abs=1e-9)
                    shown += one.mark == "wrong" and one.probability > 1e-6
    assert shown


def test_the_best_are_surest_and_the_worst_rank_lowest(measured, candidates):
    answers, names = golds(measured), measured.model.entities.readable
    ranks = loop_ranks(candidates[:, 0], answers)
    worst = shown_answers.worst_queries(measured, 3)
    assert [query.gold[0].rank for query in worst] == [rank for rank in sorted(ranks, reverse=True)[:3] if rank > 1]
    for query in worst:
        row = next(
            i for i, rank in enumerate(ranks) if names[answers[i]] == query.gold[0].label and rank == query.gold[0].rank
        )
        assert query.answers[0].label == names[np.argmax(candidates[row, 0])]
        assert query.answers[0].mark == "wrong"
    others = dataclasses.replace(measured, ranks=np.array([3.0, 1, 9, 1, 4, 1, 2, 8, 1, 1]))
    worst = shown_answers.worst_queries(others, 3)
    assert [query.gold[0].rank for query in worst] == [9, 8, 4]
    firsts = [next(answer.label for answer in query.answers if answer.mark != "known") for query in worst]
    # The right answer is left out.
    wrong = np.where(np.arange(candidates.shape[2]) == answers[:, None], -np.inf, candidates[:, 0])
    assert firsts == [names[np.argmax(wrong[row])] for row in (2, 7, 4)]
    best = shown_answers.best_queries(measured)
    sure = sorted(measured.first_probability[ranks == 1], reverse=True)
    assert [query.answers[0].probability for query in best] == sure[:5]
    assert all(query.answers[0].mark == "right" and query.gold[0].is_given for query in best)


def test_the_likely_triples_are_new_and_bounded(measured):
    found = shown_answers.likely_triples(measured.model, None)
    names, relations = measured.model.entities.readable, measured.model.relations.readable
    known = {
        (names[h], relations[r], names[t])
        for rows in measured.model.served.facts.splits.values()
        for h, r, t in rows.tolist()
    }
    assert (found["asked"], found["relations"], len(found["rows"])) == (3, 3, 20)
    assert not known & {row[:3] for row in found["rows"]}
    best = new_triples(measured.model.served, measured.model.calibration, 20)
    assert [row[3] for row in found["rows"]] == sorted(best.chance.tolist(), reverse=True)
    train = np.array([[0, 2, 1], [1, 2, 0], [0, 1, 1]])
    assert shown_answers.relations_within(train, 10, 3, most=40).tolist() == [1, 2]
    assert shown_answers.relations_within(train, 10, 3, most=39).tolist() == [2]
    assert shown_answers.likely_triples(measured.model, None, most=95) == {"rows": [], "asked": 0, "relations": 3}


def test_shares_that_are_alike_are_drawn_once():
    rows = [
        Shares("a", 30, np.array([0.50, 0.50])),
        Shares("b", 20, np.array([0.20, 0.80])),
        Shares("c", 10, np.array([0.54, 0.46])),
        Shares("d", 10, np.array([0.57, 0.43])),
    ]
    found = together(rows)
    assert [(one.name, one.count) for one in found] == [("a; c", 40), ("b", 20), ("d", 10)]
    np.testing.assert_allclose(found[0].mean, [0.51, 0.49])
    many = together([Shares(str(i), 1, np.array([1.0])) for i in range(6)])
    assert [(one.name, one.count) for one in many] == [("0; 1; 2; 3; and 2 more", 6)]


def test_entities_are_chosen_by_their_queries_and_pictures(measured):
    asked = set(np.asarray(measured.model.graph.test)[:, [0, 2]].ravel().tolist())
    chosen = choose(measured, [], count=4)
    assert set(chosen) <= asked
    assert len({measured.patterns[index] for index in chosen}) > 1
    without = next(index for index in range(48) if index not in asked)
    # Of another pattern than the first, and behind others of its own.
    pictured = next(
        index
        for index in choose(measured, [], count=48)
        if index in asked and index not in chosen and measured.patterns[index] != measured.patterns[chosen[0]]
    )
    found = choose(measured, [], {pictured: 1, without: 1}, count=4)
    assert found[0] == pictured
    assert without not in found
    assert choose(measured, [measured.model.entities.names[without]] * 2) == [without]


@pytest.mark.slow
def test_a_graph_without_test_triples_has_a_page(tmp_path):
    graph = write_tiny_graph(tmp_path / "graph")
    (graph / "test.txt").write_text("", encoding="utf-8")
    flags = tiny_flags(graph, tmp_path / "run", data__modalities="text,numeric", train__epochs=2)
    train_and_evaluate(*parse(flags, ""))
    text = Reader(write_report([tmp_path / "run"]).read_text(encoding="utf-8")).text
    assert text.count("There are no test triples.") == 3
    assert "or no test triples" in text
    assert "Up to three test queries" not in text
    assert "confidence interval" not in text
    assert "The most probable new triples" in text
