"""The documentation says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

from app.server.app import create_app
from app.server.predict import WANTS
from app.server.sequence import SEQUENCE_HEADERS
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


def test_generated_parts_of_the_documentation_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "scripts/make_docs.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_link_between_pages_leads_to_a_file() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_link_to_a_part_of_a_page_leads_to_a_heading() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    anchors = {page: set(map(_anchor, re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE))) for page in pages}
    for page in pages:
        for target, part in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            found = anchors[(page.parent / target).resolve() if target else page]
            assert part in found, f"{page.name} links to {target}#{part}"


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_command_that_the_readme_shows_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^\$ make ([a-z -]+?)\s*(?:#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    wanted = {target for line in named for target in line.split()}
    assert wanted
    assert wanted <= targets


def test_every_route_is_in_the_api_page() -> None:
    page = (ROOT / "docs/api.md").read_text()
    app = create_app(Settings(models_dir=ROOT / "models"))
    control = (ROOT / "app/server/control.py").read_text()
    control += (ROOT / "app/server/model_control.py").read_text()
    paths = [*re.findall(r'@routes\.(?:get|post)\("([^"]+)"', control), app.docs_url or "/docs"]
    paths += re.findall(r'"(/predict[^"]*)"', (ROOT / "app/server/app.py").read_text())
    assert len(paths) > 10
    for path in paths:
        assert path in page, f"docs/api.md does not tell of {path}"


def test_every_header_of_ours_is_in_the_api_page() -> None:
    page = (ROOT / "docs/api.md").read_text().lower()
    for header in (*SEQUENCE_HEADERS, *(name for name in WANTS if name.startswith(b"litepool-"))):
        assert header.decode() in page, f"docs/api.md does not tell of {header.decode()}"
