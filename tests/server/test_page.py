"""The page and the documentation: safe whatever a model says of itself, and complete without another host."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.repository import report
from app.server.page import _tensors as tensor_table
from app.tensors import Scaling, make_signature
from tests import tflite
from tests.server.conftest import HOSTILE
from tests.server.inprocess import InProcess
from tests.signatures import spec


class Elements(HTMLParser):
    """Tags, their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def references(self) -> list[str]:
        return [value for name, value in self.attributes if name in ("src", "href", "action", "srcset", "data")]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def page(served: InProcess, path: str = "/") -> Elements:
    response = served.get(path, headers={"accept": BROWSER})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Elements(response.text)


def test_the_page_shows_every_model_with_its_state_and_tensors(good: InProcess) -> None:
    text = page(good).text

    assert "Litepool ok" in text
    for model in good.get("/models").json()["models"]:
        assert f"{model['name']} AVAILABLE" in text
    for word in ("left", "right", "total", "difference", "float32", "[-1, 3]"):
        assert word in text


def test_the_page_says_where_a_model_runs_and_what_its_requests_share(good: InProcess) -> None:
    text = page(good).text

    why = "it keeps variables between invokes"
    own = "so that every request gets an interpreter of its own"
    assert f"Runs on pool threads: {why}, {own}; each request is run alone: {why}." in text
    assert "Runs on the event loop up to " in text


def test_a_hostile_description_is_text_on_the_page(good: InProcess) -> None:
    elements = page(good)

    assert HOSTILE in elements.text
    assert "script" not in elements.tags
    assert "b" not in elements.tags


def test_a_hostile_tensor_name_is_text_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.tflite").write_bytes(tflite.affine(input_name="<i>x</i>", output_name="<s>y</s>"))
    with InProcess(tmp_path / "models") as served:
        elements = page(served)

    assert "<i>x</i>" in elements.text
    assert "<s>y</s>" in elements.text
    assert not {"i", "s"} & set(elements.tags)


def test_a_hostile_folder_name_is_text_on_the_page(mixed: InProcess) -> None:
    elements = page(mixed)

    assert "<img src=x onerror=alert(1)>" in elements.text
    assert "img" not in elements.tags
    assert not [name for name, _ in elements.attributes if name.startswith("on")]


def test_a_hostile_host_header_is_text_on_the_page(good: InProcess) -> None:
    response = good.get("/", headers={"host": 'x"><script>alert(1)</script>', "accept": BROWSER})

    assert response.status_code == 200
    assert "script" not in Elements(response.text).tags


def test_a_failed_model_is_on_the_page_with_its_reason(mixed: InProcess) -> None:
    text = page(mixed).text

    assert "Litepool degraded" in text
    assert "broken FAILED" in text
    assert mixed.get("/models/broken").json()["reason"] in text


def test_the_page_has_no_script_and_nothing_from_elsewhere(good: InProcess) -> None:
    elements = page(good)

    assert "script" not in elements.tags
    assert elements.references()
    assert all(reference.startswith("/") and not reference.startswith("//") for reference in elements.references())
    assert "url(" not in good.get("/", headers={"accept": BROWSER}).text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_every_link_of_a_page_leads_somewhere_here(good: InProcess, path: str) -> None:
    for reference in page(good, path).references():
        assert good.get(reference).status_code == 200, reference


def test_the_documentation_names_no_other_host(good: InProcess) -> None:
    text = good.get("/docs").text

    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) == []
    assert all(reference.startswith("/") for reference in Elements(text).references())


def test_the_scripts_and_styles_of_the_documentation_are_served_by_us(good: InProcess) -> None:
    references = page(good, "/docs").references()

    kinds = {reference.rpartition(".")[2]: good.get(reference) for reference in references}
    assert kinds.keys() == {"css", "js", "png"}
    assert kinds["css"].headers["content-type"].startswith("text/css")
    assert "javascript" in kinds["js"].headers["content-type"]
    assert kinds["png"].content.startswith(b"\x89PNG")
    assert "SwaggerUIBundle" in kinds["js"].text
    outside = re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", kinds["css"].text)
    assert outside == []


def test_the_documentation_reads_our_schema_and_comes_back_to_our_page(good: InProcess) -> None:
    text = good.get("/docs").text

    schema = re.search(r"url: '([^']+)'", text)
    redirect = re.search(r"oauth2RedirectUrl: window\.location\.origin \+ '([^']+)'", text)
    assert schema
    assert good.get(schema[1]).json()["info"]["title"] == "Litepool"
    assert redirect
    assert good.get(redirect[1]).status_code == 200


def test_there_is_no_second_documentation_from_a_cdn(good: InProcess) -> None:
    assert good.get("/redoc").status_code == 404


def test_it_says_what_is_a_string_and_what_the_integers_of_a_quantized_tensor_mean() -> None:
    signature = make_signature("s", (spec("x", "string"),), (spec("y", "int8", scaling=Scaling(0.5, -3)),))

    shown = Elements(tensor_table(report.signature_json(signature))).text

    assert "inputxstring[-1, 4]" in shown
    assert "outputyint8, which means 0.5 * (raw + 3)[-1, 4]" in shown


@pytest.mark.parametrize("accept", [BROWSER, "*/*", "", "text/html, application/json", "application/json;q=0"])
def test_the_page_is_for_whoever_does_not_say_otherwise(good: InProcess, accept: str) -> None:
    response = good.get("/", headers={"accept": accept})

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["application/json", "application/json, */*", "text/html;q=0, application/json"])
def test_programs_that_ask_for_json_are_told_that_the_server_is_alive(good: InProcess, accept: str) -> None:
    response = good.get("/", headers={"accept": accept})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "Accept"
    assert response.json()["status"] == "alive"
