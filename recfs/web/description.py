"""The API's description (OpenAPI 3.1): what FastAPI makes of the routes, and what holds for all of them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from recfs.web.problems import MEDIA_TYPE, TABLE, TYPE

_VALIDATION: Final = ("HTTPValidationError", "ValidationError")
_REF: Final = "#/components/schemas/Problem"
_PROBLEM: Final = {
    "title": "Problem",
    "description": "A refusal (RFC 9457). Further members say more of it.",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "enum": [TYPE + kind for kind in TABLE]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
    },
    "additionalProperties": True,
    "examples": [{"type": TYPE + "NotFound", "title": TABLE["NotFound"].title, "status": TABLE["NotFound"].status}],
}
_SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "`recfs token add` makes one"},
    "session": {"type": "apiKey", "in": "cookie", "name": "__Host-recfs", "description": "of a browser"},
}


def problem(text: str) -> dict[str, Any]:
    """Describe a refusal, for the `responses` of a route."""
    return {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": _REF}}}}


def describe(app: FastAPI) -> None:
    """Have an application describe itself so, as FastAPI's documents do it (Extending OpenAPI)."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(original())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """Every refusal of every route is a problem document."""
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            if _VALIDATION[0] in str(responses.get("422")):
                responses["422"] = problem("a value is not what it should be")
            responses.setdefault("default", problem("refused"))
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _VALIDATION:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["securitySchemes"] = _SECURITY
    document["security"] = [{name: []} for name in _SECURITY] + [{}]
    return document


__all__ = ["describe", "problem"]
