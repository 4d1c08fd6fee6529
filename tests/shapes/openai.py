"""Holds OpenAI Realtime events against the types of the official SDK.

Each line of the file is {"from": "server" or "client", "event": {...}}. An event must validate strictly, and
must hold no field that its type lacks.
"""

import json
import sys

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from openai.types.realtime.realtime_session_create_response import RealtimeSessionCreateResponse
from pydantic import BaseModel, TypeAdapter, ValidationError

ADAPTERS = {"server": TypeAdapter(RealtimeServerEvent), "client": TypeAdapter(RealtimeClientEvent)}
SESSION = TypeAdapter(RealtimeSessionCreateResponse)

# The service sends these in a session; the event's type lacks them, the REST API's session has them.
ONLY_ON_THE_WIRE = {"session.id", "session.object", "session.expires_at"}
# The other way round.
ONLY_IN_EVENTS = {"parallel_tool_calls"}


def unknown_fields(value, path=""):
    """The paths of the fields that the types do not know."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from unknown_fields(each, f"{path}[{index}]")
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}".lstrip(".")
        for name in value.model_fields_set & set(type(value).model_fields):
            yield from unknown_fields(getattr(value, name), f"{path}.{name}".lstrip("."))


def faults(line):
    entry = json.loads(line)
    event = entry["event"]
    try:
        parsed = ADAPTERS[entry["from"]].validate_json(json.dumps(event), strict=True)
        if parsed.type != event["type"]:
            yield f"was taken for a {parsed.type}"
        yield from (
            f"unknown field {path}" for path in unknown_fields(parsed) if path not in ONLY_ON_THE_WIRE
        )
        if entry["from"] == "server" and "session" in event:
            session = SESSION.validate_json(json.dumps(event["session"]), strict=True)
            yield from (
                f"unknown field of a session: {path}"
                for path in unknown_fields(session)
                if path not in ONLY_IN_EVENTS
            )
    except ValidationError as error:
        yield str(error)


def main():
    count = failed = 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            count += 1
            for fault in faults(line):
                failed += 1
                print(f"line {number}: {fault}\n  {line.strip()[:600]}")
    if failed or not count:
        sys.exit(f"{failed} faults in {count} events")


main()
