"""The order of the rooms, the package's metadata, the scripts."""

import ast
import functools
import operator
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mocme_jax
from mocme_jax.config_fields import FIELDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mocme_jax"
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / ".ci/run"])

# A room may import from itself and from rooms to its left. What is not named here is a command or serves one.
ROOMS = ("errors", "printed_commands", "countdown", "data", "method", "additions", "parallel", "evaluation")
ROOMS += ("training", "serving", "measure", "studies", "report", "explorer", "commands")
# Where fields of a configuration are read; all others hold it as an opaque value.
READS_CONFIG = ("config", "config_fields", "config_removed", "config_values", "flags")
READS_CONFIG += ("training.setup.builders", "training.setup.datasets", "training.setup.settings")
SECTIONS = {path.partition(".")[0] for path in FIELDS}
# What gives a configuration, by the name it is called by.
GIVES_CONFIG = {"parse", "default_config", "config_from_dict", "load_config", "with_fields", "here", "changed"}
GIVES_CONFIG |= {"structure_alone", "to_dict", "copy_and_resolve_references"}
WITHOUT_JAX = ("", "errors", "config", "config_fields", "config_removed", "config_values", "flags", "command_line")
WITHOUT_JAX += ("printed_commands", "countdown")
# Of the data alone it needs JAX, and is imported once its encoder is asked for.
RUNS_A_NETWORK = "data.media.efficientnet"
JAX_FAMILY = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}


def modules() -> dict[str, Path]:
    """Every module by its dotted name inside the package; the package itself is ''."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def imports(name: str, top_level_only: bool = False) -> frozenset[str]:
    """Absolute names of the modules that a module imports, also inside of functions."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = {full for full in names if full.removeprefix("mocme_jax.") in MODULES}
            found |= inside or {node.module}
    return frozenset(found)


def own_imports(name: str) -> set[str]:
    return {full.removeprefix("mocme_jax").lstrip(".") for full in imports(name) if full.startswith("mocme_jax")}


def is_command(name: str) -> bool:
    """A module at the top, or what ``python -m`` runs of a room of the same name."""
    return "." not in name or name.endswith(".__main__")


def room(name: str) -> int:
    first = name.partition(".")[0]
    return ROOMS.index(first) if first in ROOMS and not name.endswith(".__main__") else len(ROOMS) - 1


def test_the_walk_finds_the_house():
    assert {"", "errors", "config", "data.graph", "train"} <= MODULES.keys()
    assert "errors" in own_imports("data.graph.knowledge_graph")
    assert "training.run" in own_imports("train")


def test_imports_run_one_way():
    for name in MODULES:
        for imported in own_imports(name):
            if imported in ("", "flags") or imported.startswith("config"):
                continue
            assert imported in MODULES, f"{name} imports mocme_jax.{imported}, which does not exist"
            assert room(imported) <= room(name), f"{name} imports {imported}"


def test_no_import_goes_round_in_a_circle():
    done, open_now = set(), []

    def visit(name: str) -> None:
        assert name not in open_now, " -> ".join([*open_now, name])
        if name in done:
            return
        open_now.append(name)
        for imported in sorted(own_imports(name) & MODULES.keys()):
            visit(imported)
        done.add(open_now.pop())

    for name in MODULES:
        visit(name)


def config_reads(tree: ast.AST) -> list[str]:
    """Lines that read a field or a section of a configuration: ``config.model``, ``saved["config"]["train"]``.

    A configuration is what is called so, is annotated so, or comes from a function that gives one; under whatever name.
    """
    names = {"config"}

    def is_config(node: ast.AST) -> bool:
        match node:
            case ast.Name(name):
                return name in names
            case ast.Attribute(ast.Name("jax"), "config"):
                return False
            case ast.Attribute(_, "config") | ast.Subscript(_, ast.Constant("config")):
                return True
            case ast.Call(ast.Attribute(_, "get"), [ast.Constant("config"), *_]):
                return True
            case ast.Call(ast.Name(function)) | ast.Call(ast.Attribute(_, function)):
                return function in GIVES_CONFIG
        return False

    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None and "Config" in ast.unparse(node.annotation):
            names.add(node.arg)
    before = -1
    while before < len(names):
        before = len(names)
        for node in ast.walk(tree):
            match node:
                case ast.Assign([ast.Name(name)], value) if is_config(value):
                    names.add(name)
                case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)):
                    pairs = zip(targets, values, strict=False)
                    names |= {x.id for x, value in pairs if isinstance(x, ast.Name) and is_config(value)}
                case ast.Assign([ast.Tuple([ast.Name(name), *_])], ast.Call() as value) if is_config(value):
                    names.add(name)
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value, name, ast.Load()) if is_config(value) and name in SECTIONS:
                found.append(node)
            case ast.Attribute(value, name, ast.Store()) if is_config(value) and name in SECTIONS:
                found.append(node)
            case ast.Subscript(value, ast.Constant(name)) if is_config(value) and name in SECTIONS:
                found.append(node)
            case ast.Call(ast.Attribute(value, "get"), [ast.Constant(name), *_]) if is_config(value):
                found += [node] if name in SECTIONS else []
            case ast.Call(ast.Name("get_field" | "getattr"), [value, *_]) if is_config(value):
                found.append(node)
    return [f"line {node.lineno}: {ast.unparse(node)}" for node in found]


