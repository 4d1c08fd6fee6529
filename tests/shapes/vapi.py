"""Holds what the Vapi simulator sends, and what it accepts as answers, against the types of the official SDK.

Each line of the file is {"class": "ServerMessageHang", "value": {...}}. The value must validate without
conversions and hold no field that its type lacks. With "refused": true the type must refuse the value.
"""

import functools
import json
import sys
from datetime import datetime

import vapi
import vapi.phone_numbers
from pydantic import BaseModel, TypeAdapter, ValidationError

# Real deliveries have these; the types lack them.
ONLY_ON_THE_WIRE = {
    "ServerMessageToolCalls": {"toolCalls"},
    "ServerMessageEndOfCallReport": {
        "costBreakdown", "durationMinutes", "durationMs", "durationSeconds", "messages", "recordingUrl",
        "stereoRecordingUrl", "summary", "transcript",
    },
    # Documented, and not in the SDK.
    "Call": {"phoneCallProviderBypassEnabled", "phoneCallProviderDetails", "subscriptionLimits"},
}
# A saved assistant or number says what it is; the types of those in messages are the ones for creating.
SAVED = {"id", "orgId", "createdAt", "updatedAt", "status", "isServerUrlSecretSet"}


@functools.cache
def adapter(name):
    return TypeAdapter(getattr(vapi, name, None) or getattr(vapi.phone_numbers, name))


def as_typed(value):
    """Tool calls with their arguments as a string: an object on the wire, though the type says string."""
    if isinstance(value, list):
        return [as_typed(each) for each in value]
    if not isinstance(value, dict):
        return value
    value = {key: as_typed(each) for key, each in value.items()}
    if "name" in value and isinstance(value.get("arguments"), dict):
        value["arguments"] = json.dumps(value["arguments"])
    return value


def misfits(raw, parsed, path=""):
    """Complaints about a value beside what its type made of it.

    The SDK's models cannot be validated strictly (dates fail), so what was converted is found by comparing: only a
    date may be made of a string, and a float of an integer.
    """
    if isinstance(parsed, BaseModel):
        for name in parsed.model_extra or {}:
            yield f"{path}.{name}".lstrip("."), "is unknown"
        for name in parsed.model_fields_set & set(type(parsed).model_fields):
            key = type(parsed).model_fields[name].alias or name
            yield from misfits(raw[key], getattr(parsed, name), f"{path}.{key}".lstrip("."))
    elif isinstance(parsed, list):
        for index, (raw_item, item) in enumerate(zip(raw, parsed)):
            yield from misfits(raw_item, item, f"{path}[{index}]")
    elif isinstance(parsed, dict):
        for key, item in parsed.items():
            yield from misfits(raw[key], item, f"{path}.{key}")
    elif isinstance(parsed, datetime):
        if not isinstance(raw, str):
            yield path, "should be a date as a string"
    elif isinstance(parsed, float):
        if type(raw) not in (int, float):
            yield path, "should be a number"
    elif type(raw) is not type(parsed):
        yield path, f"should be {type(parsed).__name__}"


def expected(name, path):
    head, _, last = path.rpartition(".")
    if head in ("assistant", "newAssistant", "call.assistant", "phoneNumber") and last in SAVED:
        return True
    return path in ONLY_ON_THE_WIRE.get(name, set())


def complaints(name, value):
    try:
        parsed = adapter(name).validate_python(value)
    except ValidationError as error:
        return [str(error)]
    found = misfits(value, parsed)
    return [f"{path} {what}" for path, what in found if what != "is unknown" or not expected(name, path)]


def faults(line):
    entry = json.loads(line)
    name, found = entry["class"], complaints(entry["class"], as_typed(entry["value"]))
    if not entry.get("refused", False):
        return [f"{name}: {complaint}" for complaint in found]
    return [] if found else [f"{name} takes what it should refuse"]


def main():
    count = failed = 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            count += 1
            for fault in faults(line):
                failed += 1
                print(f"line {number}: {fault}\n  {line.strip()[:600]}")
    if failed or not count:
        sys.exit(f"{failed} faults in {count} values")


main()
