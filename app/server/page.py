"""`GET /`: what is served here, for a person with a browser. One page, no script, nothing from elsewhere.

To programs it says that the server is alive, as KServe's does, whose V1 clients ask here.
"""

import json
from html import escape
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app import __version__
from app.bound import accepts
from app.protocols.call import JSON
from app.repository import report
from app.repository.loader import Opened, show_us
from app.repository.manager import Entry, Manager
from app.repository.variants import SHOWN_ROWS
from app.tensors import Scaling

_LONGEST_REQUEST = 600

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #2a7d4f; --bad: #c0392b; --wait: #b7791f; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em; } h2 { margin: 2.2rem 0 .4rem; font-size: 1.25rem; }
p { margin: .4rem 0; } nav a { margin-right: 1.1rem; } a { color: inherit; }
.state { font-size: .75rem; font-weight: 600; padding: .15rem .55rem; border-radius: 1rem; color: #fff;
  vertical-align: middle; }
.AVAILABLE, .ok { background: var(--good); } .FAILED, .failed { background: var(--bad); }
.START, .LOADING, .UNLOADING, .END, .starting, .degraded, .draining { background: var(--wait); }
table { border-collapse: collapse; margin: .7rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; background: var(--soft); padding: .8rem 1rem; border-radius: .4rem; font-size: .85rem; }
.soft { opacity: .75; }
"""


_ALIVE = {"status": "alive", "name": "litepool", "version": __version__, "docs": "/docs"}

_BY_ACCEPT = {"Vary": "Accept"}


def answer(manager: Manager, request: Request) -> Response:
    """The page, but for who asks for JSON by its name and not for HTML."""
    accept = request.headers.get("accept", "")
    if accepts(accept, JSON) and not accepts(accept, "text/html"):
        return Response(orjson.dumps(_ALIVE), media_type=JSON, headers=_BY_ACCEPT)
    return HTMLResponse(render(manager, request.url.netloc), headers=_BY_ACCEPT)


def render(manager: Manager, host: str) -> str:
    """The page as it is now; `host` is what the browser calls us."""
    status, reason = manager.status()
    names = dict.fromkeys(entry.name for entry in manager.entries())
    models = "".join(_model(manager.versions(name), manager, host) for name in names)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Litepool</title>
<style>{_STYLE}</style></head><body>
<h1>Litepool <span class="state {status.value}">{status.value}</span></h1>
<p class="soft">Version {escape(__version__)}. {escape(reason)}</p>
<nav><a href="/docs">API documentation</a><a href="/models">Models</a>
<a href="/healthz">Health</a><a href="/metrics">Metrics</a></nav>
{models}
</body></html>
"""


def _model(entries: list[Entry], manager: Manager, host: str) -> str:
    name = entries[0].name
    labels = manager.labels(name)
    model = report.of_versions(entries, labels)
    entry = next(entry for entry in entries if entry.version == model["version"])
    parts = [
        f'<h2>{escape(name)} <span class="state {model["state"]}">{model["state"]}</span></h2>',
        f"<p>{escape(model['description'])}</p>" if model["description"] else "",
        f"<p>{escape(model['reason'])}</p>" if model["reason"] else "",
        _versions(model["versions"]) if len(entries) > 1 or labels else "",
    ]
    if entry.loaded is not None:
        path = "/predict" if name == manager.default_name() else f"/predict/{name}"
        parts += [_signatures(model), _tensors(model["signature"]), _times(model), _variants(model["variants"])]
        parts.append(_lane(model))
        parts.append(_call(f"{host}{path}", entry.loaded.opened))
    return "".join(parts)


def _tensors(signature: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{kind}</td><td>{escape(tensor['name'])}</td><td>{_dtype(tensor)}</td><td>{tensor['shape']}</td></tr>"
        for kind in ("input", "output")
        for tensor in signature[kind + "s"]
    )
    return f"<table><tr><th></th><th>name</th><th>dtype</th><th>shape</th></tr>{rows}</table>"


