"""The API under what nobody means to send: whatever comes, no address fails, and every answer is as it is described.

Requests are made from the API's own description, with this browser's token and without it. Jobs are taken in, none starts.
"""

import asyncio
import random
from pathlib import Path

import pytest

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from paperworks.core.jobs import JobQueue  # noqa: E402
from paperworks.core.runs import RunStore  # noqa: E402
from paperworks.web import orders  # noqa: E402
from paperworks.web.app import create_app  # noqa: E402
from paperworks.web.settings import WebSettings  # noqa: E402

pytestmark = pytest.mark.browser
BASE = "http://127.0.0.1:8765"
EXAMPLES = 25  # of each call
CHECKED = (
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
)
