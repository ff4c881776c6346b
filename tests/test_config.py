"""Fields, checks, config files and the text of --help."""

from pathlib import Path

import pytest

from mocme_jax.config import (
    bundled_configs,
    check_known,
    config_from_dict,
    default_config,
    find_config,
    get_field,
    load_config,
    set_field,
    validate,
)
from mocme_jax.config_fields import FIELDS, RULES, SECTIONS, Field
from mocme_jax.config_removed import REMOVED
from mocme_jax.config_values import parse_value, show
from mocme_jax.errors import UserError
from mocme_jax.flags import describe, parse, parse_command, parse_options

BUNDLED = ("atlas", "db15k", "kvc16k", "mkg_w", "mkg_y", "tiva")


def message_of(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def flags(*argv: str):
    return parse(argv, "A command.")


def test_defaults_are_valid_and_equal_the_fields():
    config = default_config()
    validate(config)
    for path, field in FIELDS.items():
        assert get_field(config, path) == field.default, path


def test_every_field_has_a_meaning_and_a_section():
    for path, field in FIELDS.items():
        assert len(field.meaning) > 5, path
        assert not field.meaning.startswith(" "), path
        assert not field.meaning.endswith("."), path
        assert path.rpartition(".")[0] in SECTIONS, path
    assert all(path in FIELDS for rule in RULES for path in rule.fields)


def test_bundled_configs_are_valid_and_documented():
    assert tuple(bundled_configs()) == BUNDLED
    for name in BUNDLED:
        config, found = load_config(name)
        validate(config)
        assert found == name
        text = find_config(name).read_text(encoding="utf-8").split('"""')[1]
        for word in ("Command", "Modalities", "Machine", "Minutes", "Scores", "python -m mocme_jax.train"):
            assert word in text, f"{name}: {word}"


def test_choices_are_the_words_the_program_knows():
    from mocme_jax.method.complementarity import FUSIONS
    from mocme_jax.method.egns import CONFIDENT, REFERENCES
    from mocme_jax.method.regularisers import REGULARISERS
    from mocme_jax.method.scoring import SCORES
    from mocme_jax.method.vector_fusion import VECTOR_FUSIONS

    words = {
        "model.score": SCORES,
        "model.fusion": [*FUSIONS, *VECTOR_FUSIONS],
        "negatives.reference": REFERENCES,
        "negatives.confident": CONFIDENT,
        "loss.regulariser": REGULARISERS,
    }
    for path, known in words.items():
        assert set(FIELDS[path].choices) == set(known), path


def outside(field: Field) -> list:
    """Values that a field may not hold, of its own type."""
    bounds = [] if field.low is None else [field.low - 1]
    bounds += [] if field.high is None else [field.high + 1]
    bounds += [bound for bound in (field.above, field.below) if bound is not None]
    kind = field.element if field.kind is tuple else field.kind
    bounds += [float("nan"), float("inf")] if kind is float else []
    bounds += ["no such word"] if field.choices and kind is str else []
    return [kind(bound) for bound in bounds]


def test_values_outside_the_bounds_are_refused():
    config, tried = default_config(), 0
    for path, field in FIELDS.items():
        for value in outside(field):
            given = (value,) * (field.length or 1) if field.kind is tuple else value
            message = message_of(set_field, config, path, given)
            for word in (path, show(value), "expected"):
                assert word in message, f"{path}={value}: {message}"
            tried += 1
    assert tried > len(FIELDS)
    assert config.to_dict() == default_config().to_dict()


def test_values_of_another_type_are_refused():
    wrong = {str: 3, int: 1.5, float: "x", bool: 1, tuple: 3}
    for path, field in FIELDS.items():
        assert path in message_of(set_field, default_config(), path, wrong[field.kind])
        if field.kind is int:
            assert path in message_of(set_field, default_config(), path, True)


def test_shown_values_read_back_as_themselves():
    for path, field in FIELDS.items():
        assert parse_value(path, field, show(field.default)) == field.default, path
    rate = FIELDS["train.learning_rate"]
    for value in (0.0123456789, 1 / 3, 1e-7, 2.5e22):
        assert parse_value("train.learning_rate", rate, show(value)) == value
    assert show(0.02) == "0.02"


def test_what_is_gone_is_said_in_flags_files_and_old_configs(tmp_path, monkeypatch):
    # Entries count once FIELDS has no such field, so that none is forgotten when it goes.
    monkeypatch.setattr("mocme_jax.config.FIELDS", {path: FIELDS[path] for path in FIELDS if path not in REMOVED})
    groups = set(SECTIONS)
    fields = [path for path in REMOVED if "." in path and "=" not in path]
    assert {"data.noise", "eval.chunk", "model.structure_dropout", "fusion.panel", "fusion.intra"} <= set(fields)
    for path in fields:
        section, name = path.split(".")
        reason = f"config field {path} {REMOVED[path]}"
        with pytest.raises(UserError) as caught:
            check_known(path)
        assert str(caught.value) == reason
        assert message_of(config_from_dict, {section: {name: 1}}) == reason
        for line in (f"c.{path} = 1", f"c.{section}.update({name}=1)", f"c.model.width = 8 if c.{path} else 4"):
            file = write_config(tmp_path, f"def get_config():\n  c = default_config()\n  {line}\n  return c\n")
            # In a file, a group that is gone is found before its fields.
            told = reason if section in groups else f"config field {section} {REMOVED[section]}"
            assert message_of(load_config, file) == f"{file}, line 4: {told}"


def test_fields_words_and_studies_that_are_gone_answer(monkeypatch):
    gone = [path for path in REMOVED if "=" not in path and path not in FIELDS]
    assert "fusion" in gone
    assert len(gone) >= 20
    for path in gone:
        assert message_of(flags, f"--config.{path}=1") == f"config field {path} {REMOVED[path]}"
    monkeypatch.setitem(REMOVED, "model.fusion=best", "was removed: it was never better")
    message = message_of(flags, "--config.model.fusion=best")
    assert "model.fusion: best was removed: it was never better; expected one of complementarity, mean, gate" in message
    message = message_of(flags, "--config.model.experts=0")
    assert "model.experts: 0 is not the structural baseline; use --config.data.modalities=structure" in message
    assert message.endswith("expected at least 1 and at most 256")
    assert REMOVED["--study=estimators"] in message_of(find_config, "estimators", "studies", "--study")
    assert REMOVED["--study=parts"] in message_of(find_config, "parts", "studies", "--study")


def test_validate_sees_what_plain_assignment_lets_through():
    config = default_config()
    config.train.epochs = 0
    assert message_of(validate, config).startswith("config field train.epochs: 0 is not allowed, expected at least 1")


def test_rules_hold_fields_together():
    config = default_config()
    config.negatives.entropy_low, config.negatives.entropy_high = 0.8, 0.2
    message = message_of(validate, config)
    assert "negatives.entropy_low=0.8" in message
    assert "negatives.entropy_high=0.2" in message


def test_dict_round_trip_and_absent_fields():
    config = default_config()
    config.data.dir, config.negatives.class_weights = "somewhere", (0.0, 1.0, 3.0)
    values = config.to_dict()
    values["negatives"]["class_weights"] = [0, 1, 3]  # what JSON makes of the tuple
    assert config_from_dict(values).to_dict() == config.to_dict()
    del values["train"]
    assert config_from_dict(values).train.epochs == FIELDS["train.epochs"].default
    values["model"]["widht"] = 3
    assert "did you mean model.width?" in message_of(config_from_dict, values)


def test_overrides_reach_the_config():
    config, workdir = flags(
        "--config.data.dir=folder", "--config.seed", "7", "--config=db15k", "--config.data.modalities=text",
        "--config.negatives.class_weights=(0,1,2)", "--config.train.learning_rate=1e-4",
        "--config.parallel.shard_entities", "--config.model.lend=0", "--config.negatives.batch_candidates=false",
    )  # fmt: skip
    assert config.data.name == "DB15K"
    assert workdir == Path("runs/db15k")
    assert (config.data.dir, config.seed, config.data.modalities) == ("folder", 7, ("text",))
    assert config.negatives.class_weights == (0.0, 1.0, 2.0)
    assert config.train.learning_rate == 1e-4
    assert config.parallel.shard_entities is True
    assert config.negatives.batch_candidates is False


def test_defaults_without_flags():
    config, workdir = flags()
    assert config.data.name == "atlas"
    assert workdir == Path("runs/atlas")
    assert flags("--workdir=a/b")[1] == Path("a/b")
    assert flags("--config.data.modalities=")[0].data.modalities == ()
    assert flags("--config.data.dir=x", "--config.data.dir=none")[0].data.dir is None


BAD_ARGUMENTS = (
    ("--config.data.dri=x", "unknown config field data.dri; did you mean data.dir?"),
    ("--config.width=8", "unknown config field width; did you mean model.width?"),
    ("--data.dir=x", "unknown flag --data.dir; did you mean --config.data.dir?"),
    ("--wokdir=x", "unknown flag --wokdir; did you mean --workdir?"),
    ("--config.model=x", "config.model is a group"),
    ("--config.train.epochs=many", "config field train.epochs: expected a whole number, got 'many'"),
    ("--config.train.epochs=1.5", "config field train.epochs: expected a whole number, got '1.5'"),
    ("--config.parallel.shard_entities=maybe", "expected true or false, got 'maybe'"),
    ("--config.model.score=complx", "did you mean complex?"),
    ("--config.negatives.class_weights=1,2", "expected 3 values, got 2"),
    ("--config=db15", "did you mean --config=db15k?"),
    ("--config=nowhere.py", "bundled: atlas, db15k, kvc16k, mkg_w, mkg_y, tiva"),
    ("--config", "--config needs a value"),
    ("--workdir=", "--workdir: expected a folder"),
    ("stray", "unexpected argument 'stray'"),
    ("-v", "unexpected argument '-v'"),
)


def test_bad_arguments_get_one_line():
    for argument, words in BAD_ARGUMENTS:
        assert words in message_of(flags, argument), argument


def write_config(folder, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"from mocme_jax.config import default_config\n{body}", encoding="utf-8")
    return str(path)


def test_a_config_file_may_take_an_argument(tmp_path):
    path = write_config(
        tmp_path,
        "def get_config(arg=None):\n  c = default_config()\n  c.model.width = int(arg or 8)\n  return c\n",
    )
    assert flags(f"--config={path}:64")[0].model.width == 64
    assert flags(f"--config={path}")[0].model.width == 8
    assert flags(f"--config={path}")[1] == Path("runs/mine")
    assert not (tmp_path / "__pycache__").exists()


BROKEN_FILES = (
    ("def get_config(arg=None):\n  c = default_config()\n  c.data.dri = 'x'\n  return c\n",
     ("line 4", "unknown config field dri", "did you mean data.dir?")),
    ("def get_config(arg=None):\n  return default_config().data.dri\n", ("line 3", "did you mean data.dir?")),
    ("def get_config(arg=None):\n  c = default_config()\n  c.train.epochs = 'x'\n  return c\n",
     ("line 4", "config field epochs: expected int, got x")),
    ("def get_config(arg=None)\n  pass\n", ("line 2", "SyntaxError")),
    ("import no_such_module\n", ("line 2", "no_such_module")),
    ("def get_config(arg=None):\n  return {}['mine']\n", ("line 3: KeyError: 'mine'",)),
    ("import sys\ndef get_config(arg=None):\n  sys.exit(3)\n", ("line 4: SystemExit: 3",)),
    ("raise SystemExit\n", ("line 2: SystemExit",)),
    ("x = 1\n", ("expected a function get_config(arg=None), found none",)),
    ("def get_config(one, two):\n  pass\n", ("expected a function get_config(arg=None), found get_config(one, two)",)),
    ("def get_config(arg=None):\n  return {}\n", ("default_config()",)),
)  # fmt: skip


def test_a_broken_config_file_is_named_with_its_line(tmp_path):
    for body, words in BROKEN_FILES:
        path = write_config(tmp_path, body)
        message = message_of(flags, f"--config={path}")
        assert path in message, body
        for word in words:
            assert word in message, body


def test_help_lists_every_field_with_the_value_of_the_config():
    config = default_config()
    config.model.width = 7654
    text = describe(config)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for path, field in FIELDS.items():
        (line,) = [line for line in lines if line.startswith(f"  {path} ")]
        assert show(get_field(config, path)) in line
        assert field.meaning.split()[0] in text
    assert "7654" in text
    for title in SECTIONS.values():
        assert f"{title}:" in lines


def test_options_beside_and_without_a_config():
    options = {
        "seeds": Field((0,), "seeds to run", low=0),
        "dir": Field(None, "folder of the graph", kind=str),
    }
    command = parse_command(["--seeds=1,2", "--config=tiva", "--config.seed=3"], "A command.", options)
    assert command.options == {"seeds": (1, 2), "dir": None}
    assert command.config.seed == 3
    assert parse_options(["--dir", "here"], "A command.", options) == {"seeds": (0,), "dir": "here"}
    assert "--seeds: -1 is not allowed" in message_of(parse_options, ["--seeds=-1"], "A command.", options)
    assert "--dir=VALUE is missing" in message_of(parse_options, [], "A command.", options, ["dir"])
    assert "unknown flag --config.seed" in message_of(parse_options, ["--config.seed=1"], "A command.", options)