def test_config_is_read_in_setup_alone():
    """Elsewhere a configuration is passed on; what it says is a plain value or an object that setup built."""
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    reading = {name: config_reads(tree) for name, tree in trees.items()}
    assert {"training.setup.builders", "training.setup.datasets", "training.setup.settings"} <= {
        name for name, lines in reading.items() if lines
    }
    assert not {name: lines for name, lines in reading.items() if lines and name not in READS_CONFIG}
    templates = [path for path in PACKAGE.glob("*/templates/*") if path.is_file()]
    assert templates
    for path in templates:
        assert not re.search(rf"(?<!--)config(\.|\[.)({'|'.join(SECTIONS)})\b", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "line",
    [
        "x = config.model.width",
        "x = config['train']",
        "config.data.dir = 'here'",
        "x = self.config.train.epochs",
        "x = restored.saved['config']['model']['expert_hidden']",
        "own = config.to_dict()\nx = own['seed']",
        "one, two = 1, restored.config\nx = two.parallel",
        "x = with_fields(settings, {}).loss.margin",
        "def f(settings: ConfigDict):\n    return settings.loss.kind",
        "config, workdir = parse(argv, '')\nx = config.seed",
        "x = results.get('config').get('train')",
        "x = get_field(config, 'model.width')",
    ],
)
def test_a_read_of_the_config_is_seen(line):
    assert len(config_reads(ast.parse(line))) == 1


def test_what_only_holds_a_config_or_is_called_like_a_section_is_not_a_read():
    passed_on = "model = setup.build_model(config, graph)\nx = self.model.score\nloss = latest['loss']\ny = data.known"
    assert not config_reads(ast.parse(f"{passed_on}\njax.config.update('a', 1)\nz = results['config']"))


def test_data_and_configuration_do_without_jax():
    for name in MODULES:
        if name in WITHOUT_JAX or name.startswith("data"):
            assert f"mocme_jax.{RUNS_A_NETWORK}" not in imports(name, top_level_only=True), name
            assert name == RUNS_A_NETWORK or not {full.partition(".")[0] for full in imports(name)} & JAX_FAMILY, name


def test_commands_import_jax_only_once_their_flags_are_read():
    for name in MODULES:
        if name and is_command(name):
            top_level = imports(name, top_level_only=True)
            assert not {full.partition(".")[0] for full in top_level} & JAX_FAMILY, name
            for full in top_level:
                first = ("mocme_jax.method", "mocme_jax.training", "mocme_jax.report")
                assert not full.startswith(first), f"{name} imports {full}"


# Additions to the method, under whatever name: the rest of the program knows their interface alone.
ADDED = re.compile(r"\blend|\blent\b|cardinal|self_answers?\b|\bloops\b", re.IGNORECASE)
NAMES_ADDITIONS = ("training.setup.builders", "serving.exported_tables")


def test_additions_are_named_in_their_own_files_and_where_they_are_made():
    rooms = ("method", "parallel", "evaluation", "training", "serving", "measure", "studies")
    core = [name for name in MODULES if name.startswith(rooms) and name not in NAMES_ADDITIONS]
    found = {name: ADDED.findall(MODULES[name].read_text(encoding="utf-8")) for name in core}
    assert len(core) > 60
    assert not {name: words for name, words in found.items() if words}
    for name in NAMES_ADDITIONS:
        assert ADDED.search(MODULES[name].read_text(encoding="utf-8"))


def test_each_addition_lives_in_one_file():
    files = {name.partition(".")[2] for name in MODULES if name.startswith("additions.")}
    assert files == {"addition", "lending", "cardinality", "self_answers"}
    assert not own_imports("additions.addition") & {f"additions.{name}" for name in files}


