"""The lines between the rooms of the house, as pyproject.toml and the contract draw them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "app").rglob("*.py"))
CHILDREN = ("repository/conversion_child/", "repository/engine_child/")

# What opens a hostile model gives up the same rights as what converts one; it takes this module by its path.
SANDBOX = "child_sandbox"
ALSO_SANDBOXED = "repository/trial_child.py"


def place(path: Path) -> str:
    return path.relative_to(ROOT / "app").as_posix()


def child_modules() -> set[str]:
    """The modules of the processes that run TensorFlow, which are top-level ones there."""
    return {path.stem for path in FILES if place(path).startswith(CHILDREN)} - {"__main__"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """The modules that a file imports."""
    return frozenset(imported(tree_of(path)))


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a program imports, also in functions, and by name through importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def importers(package: str) -> set[str]:
    return {
        place(path)
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports_of(path))
    }


def environment_uses(tree: ast.AST) -> Iterator[str]:
    """`read`, or `write` where one variable is set, for every mention of the process's environment."""
    written = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            yield "write" if id(node) in written else "read"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ("read" for alias in node.names if alias.name in names | {"*"})


def test_the_layers_hold_as_pyproject_draws_them() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_room_is_on_a_floor() -> None:
    drawn = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    for path in FILES:
        room = place(path).partition("/")[0].removesuffix(".py")
        assert room == "__init__" or f"app.{room}" in drawn, f"{place(path)} is in no layer"


def test_one_file_knows_litert() -> None:
    assert importers("ai_edge_litert") == {"runtime/interpreter.py"}
    assert {place(path) for path in FILES if "ai_edge_litert" in path.read_text(encoding="utf-8")} == {
        "runtime/interpreter.py"
    }


@pytest.mark.parametrize("package", ["tensorflow", "keras"])
def test_only_the_children_import_tensorflow(package: str) -> None:
    assert all(name.startswith(CHILDREN) for name in importers(package))


@pytest.mark.parametrize("child", CHILDREN)
def test_the_children_do_import_tensorflow(child: str) -> None:
    assert any(name.startswith(child) for name in importers("tensorflow"))


def test_the_messages_that_a_child_takes_by_path_bring_nothing_else_of_ours() -> None:
    assert not any(name.startswith("app") for name in imports_of(ROOT / "app" / "runtime" / "frames.py"))


def test_the_children_and_the_rest_do_not_import_each_other() -> None:
    for path in FILES:
        names = {name.partition(".")[0] for name in imports_of(path)}
        if place(path).startswith(CHILDREN):
            assert "app" not in names, place(path)
        else:
            allowed = {SANDBOX} if place(path) == ALSO_SANDBOXED else set()
            assert names & child_modules() == allowed, place(path)
            assert not any("_child." in f"{name}." for name in imports_of(path)), place(path)


def test_the_sandbox_brings_nothing_but_the_standard_library() -> None:
    names = imports_of(ROOT / "app" / "repository" / "conversion_child" / f"{SANDBOX}.py")

    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_childrens_modules_hide_no_others() -> None:
    known = sys.stdlib_module_names | metadata.packages_distributions().keys()

    assert child_modules()
    assert not child_modules() & known
    assert all(name.startswith("child_") for name in child_modules())


def test_the_childrens_modules_have_names_of_their_own() -> None:
    # The engine's process finds both.
    names = [path.name for path in FILES if place(path).startswith(CHILDREN)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("package", ["fastapi", "starlette", "uvicorn", "httptools", "uvloop", "grpc"])
def test_web_frameworks_stay_in_the_server(package: str) -> None:
    assert all(name.startswith("server/") for name in importers(package))


def test_grpc_is_imported_only_where_it_is_asked_for() -> None:
    # By the whole server, its parent and its command line.
    program = (
        "import sys, app.cli, app.main, app.server.app, app.server.serve, app.server.supervisor, app.server.worker\n"
        "print([name for name in ('grpc', 'google.protobuf', 'hpack') if name in sys.modules])\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert output.splitlines()[-1] == "[]"


def test_only_the_settings_read_the_environment() -> None:
    uses = {place(path): set(environment_uses(tree_of(path))) for path in FILES}

    assert {name for name, kinds in uses.items() if "read" in kinds} <= {"settings.py"}
    assert {name for name, kinds in uses.items() if "write" in kinds} <= {"server/supervisor.py"}


def test_only_the_settings_know_how_settings_are_read() -> None:
    assert importers("pydantic_settings") == {"settings.py"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nos.environ['A'] = '1'", {"write"}),
        ("import os\nos.environ['A']", {"read"}),
        ("import os\nos.environ.get('A')", {"read"}),
        ("import os\nos.getenv('A')", {"read"}),
        ("from os import environ", {"read"}),
        ("import os\nos.environ['A'] = os.environ['B']", {"read", "write"}),
        ("import os\nos.getpid()", set()),
    ],
)
def test_the_look_for_the_environment_finds_it(source: str, expected: set[str]) -> None:
    assert set(environment_uses(ast.parse(source))) == expected


def test_the_look_for_imports_finds_them_wherever_they_are() -> None:
    source = "def f():\n    import a.b\n    from c import d\n    importlib.import_module('e')\n"

    assert set(imported(ast.parse(source))) == {"a.b", "c", "c.d", "e"}
