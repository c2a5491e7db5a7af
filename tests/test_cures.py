"""What a sentence tells a person to do is done by a test, which ends well.

A sentence is found where the code makes an error. What it says to do is in backticks, or begins
after its last colon or semicolon. `FOLLOWED` has a line for each: the function that makes it, and
the tests that get the sentence, do what it says and see the command succeed. A function that says
several things has several lines, in their order. Who writes a new sentence writes such a test.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product

from conftest import TEMPLATE, UNBAKED

ROOMS = {
    **{name: TEMPLATE / name for name in ("delivery", "workspace", "hooks", "infra/commands")},
    **{name: UNBAKED / "src" / name for name in ("classifier", "curation", "tuning")},
}
ERROR = re.compile(r"(.*\.)?(\w*Error|sys\.exit)")
# Words with which a clause begins that says why or what is known, and nothing to do.
REASONS = set("a an and at it its known kubectl more no one report the there this what".split())
REASONS |= {"Kubernetes", "probabilities"}

FOLLOWED = """
"""


def followed() -> list[tuple[str, list[str]]]:
    """Functions that make sentences, and the tests that do what these say."""
    lines = (line.split() for line in FOLLOWED.strip().splitlines())
    return [(site, tests) for site, *tests in lines]


def texts(node: ast.AST, named: dict[str, list[ast.expr]], depth: int = 3) -> list[str]:
    """What an expression can say: `…` stands for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        return texts(node.body, named, depth) + texts(node.orelse, named, depth)
    if isinstance(node, ast.FormattedValue):
        return texts(node.value, named, depth) or ["…"]
    if isinstance(node, ast.JoinedStr | ast.BinOp):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node.left, node.right]
        return ["".join(each) for each in product(*(texts(p, named, depth) or "…" for p in parts))]
    name = node.func if isinstance(node, ast.Call) else node
    if isinstance(name, ast.Name) and depth:
        return [text for each in named.get(name.id, []) for text in texts(each, named, depth - 1)]
    return []


def names(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """What the names of a module stand for: what is assigned to them, what functions return."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(ast.unparse(target), []).append(node.value)
        if isinstance(node, ast.FunctionDef):
            ends = (end.value for end in ast.walk(node) if isinstance(end, ast.Return))
            found.setdefault(node.name, []).extend(end for end in ends if end)
    return found


def cures(text: str) -> list[str]:
    """What a sentence says to do."""
    clauses = re.split(r"(?<=[:;]) |\n", text)[1:]
    told = [each for each in clauses if re.match(r"`|[A-Za-z]+", each)]
    return [each for each in told if re.split(r"\W", each)[0] not in REASONS] or (
        [text] if "`" in text else []
    )


def told(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, list[str]]]:
    """Functions of a module with what each of their errors says to do."""
    named = names(tree)

    def walk(node: ast.AST, inside: str) -> Iterator[tuple[str, list[str]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and ERROR.fullmatch(ast.unparse(child.func)):
                said = [text for each in child.args for text in texts(each, named)]
                if found := [cure for text in said for cure in cures(text)]:
                    yield inside, list(dict.fromkeys(found))
            deeper = isinstance(child, ast.FunctionDef | ast.ClassDef)
            yield from walk(child, f"{inside}.{child.name}" if deeper else inside)

    return walk(tree, inside)


def sentences() -> list[tuple[str, list[str]]]:
    """All functions whose errors say what to do, and what each says."""
    found = []
    for room, folder in ROOMS.items():
        for path in sorted(folder.resolve().rglob("*.py")):
            module = path.relative_to(folder.resolve()).with_suffix("")
            name = ".".join((*room.split("/"), *module.parts))
            found += told(ast.parse(path.read_text()), name)
    return found


def tests() -> dict[str, list[str]]:
    """Test modules by name, and their tests."""
    found = {}
    for folder in (TEMPLATE / "tests", UNBAKED / "tests"):
        for path in folder.rglob("test_*.py"):
            body = ast.parse(path.read_text()).body
            assert path.stem not in found, f"two modules are named {path.stem}"
            found[path.stem] = [each.name for each in body if isinstance(each, ast.FunctionDef)]
    return found


def test_what_sentences_say_to_do_is_found() -> None:
    text = '''
HOW = "install it with `get it`"

class A:
    def f(self):
        """Raise: do nothing."""
        if x:
            raise UserError(f"{x} is missing: add {y} to it")
        raise self.wrong("it is odd: the reason")

    def wrong(self, why):
        return DeliveryError(f"no: {HOW if why else why}")

sys.exit("it is late; come again")
'''
    assert list(told(ast.parse(text), "a")) == [
        ("a.A.f", ["add … to it"]),
        ("a.A.wrong", ["install it with `get it`"]),
        ("a", ["come again"]),
    ]


def test_all_that_sentences_say_to_do_is_done_by_a_test() -> None:
    said = sentences()
    lines = Counter(site for site, _ in followed())
    count = Counter(site for site, _ in said)
    wrong = {site for site in count | lines if count[site] != lines[site]}
    named = "\n".join(f"{site}: {' / '.join(found)}" for site, found in said if site in wrong)
    assert not wrong, f"FOLLOWED needs a line for each of these and no other: {wrong}\n{named}"


def test_the_tests_that_follow_are_there() -> None:
    there = tests()
    for site, named in followed():
        assert named, f"{site}: name the test that does what it says"
        for each in named:
            module, _, function = each.partition("::")
            assert function in there.get(module, []), f"{site}: there is no {each}"