def test_no_two_modules_share_a_name():
    """A name is told apart without its folder: in a traceback, in an editor's tabs."""
    bases = [path.stem for path in MODULES.values() if not path.stem.startswith("__")]
    assert not {base for base in bases if bases.count(base) > 1}


def test_pages_name_files_modules_and_fields_that_are_there():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    bad, seen = [], 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        links = [(name, [page.parent]) for name in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
        paths = [(name, [ROOT, PACKAGE]) for name in re.findall(r"`(\w+/[\w/]+\.(?:py|sh))`", text)]
        for name, folders in links + paths:
            seen += 1
            bad += [] if any((folder / name).exists() for folder in folders) else [f"{page.name}: {name}"]
        fields = re.findall(r"--config\.([a-z_.]*\w)=", text)
        bad += [f"{page.name}: {field}" for field in fields if field not in FIELDS]
    assert seen > 100
    assert not bad


def test_no_docstring_names_a_module_that_has_moved():
    bad, dotted = [], re.compile(rf"``?((?:{'|'.join(ROOMS[1:-1])})(?:\.[a-z_]+)+)``?")
    for name, path in MODULES.items():
        for found in dotted.findall(path.read_text(encoding="utf-8")):
            owner = found.rpartition(".")[0]
            bad += [] if found in MODULES or owner in MODULES or found.endswith(".pkl") else [f"{name}: {found}"]
    assert not bad


def test_no_drawer_for_everything():
    files = [path.name for folder in ("mocme_jax", "configs", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert files
    assert not {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"} & set(files)


def metadata() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_all_files_name_the_same_version():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {mocme_jax.__version__}\n" in cited
    newest, date = re.findall(r"^## \[([\d.]+)\] - (\S+)$", changes, re.MULTILINE)[0]
    assert newest == mocme_jax.__version__
    assert f'\ndate-released: "{date}"\n' in cited


def test_requirements_and_pyproject_agree():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    assert sorted(required) == sorted(metadata()["project"]["dependencies"])
    assert all(">=" in line for line in required)


def test_extras_agree_with_each_other():
    bounds: dict[str, set[str]] = {}
    for requirement in functools.reduce(operator.iadd, metadata()["project"]["optional-dependencies"].values(), []):
        name = re.split(r"[>=<]", requirement)[0]
        bounds.setdefault(name, set()).add(requirement)
    assert all(len(requirements) == 1 for requirements in bounds.values()), bounds


def test_constraints_pin_what_is_asked_for_within_its_bounds():
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = metadata()["project"]
    extras = [asked for name, asked in project["optional-dependencies"].items() if name not in ("gpu", "tpu")]
    for one in map(requirements.Requirement, functools.reduce(operator.iadd, extras, project["dependencies"])):
        assert one.specifier.contains(pins[one.name.lower()]), one


def test_every_folder_of_the_package_is_in_the_wheel():
    packages = set(metadata()["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in MODULES.values()}
    configs = {"mocme_jax.configs", "mocme_jax.configs.search", "mocme_jax.configs.studies"}
    assert folders | configs <= packages
    for package in packages - configs:
        assert (ROOT / package.replace(".", "/")).is_dir(), package


def test_every_data_file_of_atlas_is_in_the_wheel():
    folder = PACKAGE / "data" / "atlas"
    patterns = metadata()["tool"]["setuptools"]["package-data"]["mocme_jax.data.atlas"]
    kept = {path for pattern in patterns for path in folder.glob(pattern)}
    files = {p for p in folder.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
    assert files == {path for path in kept if path.is_file()}


def test_every_template_is_in_the_wheel():
    for room in ("report", "explorer"):
        folder = PACKAGE / room
        patterns = metadata()["tool"]["setuptools"]["package-data"][f"mocme_jax.{room}"]
        kept = {path for pattern in patterns for path in folder.glob(pattern)}
        assert {path for path in (folder / "templates").rglob("*") if path.is_file()} == kept


def test_the_scripts_are_there_and_executable():
    names = {path.name for path in SCRIPTS}
    assert {"quickstart.sh", "test.sh", "run"} <= names
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_scripts_parse():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    for script in SCRIPTS:
        result = subprocess.run([bash, "-n", script], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def test_scripts_pass_shellcheck():
    beside = Path(sys.executable).parent / "shellcheck"
    shellcheck = str(beside) if beside.is_file() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs shellcheck")
    result = subprocess.run([shellcheck, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
def test_scripts_have_help_and_install_nothing_for_it(script, tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    copy = tmp_path / "launch"
    shutil.copytree(ROOT / "launch", copy)
    result = subprocess.run([bash, copy / script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: bash launch/{script}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["launch"]