def _dtype(tensor: dict[str, Any]) -> str:
    scaling = tensor.get("scaling")
    return f"{tensor['dtype']}, which means {Scaling(**scaling)}" if scaling else str(tensor["dtype"])


def _times(model: dict[str, Any]) -> str:
    conversion = model["conversion"]
    if conversion is None:
        who = "TensorFlow" if model["engine"] == "tensorflow" else "The interpreter"
        return f"<p>{who} takes {show_us(model['profile']['invoke_us']['1'])} for one record.</p>"
    times = conversion["one_record_us"]
    rows = "".join(
        f'<tr><td>{escape(way)}</td><td class="n">{show_us(took)}</td>'
        f'<td class="n">{took / times["interpreter"]:,.0f} x</td></tr>'
        for way, took in times.items()
    )
    differences = conversion["parity"]["differences"].values()
    worst = max(difference["relative"] for difference in differences)
    return (
        f"<table><tr><th>one record, on this machine</th><th></th><th></th></tr>{rows}</table>"
        f"<p>Largest difference from TensorFlow: {worst:.1e} of the output's scale.</p>"
    )


def _versions(versions: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td class='n'>{version['version']}</td>"
        f'<td><span class="state {version["state"]}">{version["state"]}</span></td>'
        f"<td>{escape(', '.join(version['labels']))}</td><td>{escape(version['reason'])}</td></tr>"
        for version in versions
    )
    return f"<table><tr><th>version</th><th></th><th>labels</th><th></th></tr>{rows}</table>"


def _signatures(model: dict[str, Any]) -> str:
    names, left_out = list(model["signatures"]), model["signatures_left_out"]
    if len(names) == 1 and not left_out:
        return ""
    others = f"Its signatures are {', '.join(names)}; the first is the default, and is shown."
    missing = "".join(f" {name} is not served: {reason}." for name, reason in left_out.items())
    return f"<p>{escape(others + missing)}</p>"


def _variants(variants: dict[str, Any] | None) -> str:
    """The forms among which the fastest within the tolerance was chosen."""
    if variants is None or len(variants) == 1:
        return ""
    rows = ""
    for name, found in variants.items():
        shown = f"<b>{escape(name)}</b>, served" if found["served"] else escape(name)
        if "error" in found:
            rows += f'<tr><td>{shown}</td><td colspan="6">{escape(found["error"])}</td></tr>'
            continue
        costs = "".join(
            f'<td class="n">{show_us(found["invoke_us"][rows_]) if rows_ in found["invoke_us"] else ""}</td>'
            for rows_ in map(str, SHOWN_ROWS)
        )
        top = "" if found["top_class"] is None else f"{found['top_class']:.1%}"
        rows += (
            f'<tr><td>{shown}</td><td class="n">{found["bytes"]:,}</td>{costs}'
            f'<td class="n">{found["difference"]:.1e}</td><td class="n">{top}</td></tr>'
        )
    heads = "".join(f"<th>{rows_} record{'s' * (rows_ > 1)}</th>" for rows_ in SHOWN_ROWS)
    return (
        f"<table><tr><th>weights</th><th>bytes</th>{heads}<th>difference</th><th>same top class</th></tr>{rows}</table>"
    )


def _lane(model: dict[str, Any]) -> str:
    lane, batching = model["lane"], model["batching"]
    slow = f"<p><b>The slow road:</b> TensorFlow runs it, because {escape(model['slow'])}.</p>" if model["slow"] else ""
    return (
        f"{slow}<p>Runs {escape(report.where(lane))}; {escape(report.sharing(lane))}.</p>"
        f'<p class="soft">Batches: {escape(batching["class"])}, {escape(batching["because"])}.</p>'
    )


def _call(url: str, opened: Opened) -> str:
    """A command that works when it is pasted into a shell, unless its record would fill the page."""
    request = json.dumps(opened.example_request(), ensure_ascii=False, separators=(",", ":"))
    if len(request) > _LONGEST_REQUEST or "'" in request:
        return '<p><a href="/docs">Try it in the API documentation</a></p>'
    command = f"curl -s {url} -d '{request}'"
    return f"<pre>{escape(command)}</pre>"
