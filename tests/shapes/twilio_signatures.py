"""Holds signed requests against PyPI's twilio: python twilio_signatures.py FILE, one request a line:
{"authToken", "url", "params": [[name, value], ...], "signature"}. Exit 1 with the first that it refuses."""

import json
import sys

from twilio.request_validator import RequestValidator

with open(sys.argv[1], encoding="utf-8") as lines:
    for line in filter(str.strip, lines):
        request = json.loads(line)
        form = {}
        for name, value in request["params"]:
            form[name] = [*form[name], value] if isinstance(form.get(name), list) else \
                [form[name], value] if name in form else value
        if not RequestValidator(request["authToken"]).validate(request["url"], form, request["signature"]):
            sys.exit(f"refused: {line}")
