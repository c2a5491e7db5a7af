"""The rules of the house: which room may import which, and the picture of it in the documents."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import TEMPLATE, UNBAKED, tracked

SOURCE = UNBAKED / "src"
PACKAGES = ["classifier", "curation", "delivery", "reporting", "tuning", "workspace"]
NEVER = {  # room: rooms that it must not import
    "classifier": {"curation", "delivery", "tuning"},
    "curation": {"delivery", "tuning"},
    "tuning": {"curation", "delivery"},
    "delivery": {"classifier", "curation", "tuning"},
    "reporting": {"classifier", "curation", "delivery", "tuning"},
    "workspace": {"classifier", "curation", "delivery", "reporting", "tuning"},
}
# Paths that delivery may name: the contract between the pipeline and the way to production.
CONTRACT = {
    *("artifacts/model", "artifacts/export.json", "artifacts/report.html"),
    *("data/prepared/report.json", "data/prepared/test/pictures.csv"),
    *("artifacts/behaviour.json", "artifacts/predictions.csv"),
    *("data/prepared/test", "data/prepared/classes.json"),
    *("metrics.json", "lineage.json", "MODEL_CARD.md", "plots"),
    "artifacts/served",  # what delivery leaves for reports
}


def modules() -> dict[str, Path]:
    """Every module of the house by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (SOURCE / package).resolve().rglob("*.py"):
            parts = (package, *path.relative_to((SOURCE / package).resolve()).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Modules of the house that a module imports, wherever in its text."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            named = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{each.name}" for each in node.names]
        else:
            continue
        for each in named:
            while each and each not in MODULES:
                each = each.rpartition(".")[0]
            if each and each != name:
                yield each


def room(module: str) -> str:
    """The folder that a module is in: `delivery.oci` of `delivery.oci.image`."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


GRAPH = {name: sorted(set(imports(name))) for name in MODULES}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    assert package in MODULES
    for name, imported in GRAPH.items():
        if name.split(".")[0] == package:
            packages = {each.split(".")[0] for each in imported}
            assert not packages & NEVER[package], f"{name} imports {packages & NEVER[package]}"


def test_nothing_imports_a_command() -> None:
    for name, imported in GRAPH.items():
        commands = [each for each in imported if each.startswith("delivery.commands")]
        assert not commands or name == "delivery.__main__", f"{name} imports {commands}"
        assert commands in ([], ["delivery.commands"])


def test_no_module_imports_itself_through_others() -> None:
    above: list[str] = []
    done: set[str] = set()

    def walk(name: str) -> None:
        assert name not in above, " → ".join([*above[above.index(name) :], name])
        if name in done:
            return
        above.append(name)
        for each in GRAPH[name]:
            walk(each)
        done.add(above.pop())

    for name in GRAPH:
        walk(name)


def test_a_command_has_a_target_of_its_name_or_a_job() -> None:
    makefile = (UNBAKED / "Makefile").read_text()
    commands = {
        path.stem.replace("_", "-") for path in (TEMPLATE / "delivery/commands").glob("[a-z]*.py")
    }
    run_by_make = {name for name in commands if re.search(rf"^{name}:.* ## ", makefile, re.M)}
    assert commands - run_by_make == {"run-pipeline"}, "only the training job has no target"
    for name in run_by_make:
        assert f"$(RUN) delivery {name}" in makefile


def test_delivery_reads_only_the_files_of_the_contract() -> None:
    pipeline = re.compile(r"^(artifacts|data/prepared|plots|runs|metrics|lineage|MODEL_CARD)\b")
    for name in MODULES:
        if not name.startswith("delivery"):
            continue
        for node in ast.walk(ast.parse(MODULES[name].read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if pipeline.match(text) and re.fullmatch(r"[\w./-]+", text) and "/" in text:
                    assert any(text == each or text.startswith(f"{each}/") for each in CONTRACT), (
                        f"{name} names {text}"
                    )


MACHINES = ("classifier", "delivery", "tuning")  # programs for which variables change something


def reads_of_the_environment(tree: ast.AST) -> Iterator[str]:
    """Single variables that code reads; handing all of them to another program is no reading."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            read, named = node.value, node.slice
        elif isinstance(node, ast.Call) and node.args:
            read, named = node.func, node.args[0]
        else:
            continue
        if re.match(r"os\.(environ(\.get|\.setdefault)?|getenv)$", ast.unparse(read)):
            yield ast.unparse(named)


