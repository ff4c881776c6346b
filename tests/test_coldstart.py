"""The cold start's study: what is held out, the baselines beside a loop, and a small study from end to end."""

import json

import numpy as np
import pytest
from command_runner import run_here
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.data.features.similarity import cosines, nearest
from mocme_jax.data.graph.graph_folder import load_graph
from mocme_jax.data.graph.known_tails import known_tails, reciprocal
from mocme_jax.serving.coldstart_study import give, hold_out, neighbour_ranks, standardised


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return load_graph(write_tiny_graph(tmp_path_factory.mktemp("tiny")), name="tiny")


def named(graph, names, triples):
    return {(names[h], graph.relations[r], names[t]) for h, r, t in triples.tolist()}


def test_what_is_held_out_leaves_no_trace_and_nothing_else_is_lost(graph, tmp_path):
    held = hold_out(graph, 0.2, seed=1)
    gone = {graph.entities[index] for index in held.ids}
    assert len(gone) == round(0.2 * 48)
    assert gone.isdisjoint(held.rest.entities)
    names = [*held.rest.entities, *(graph.entities[index] for index in held.ids)]
    for split, triples in graph.splits.items():
        kept = {row for row in named(graph, graph.entities, triples) if gone.isdisjoint((row[0], row[2]))}
        assert named(graph, names, held.rest.splits[split]) == kept
    everything = set().union(*(named(graph, graph.entities, triples) for triples in graph.splits.values()))
    assert named(graph, names, held.triples) == {row for row in everything if not gone.isdisjoint((row[0], row[2]))}
    for whole, rest, own in zip(graph.modalities, held.rest.modalities, held.modalities, strict=True):
        np.testing.assert_array_equal(own.features, whole.features[held.ids])
        assert len(rest.present) + len(own.present) == 48
        assert rest.present.sum() + own.present.sum() == whole.present.sum()
    assert hold_out(graph, 0.2, seed=1).ids.tolist() == held.ids.tolist() != hold_out(graph, 0.2, seed=2).ids.tolist()
    held.rest.save(tmp_path / "rest")
    again = load_graph(tmp_path / "rest", name="tiny")
    assert again.fingerprints() == held.rest.fingerprints()


@pytest.mark.parametrize("most", [0, 1, 2])
def test_so_many_triples_of_each_entity_are_told(graph, most):
    held = hold_out(graph, 0.2, seed=1)
    told, rest = give(held, most, seed=3)
    old = len(held.rest.entities)
    everything = [tuple(row) for part in (told, rest.triples) for row in part.tolist()]
    assert sorted(everything) == sorted(tuple(row) for row in held.triples.tolist())
    assert (told[:, [0, 2]] >= old).sum(axis=1).tolist() == [1] * len(told)
    for entity in range(old, old + len(held.ids)):
        own = [row for row in held.triples.tolist() if (max(row[0], row[2]) == entity) and min(row[0], row[2]) < old]
        assert sum(entity in (row[0], row[2]) for row in told.tolist()) == min(most, len(own))


def test_baseline_ranks_are_those_of_a_loop(graph):
    held = hold_out(graph, 0.25, seed=0)
    old, new = standardised(held)
    near = nearest(cosines(old["text"], new["text"]), 4)
    count, total = len(held.rest.entities), 48
    known = known_tails([*held.rest.splits.values(), held.triples], total, 3)
    asked = reciprocal(held.triples, 3)
    everything = {tuple(row) for part in (*held.rest.splits.values(), held.triples) for row in part.tolist()}
    train = {tuple(row) for row in held.rest.train.tolist()}

    def is_in(triples, entity, relation, other):
        return ((entity, relation, other) if relation < 3 else (other, relation - 3, entity)) in triples

    def linked(new_entity, entity, relation, about):
        """The weight of the neighbours of a new entity that are linked so."""
        weight = 0.0
        for neighbour, cosine in zip(near[0][new_entity - count], near[1][new_entity - count], strict=True):
            ends = (neighbour, entity) if about else (entity, neighbour)
            weight += cosine * is_in(train, ends[0], relation, ends[1])
        return weight

    found = neighbour_ranks(held, known, asked, near, np.random.default_rng(0))
    for place in range(0, len(asked), 3):
        entity, relation, answer = asked[place].tolist()
        scores = np.zeros(total)
        for other in range(total):
            if entity >= count:
                scores[other] = linked(entity, other, relation, True)
            elif other >= count:
                scores[other] = linked(other, entity, relation, False)
        rivals = [o for o in range(total) if o != answer and not is_in(everything, entity, relation, o)]
        better = sum(scores[o] > scores[answer] + 1e-9 for o in rivals)
        ties = sum(abs(scores[o] - scores[answer]) <= 1e-9 for o in rivals)
        assert found[place] == 1 + better + ties / 2


@pytest.mark.slow
def test_a_study_leaves_its_figures(tmp_path, monkeypatch, capsys):
    flags = tiny_flags(write_tiny_graph(tmp_path / "graph"), tmp_path / "study")
    flags = [flag.replace("structure", "text,numeric") if "modalities" in flag else flag for flag in flags]
    assert run_here("coldstart", *flags, "--share=0.2", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "cold start" in printed
    results = json.loads((tmp_path / "study" / "coldstart.json").read_text(encoding="utf-8"))
    assert results["held_out"] == 10
    assert results["modalities"].keys() == {"text", "numeric"}
    assert results["ranks"].keys() == {"MoCME", "random", "nearest", "mean of text", "mean of numeric"}
    counts = results["ranks"]["MoCME"]
    assert f"about: the {counts['about']['count']} queries that contain a held-out entity" in printed
    assert f"for: the {counts['for']['count']} queries whose gold answer is a held-out entity" in printed
    for one in results["ranks"].values():
        assert one["all"]["count"] == 2 * results["triples"]
        assert 0 < one["all"]["mrr"] <= 1
        assert one["about"]["count"] >= results["triples"] <= one["for"]["count"]
    assert run_here("coldstart", *flags, "--share=0.2", "--given=1", monkeypatch=monkeypatch) == 0
    told = json.loads((tmp_path / "study" / "coldstart.json").read_text(encoding="utf-8"))
    assert results["triples"] - 10 <= told["triples"] < results["triples"]
    assert told["given"] == 1
    assert told["ranks"].keys() == results["ranks"].keys() | {"MoCME, structure not fitted"}
    assert told["ranks"]["MoCME"] != told["ranks"]["MoCME, structure not fitted"]
