"""Entities and triples of the atlas, and their split."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter, defaultdict

import numpy as np

from mocme_jax.data.atlas.sources import Sources, Town

KINDS = ("country", "continent", "city", "region", "time zone", "clock", "language", "script", "currency")
MIN_POPULATION = 300_000
MIN_SPEAKERS_PERCENT = 5.0
SYMMETRIC = "borders"

RELATIONS = {
    "in_continent": "country -> continent (GeoNames)",
    "borders": "country -> country, both directions (GeoNames)",
    "capital_of": "city -> country (GeoNames)",
    "region_of": "region -> country (GeoNames)",
    "in_region": "city -> region (GeoNames)",
    "in_country": "city -> country, only for a city without a region (GeoNames)",
    "has_time_zone": "city -> time zone (GeoNames)",
    "region_time_zone": "region -> time zone, that of most of its towns outside the graph (GeoNames)",
    "zone_of": "time zone -> country (CLDR)",
    "keeps_clock": "time zone -> clock, CLDR's metazone, such as Central European Time (CLDR)",
    "official_language": "country -> language, official in the whole country, by law or in fact (CLDR)",
    "regional_language": "country -> language, official in a part or for a minority (CLDR)",
    "spoken_language": "country -> language, not official, of 5% of the people or more (CLDR)",
    "written_in": "language -> script (CLDR)",
    "currency": "country -> currency, legal tender in use (CLDR)",
    "former_currency": "country -> currency, legal tender no more in use (CLDR)",
}


@dataclasses.dataclass
class Entity:
    """A thing with a name in the graph; ``texts`` are the names that are encoded, its own name first."""

    kind: str
    key: str
    label: str
    texts: list[str]
    country: str = ""
    region: str = ""
    name: str = ""


@dataclasses.dataclass
class Atlas:
    """Entities in the order of their ids, facts (head, relation, tail), and what the features are made of."""

    entities: list[Entity]
    facts: list[tuple[int, str, int]]
    cities: dict[str, Town]
    outside: list[Town]
    """Towns of 15,000 and more that are not in the graph."""


def build(sources: Sources) -> Atlas:
    """Chooses the entities and derives the facts; deterministic."""
    capitals = _capitals(sources)
    towns = sources.towns(15000)
    cities = {town.key: town for town in towns if town.population >= MIN_POPULATION}
    cities.update({town.key: town for town in capitals.values()})
    outside = [town for town in towns if town.key not in cities]
    facts: set[tuple[tuple[str, str], str, tuple[str, str]]] = set()
    facts |= _place_facts(sources, cities, outside)
    facts |= {(("city", town.key), "capital_of", ("country", code)) for code, town in capitals.items()}
    facts |= _country_facts(sources)
    keys = {end for head, _, tail in facts for end in (head, tail)}
    facts |= {
        (end, "written_in", ("script", script))
        for end in keys
        if end[0] == "language" and (script := sources.script_of(end[1])) and sources.names("scripts", script)
    }
    entities = _entities(sources, {end for head, _, tail in facts for end in (head, tail)}, cities)
    ids = {(entity.kind, entity.key): index for index, entity in enumerate(entities)}
    order = {name: index for index, name in enumerate(RELATIONS)}
    triples = sorted((order[relation], ids[head], ids[tail], relation) for head, relation, tail in facts)
    return Atlas(entities, [(head, name, tail) for _, head, tail, name in triples], cities, outside)


def split(facts: list[tuple[int, str, int]], share: float = 0.1, seed: int = 0) -> dict[str, list]:
    """Train, valid and test facts.

    All facts between the same two entities (both directions of a border, a capital that is its own country)
    move together. Relation by relation, in seeded order, ``share`` of the facts goes to test and ``share`` to
    valid, unless an entity would be left with no fact in train: then the facts stay there.
    """
    units: dict[tuple[int, int], list] = defaultdict(list)
    for fact in facts:
        units[min(fact[0], fact[2]), max(fact[0], fact[2])].append(fact)
    by_relation: dict[str, list[list]] = defaultdict(list)
    for pair in sorted(units):
        by_relation[units[pair][0][1]].append(units[pair])
    degree = Counter(end for head, _, tail in facts for end in (head, tail))
    in_train = Counter(relation for _, relation, _ in facts)
    generator = np.random.default_rng(seed)
    parts: dict[str, list] = {"train": [], "valid": [], "test": []}
    for relation in RELATIONS:
        group = by_relation[relation]
        quota = {part: round(share * sum(map(len, group))) for part in ("test", "valid")}
        for index in generator.permutation(len(group)):
            unit = group[index]
            loss = Counter(end for head, _, tail in unit for end in (head, tail))
            names = Counter(name for _, name, _ in unit)
            part = next((part for part in quota if quota[part] >= len(unit)), "train")
            if any(degree[end] <= count for end, count in loss.items()) or any(
                in_train[name] <= count for name, count in names.items()
            ):
                part = "train"
            parts[part].extend(unit)
            if part != "train":
                quota[part] -= len(unit)
                degree.subtract(loss)
                in_train.subtract(names)
    return {part: sorted(rows) for part, rows in parts.items()}


def fold(name: str) -> str:
    """A name without case, accents and punctuation, for comparing."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def _capitals(sources: Sources) -> dict[str, Town]:
    """The largest place of the country that bears its capital's name, or has it among its alternate names."""
    by_country: dict[str, list[Town]] = defaultdict(list)
    for town in sources.towns(500):
        by_country[town.country].append(town)
    found = {}
    for code, row in sources.countries.items():
        wanted = fold(row["capital"])
        places = sorted(by_country[code], key=lambda town: (-town.population, int(town.key)))
        named = [town for town in places if wanted and fold(town.name) == wanted]
        known = [town for town in places if wanted and wanted in map(fold, town.alternates)]
        if named or known:
            found[code] = (named or known)[0]
    return found