def test_single_variables_of_the_environment_are_found() -> None:
    text = "os.environ['A'], os.environ.get('B'), os.getenv('C')\nos.environ['D'] = f(os.environ)"
    assert list(reads_of_the_environment(ast.parse(text))) == ["'A'", "'B'", "'C'"]


def test_the_environment_is_read_once_where_a_program_begins() -> None:
    for name, path in MODULES.items():
        text = path.read_text()
        read = set(reads_of_the_environment(ast.parse(text))) - {"'PATH'"}
        others = name == "delivery.oci.login"  # which finds files of other programs as they do
        assert others or not read, f"{name} reads {read}: let workspace.machine do it"
        assert name == "workspace.machine" or "from_environment" not in text, name
        begins = path.name == "__main__.py" and name.split(".")[0] in MACHINES
        assert not begins or "this_machine()" in text, f"{name}: a mistake in it is told too late"


def test_every_variable_that_is_read_is_in_the_readme() -> None:
    read = re.findall(
        r"\bvariables(?:\.get\(|, )\"(\w+)\"", MODULES["workspace.machine"].read_text()
    )
    table = (UNBAKED / "README.md").read_text().partition("| variable |")[2]
    assert len(read) > 7 and not [name for name in read if f"`{name}`" not in table]


PICTURES = (
    "classifier",
    "curation",
    "reporting",
    "tuning",
)  # rooms in which nothing is a container image


def sentences(tree: ast.AST) -> Iterator[str]:
    """What code says: its texts with blanks, without docstrings, and without names and examples."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bodies = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    inner = {id(each.value) for each in bodies if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        inner |= {id(part) for part in parts if part is not node}
        texts = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
        if id(node) not in inner and isinstance(node, ast.JoinedStr | ast.Constant):
            text = "".join(text for text in texts if isinstance(text, str))
            yield from re.findall(
                r".*\s.*", re.sub(r"```.*?```|`[^`]*`|\"[^\"]*\"", "", text, flags=re.S)
            )


def test_sentences_are_found() -> None:
    text = 'def f():\n    """No image."""\n    say(f\'an image of {x}, `image`\', \'image\')'
    assert list(sentences(ast.parse(text))) == ["an image of …, "]


def test_pictures_are_not_called_images() -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] in PICTURES:
            for text in sentences(ast.parse(path.read_text())):
                said = re.sub(r"\|\w+(?=\|)", "", text)  # without the choices of a pattern
                assert not re.search(r"\bimages?\b", said, re.IGNORECASE), f"{name}: {text}"


def test_settings_speak_of_pictures_and_of_registries_by_name() -> None:
    comments = re.findall(r"# (.*)", (UNBAKED / "params.yaml").read_text())
    assert not [text for text in comments if re.search(r"\bimages?\b", text)]
    named = "<host>/<" + "repository>"  # a repository is Git's
    files = [TEMPLATE / path for path in tracked() if (TEMPLATE / path).is_file()]
    assert not [path for path in files if named.encode() in path.read_bytes()]


GROUND = ("workspace", "delivery")  # what lies directly there may be imported by all above


def arrows() -> dict[str, set[str]]:
    """Rooms that each room imports, apart from the ground."""
    found: dict[str, set[str]] = {}
    for name, imported in GRAPH.items():
        rooms = {room(each) for each in imported} - {room(name), *GROUND}
        if name != "delivery.__main__":
            found.setdefault(room(name), set()).update(rooms)
    return found


def picture() -> str:
    """Mermaid of the imports between rooms."""
    lines = [
        f"    {start} --> {end}" for start, ends in sorted(arrows().items()) for end in sorted(ends)
    ]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def test_no_room_imports_itself_through_others() -> None:
    rest = arrows()
    while rest:
        ends = {name for name, imported in rest.items() if not imported & rest.keys()}
        assert ends, f"a circle of {', '.join(sorted(rest))}"
        rest = {name: imported for name, imported in rest.items() if name not in ends}


def test_the_ground_imports_no_room_above_it() -> None:
    assert not any(arrows()[each] for each in GROUND)


def test_the_picture_of_the_house_is_that_of_the_code() -> None:
    text = (TEMPLATE / "docs/architecture.md").read_text()
    assert picture() in text, f"put this into docs/architecture.md:\n{picture()}"
