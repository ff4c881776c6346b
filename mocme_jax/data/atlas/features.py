"""Feature rows of the atlas: names as vectors, numbers with masks, flags."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from mocme_jax.data.atlas.facts import Atlas, fold
from mocme_jax.data.atlas.sources import Sources, open_flag
from mocme_jax.data.features.text_features import encode_texts
from mocme_jax.data.media.image_layout import image_vector

TEXT_WIDTH = 128
MAX_ALTERNATES = 16
ATTRIBUTES = ("latitude", "longitude", "log10 population", "log10 area in km2", "hours from UTC")
POSITION_SCALES_KM = (2000.0, 600.0)
POSITION_WAVES = 16
CLIP = 4.0
EARTH_RADIUS_KM = 6371.0


def text_rows(atlas: Atlas) -> tuple[np.ndarray, np.ndarray]:
    """Ids and vectors of every entity's names.

    An entity's vector is the mean of its own name's encoding and the mean encoding of up to 16 of its other
    names, evenly chosen in their order; then the 128 first principal components over all entities.
    """
    texts, owner, weight = [], [], []
    for index, entity in enumerate(atlas.entities):
        own, others = entity.texts[0], _distinct(entity.texts)
        if len(others) > MAX_ALTERNATES:
            picks = np.linspace(0, len(others) - 1, MAX_ALTERNATES).round().astype(int)
            others = [others[pick] for pick in picks]
        texts += [own, *others]
        owner += [index] * (1 + len(others))
        weight += [0.5, *[0.5 / len(others)] * len(others)] if others else [1.0]
    encoded = encode_texts(texts).astype(np.float64) * np.array(weight)[:, None]
    rows = np.zeros((len(atlas.entities), encoded.shape[1]))
    np.add.at(rows, owner, encoded)
    return np.arange(len(rows), dtype=np.int32), principal_components(rows, TEXT_WIDTH).astype(np.float16)


def principal_components(rows: np.ndarray, width: int) -> np.ndarray:
    """Scores ``[n, width]`` of centred rows ``[n, d]``, scaled so that the first has variance 1.

    Each component's sign is chosen so that its largest loading is positive, which makes the result repeatable.
    """
    centred = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :width]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    scores = centred @ axes
    return scores / scores[:, 0].std()


def numeric_rows(atlas: Atlas, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    """Ids and rows of the entities that have any number.

    Columns: the five `ATTRIBUTES`, standardised over the entities that have them, clipped to +-4, 0 where
    missing; four masks (coordinates, population, area, hours from UTC); 64 values of position on the globe
    (`position_waves`), 0 without coordinates.
    """
    total = len(atlas.entities)
    raw = np.full((total, len(ATTRIBUTES)), np.nan)
    centres = _centres(atlas)
    for index, entity in enumerate(atlas.entities):
        population, area = 0, 0
        if entity.kind == "city":
            town = atlas.cities[entity.key]
            raw[index, :2] = town.latitude, town.longitude
            population = town.population
        elif entity.kind == "continent":
            row = sources.continents[entity.key]
            raw[index, :2] = float(row["lat"]), float(row["lng"])
            population = row["population"]
        elif (entity.kind, entity.key) in centres:
            raw[index, :2] = centres[entity.kind, entity.key]
        if entity.kind == "country":
            population, area = (sources.countries[entity.key][name] for name in ("population", "areakm2"))
        if entity.kind == "time zone" and (hours := sources.zone_offset(entity.key)) is not None:
            raw[index, 4] = hours
        raw[index, 2] = np.log10(population) if population else np.nan
        raw[index, 3] = np.log10(area) if area else np.nan
    given = ~np.isnan(raw)
    scaled = (raw - np.nanmean(raw, axis=0)) / np.nanstd(raw, axis=0)
    scaled = np.where(given, np.clip(scaled, -CLIP, CLIP), 0.0)
    waves = np.where(given[:, :1], position_waves(np.where(given[:, :2], raw[:, :2], 0.0)), 0.0)
    rows = np.concatenate([scaled, given[:, [0, 2, 3, 4]], waves], axis=1)
    ids = np.flatnonzero(given.any(axis=1))
    return ids.astype(np.int32), rows[ids].astype(np.float16)


def position_waves(degrees: np.ndarray) -> np.ndarray:
    """Random Fourier features of places (Rahimi and Recht 2007): near places have near rows.

    For each scale s of `POSITION_SCALES_KM`, cosines then sines of 16 random plane waves of the point on the
    globe in kilometres, wave vectors from a normal distribution of deviation 1 / s and seed 0: a scale's part
    of the dot product of two rows, divided by 16, estimates exp(-distance^2 / (2 s^2)).

    Args:
      degrees: latitude and longitude ``[n, 2]``.

    Returns:
      ``[n, 64]``, within +-1.
    """
    latitude, longitude = np.radians(degrees).T
    point = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
    generator = np.random.default_rng(0)
    parts = []
    for scale in POSITION_SCALES_KM:
        phase = EARTH_RADIUS_KM * point @ (generator.standard_normal((3, POSITION_WAVES)) / scale)
        parts += [np.cos(phase), np.sin(phase)]
    return np.concatenate(parts, axis=1)


def image_rows(atlas: Atlas, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    """Ids and vectors (`mocme_jax.data.media.image_layout.image_vector`) of the countries that have a flag."""
    flags = sources.flags()
    rows = {
        index: image_vector(open_flag(flags[entity.key]))
        for index, entity in enumerate(atlas.entities)
        if entity.kind == "country" and entity.key in flags
    }
    return np.array(list(rows), np.int32), np.stack(list(rows.values())).astype(np.float16)


def _distinct(texts: list[str]) -> list[str]:
    """The names after the first that differ from it and from each other in more than case and accents."""
    seen, kept = {fold(texts[0])}, []
    for text in texts[1:]:
        if fold(text) and fold(text) not in seen:
            seen.add(fold(text))
            kept.append(text)
    return kept


def _centres(atlas: Atlas) -> dict[tuple[str, str], tuple[float, float]]:
    """Middle (mean point on the globe) of the towns of a region, a time zone or a country.

    Only towns outside the graph count, so that no centre is made from a fact that may be held out.
    """
    places = defaultdict(list)
    for town in atlas.outside:
        latitude, longitude = np.radians([town.latitude, town.longitude])
        point = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
        for key in (("region", town.region), ("time zone", town.zone), ("country", town.country)):
            places[key].append(point)
    centres = {}
    for key, points in places.items():
        x, y, z = np.mean(points, axis=0)
        centres[key] = (np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x)))
    return centres