def _place_facts(sources: Sources, cities: dict[str, Town], outside: list[Town]) -> set:
    facts = set()
    regions, zones = set(), set()
    for town in cities.values():
        city = ("city", town.key)
        facts.add((city, "has_time_zone", ("time zone", town.zone)))
        zones.add(town.zone)
        if town.region:
            facts.add((city, "in_region", ("region", town.region)))
            regions.add(town.region)
        else:
            facts.add((city, "in_country", ("country", town.country)))
    votes: dict[str, Counter] = defaultdict(Counter)
    for town in outside:
        votes[town.region][town.zone] += 1
        zones.add(town.zone)
    for region in regions:
        facts.add((("region", region), "region_of", ("country", region.partition(".")[0])))
        if votes[region]:
            zone = min(votes[region], key=lambda zone: (-votes[region][zone], zone))
            facts.add((("region", region), "region_time_zone", ("time zone", zone)))
    for zone in zones:
        if zone in sources.zone_country:
            facts.add((("time zone", zone), "zone_of", ("country", sources.zone_country[zone])))
        if zone in sources.zone_clock:
            facts.add((("time zone", zone), "keeps_clock", ("clock", sources.zone_clock[zone])))
    return facts


def _country_facts(sources: Sources) -> set:
    facts = set()
    for code, row in sources.countries.items():
        country = ("country", code)
        facts.add((country, "in_continent", ("continent", row["continentcode"])))
        for other in filter(None, row["neighbours"].replace(" ", "").split(",")):
            if other in sources.countries and other != code:
                facts.add((country, "borders", ("country", other)))
                facts.add((("country", other), "borders", country))
    official = {"official": "official_language", "de_facto_official": "official_language"}
    loose = set()
    for code, languages in sources.territory_languages().items():
        for language, row in languages.items():
            if not sources.names("languages", language):
                continue
            status = row["official_status"]
            fact = ("country", code), "spoken_language", ("language", language)
            if status:
                facts.add((fact[0], official.get(status, "regional_language"), fact[2]))
            elif row["population_percent"] >= MIN_SPEAKERS_PERCENT:
                loose.add(fact)
    for code, rows in sources.territory_currencies().items():
        country = ("country", code)
        now = {money for money, _, end, tender in rows if tender and end is None}
        facts |= {(country, "currency", ("currency", money)) for money in now}
        past = {money for money, _, end, tender in rows if tender and end is not None} - now
        loose |= {(country, "former_currency", ("currency", money)) for money in past}
    # A language or currency that a single minor fact names could only stand in train: it would teach nothing.
    uses = Counter(tail for _, _, tail in facts | loose)
    return facts | {fact for fact in loose if uses[fact[2]] > 1}


