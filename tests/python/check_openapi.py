"""Checks a description of an API, and answers against it.

Reads {"description": ..., "answers": [{"method", "path", "route", "status", "content_type", "body"}]}
from standard input; says `agree`, or what does not.
"""

import json
import sys

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

EVENTS = "application/x-ndjson"


def check(description, answer, registry):
    operation = description["paths"][answer["route"]][answer["method"].lower()]
    named = f"{answer['method']} {answer['path']} -> {answer['status']}"
    response = operation["responses"].get(str(answer["status"]))
    assert response, f"{named}: the description does not know this status"
    content = response.get("content", {})
    if not content:
        assert not answer["body"], f"{named}: a body, and none is described"
        return
    kind = (answer["content_type"] or "").split(";")[0]
    assert kind in content, f"{named}: {kind} is not one of {sorted(content)}"
    schema = content[kind]["schema"]
    if "json" not in kind:
        return
    bodies = answer["body"].splitlines() if kind == EVENTS else [answer["body"]]
    # References of the description lead into it.
    whole = {"$id": "urn:description", "components": description["components"], **schema}
    validator = OAS31Validator(whole, registry=registry)
    for body in bodies:
        errors = list(validator.iter_errors(json.loads(body)))
        assert not errors, f"{named}: {errors[0].message} in {body}"


def closed(schema):
    """The same schema, that takes no property it does not name."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [closed(value) for value in schema]
    return schema


def main():
    given = json.load(sys.stdin)
    description = given["description"]
    assert description["openapi"].startswith("3.1"), description["openapi"]
    OpenAPIV31SpecValidator(description).validate()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), f"{method} {path} has no summary"
    strict = json.loads(json.dumps(description))
    strict["components"] = closed(strict["components"])
    resource = Resource.from_contents(strict, default_specification=DRAFT202012)
    registry = Registry().with_resource("urn:description", resource)
    for answer in given["answers"]:
        check(strict, answer, registry)
    tried = {(answer["route"], answer["method"].lower()) for answer in given["answers"]}
    for path, operations in description["paths"].items():
        for method in operations:
            assert (path, method) in tried, f"{method} {path} was not tried"
    print("agree")


main()
