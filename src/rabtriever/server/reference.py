"""The page at /docs: the OpenAPI description as plain HTML, which asks for nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid; border-radius: .25rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .5rem .25rem 0; }
th, td { border-bottom: 1px solid; vertical-align: top; overflow-wrap: anywhere; } section { margin-top: 2.5rem; }
"""
_SCHEMAS = "#/components/schemas/"


def docs_page(api: Mapping[str, Any], address: str) -> str:
    """The page.

    Args:
        api: the OpenAPI description.
        address: where the server is, for the examples, such as http://127.0.0.1:8100.

    Returns:
        HTML without scripts and without links to other places.
    """
    title = f"{escape(api['info']['title'])} {escape(api['info']['version'])}"
    body = "".join(_route(api, address, *route) for route in _routes(api))
    contents = "".join(f'<li><a href="#{_anchor(*route)}">{_name(*route)}</a></li>' for route in _routes(api))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>'
        f"<h1>{title}</h1><p>{escape(api['info']['description'])} "
        f'<a href="/openapi.json">/openapi.json</a> has this page for programs.</p><nav><ul>{contents}</ul></nav>'
        f"{body}</main></body></html>"
    )


def _routes(api: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, methods in api["paths"].items():
        for method in methods:
            yield path, method


def _name(path: str, method: str) -> str:
    return f"<code>{method.upper()} {escape(path)}</code>"


def _anchor(path: str, method: str) -> str:
    return escape(f"{method}{path.translate(str.maketrans('/', '-', '{}'))}")


def _route(api: Mapping[str, Any], address: str, path: str, method: str) -> str:
    told = api["paths"][path][method]
    parts = [f'<section id="{_anchor(path, method)}"><h2>{_name(path, method)}: {escape(told["summary"])}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in told.get("description", "").split("\n\n")]
    asked = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if asked:
        parts += [_fields(api, schema, "Request") for schema in _schemas(api, asked)]
    if parameters := told.get("parameters"):
        rows = {one["name"]: {**one["schema"], "description": one.get("description", "")} for one in parameters}
        parts.append(_table(api, rows, {one["name"] for one in parameters}, "Request"))
    parts += [f"<pre>{escape(example)}</pre>" for example in examples(api, address, path, method)]
    answer = told["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
    parts += [_fields(api, schema, "Answer") for schema in _schemas(api, answer)]
    refused = ", ".join(status for status in told["responses"] if status != "200")
    parts.append(f"<p>Errors: {refused}.</p></section>" if refused else "</section>")
    return "".join(parts)


def examples(api: Mapping[str, Any], address: str, path: str, method: str) -> list[str]:
    """Commands that ask a route, one for each example of its request."""
    told = api["paths"][path][method]
    for parameter in told.get("parameters", []):
        path = path.replace("{" + parameter["name"] + "}", str(parameter["schema"]["examples"][0]))
    command = f"curl {address}{path}" if method == "get" else f"curl -X {method.upper()} {address}{path}"
    asked = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if asked is None:
        return [command]
    bodies = [body for schema in _schemas(api, asked) for body in schema.get("examples", [])]
    return [f"{command} -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body)}'" for body in bodies]


def _schemas(api: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas that a value may have, without references."""
    if kinds := _kinds(schema):
        return [found for part in kinds for found in _schemas(api, part)]
    if reference := schema.get("$ref"):
        return [api["components"]["schemas"][reference.removeprefix(_SCHEMAS)]]
    return [schema] if schema else []


def _fields(api: Mapping[str, Any], schema: Mapping[str, Any], what: str) -> str:
    rows = schema.get("properties", {})
    return _table(api, rows, set(schema.get("required", [])), f"{what}: {schema.get('title', '')}") if rows else ""


def _table(api: Mapping[str, Any], rows: Mapping[str, Any], required: set[str], title: str) -> str:
    head = "<tr><th>field</th><th>type</th><th>meaning</th></tr>"
    lines = [
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(field))}{'' if name in required else ', optional'}"
        f"</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in rows.items()
    ]
    inside = [
        _fields(api, schema, title.partition(":")[0])
        for field in rows.values()
        for part in (field, field.get("items", {}))
        for schema in _schemas(api, part)
        if schema is not part
    ]
    return f"<h3>{escape(title)}</h3><table>{head}{''.join(lines)}</table>{''.join(inside)}"


def _kinds(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return schema.get("anyOf") or schema.get("oneOf") or []


def _type(field: Mapping[str, Any]) -> str:
    """A few words for the type of a field."""
    if kinds := _kinds(field):
        return " or ".join(_type(part) for part in kinds)
    if reference := field.get("$ref"):
        return reference.removeprefix(_SCHEMAS)
    if "const" in field:
        return json.dumps(field["const"])
    kind = field.get("type", "any JSON")
    return f"list of {_type(field['items'])}" if kind == "array" else kind