def _entities(sources: Sources, keys: set[tuple[str, str]], cities: dict[str, Town]) -> list[Entity]:
    entities = [_entity(sources, kind, key, cities) for kind, key in keys]
    population = {town.key: town.population for town in cities.values()}
    entities.sort(key=lambda e: (KINDS.index(e.kind), -population.get(e.key, 0), e.label, e.key))
    taken: set[str] = set()
    for entity in entities:
        country = sources.countries[entity.country]["name"].strip() if entity.country else ""
        region = sources.region_names.get(entity.region, "")
        options = [entity.label]
        if entity.kind == "city":
            options += [f"{entity.label} ({country})", f"{entity.label} ({region}, {country})"]
        elif entity.kind == "region":
            options += [f"{entity.label} region ({country})", f"{entity.label} region ({entity.key})"]
        options += [f"{entity.label} ({entity.kind})", f"{entity.label} ({entity.kind} {entity.key})"]
        entity.name = next(name for name in options if name not in taken)
        taken.add(entity.name)
    return entities


def _entity(sources: Sources, kind: str, key: str, cities: dict[str, Town]) -> Entity:
    if kind == "country":
        label = sources.countries[key]["name"].strip()
        return Entity(kind, key, label, [label, *sources.names("territories", key)])
    if kind == "continent":
        label = sources.continents[key]["name"]
        rows = sources.continents[key]["alternateNames"]
        return Entity(kind, key, label, [label, *sorted({row["name"] for row in rows if "lang" in row})])
    if kind == "city":
        town = cities[key]
        texts = [town.name, *_fair_alternates(sources, town)]
        return Entity(kind, key, town.name, texts, town.country, town.region)
    if kind == "region":
        label = sources.region_names[key]
        return Entity(kind, key, label, [label], key.partition(".")[0])
    if kind == "time zone":
        return Entity(kind, key, key, sources.zone_names(key))
    if kind == "clock":
        names = sources.clock_names(key)
        return Entity(kind, key, names[0], names)
    table = {"language": "languages", "script": "scripts", "currency": "currencies"}[kind]
    names = sources.names(table, key)
    # CLDR's short names of these two, "Simplified" and "Traditional", only make sense beside "Chinese".
    names = {"Hans": ["Simplified Han"], "Hant": ["Traditional Han"]}.get(key, names)
    label = f"{names[0]} script" if kind == "script" else names[0]
    return Entity(kind, key, label, names)


def _fair_alternates(sources: Sources, town: Town) -> list[str]:
    """Alternate names that do not spell out the country or the region, unless the city's own name does."""
    own = fold(town.name)
    row = sources.countries[town.country]
    answers = {fold(name) for name in (row["name"], sources.region_names.get(town.region, ""))}
    answers |= {fold(name) for name in sources.names("territories", town.country)}
    answers = {answer for answer in answers if len(answer) > 3 and answer not in own}
    # Three capitals in a row are airport and locode codes, not names.
    return [
        name
        for name in town.alternates
        if name != town.name
        and not (len(name) <= 3 and name.isascii() and name.isupper())
        and not any(answer in fold(name) for answer in answers)
    ]
