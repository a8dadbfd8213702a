"""The ways to verify a signature that the page shows, run as they stand there, on requests as a sink makes them."""

import asyncio
import base64
import json
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from documents import DOCS
from standardwebhooks import WebhookVerificationError

from watcher.sinks.webhook import sign, signing_key

PAGE = (DOCS / "events.md").read_text(encoding="utf-8")
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
OTHER = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk"
BODY = '[{"type": "execution.failed", "data": {"name": "Größe € \'quoted\' $HOME\\n"}}]\n'.encode()

Verify = Callable[[bytes, Mapping[str, str]], Awaitable[bool]]


def request(*, secrets: tuple[str, ...] = (SECRET,), age_s: int = 0) -> dict[str, str]:
    timestamp = str(int(time.time()) - age_s)
    keys = [signing_key(secret) for secret in secrets]
    signature = sign(BODY, message_id="b0617419-fe65", timestamp=timestamp, keys=keys)
    return {"webhook-id": "b0617419-fe65", "webhook-timestamp": timestamp, "webhook-signature": signature}


def code(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.partition("## Verify a signature")[2], re.DOTALL)
    return str(found)


async def ends_well(*command: str, body: bytes = b"") -> bool:
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    await process.communicate(body)
    return process.returncode == 0


def in_python(_: Path) -> Verify:
    namespace: dict[str, Any] = {}
    exec(code("python"), namespace)  # noqa: S102 (the page's own lines are what is tested)

    async def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            return bool(namespace["events_of"](body, headers, SECRET) == json.loads(body))
        except WebhookVerificationError:
            return False

    return verify


def in_node(folder: Path) -> Verify:
    (folder / "verify.mjs").write_text(code("js"), encoding="utf-8")
    asks = "const [body, headers, secret] = process.argv.slice(1);"
    answers = 'process.exit(verify(Buffer.from(body, "base64"), JSON.parse(headers), secret) ? 0 : 1);'
    script = f'import {{ verify }} from "{folder}/verify.mjs"; {asks} {answers}'

    async def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        given = (base64.b64encode(body).decode(), json.dumps(headers), SECRET)
        return await ends_well("node", "--input-type=module", "-e", script, *given)

    return verify


def in_shell(_: Path) -> Verify:
    script = f'{code("sh")}verify "$@"'

    async def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        return await ends_well("sh", "-c", script, "sh", SECRET, *headers.values(), body=body)

    return verify


@pytest.fixture(params=["python", "node", "openssl"])
def verify(request: pytest.FixtureRequest, tmp_path: Path) -> Verify:
    """Each of the three ways; those that need a program which is not there are skipped by its name."""
    if request.param != "python" and shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    way: Callable[[Path], Verify] = {"python": in_python, "node": in_node, "openssl": in_shell}[request.param]
    return way(tmp_path)


async def test_a_request_is_taken_as_it_was_signed_and_in_no_other_form(verify: Verify) -> None:
    good = request()
    rotating = request(secrets=(OTHER, SECRET))
    assert [await verify(BODY, each) for each in (good, rotating)] == [True, True]
    tampered = {**good, "webhook-id": "b0617419-fe66"}
    unsigned = {**good, "webhook-signature": "v1,"}
    foreign = request(secrets=(OTHER,))
    refused = [await verify(BODY, each) for each in (tampered, unsigned, foreign)]
    refused += [await verify(BODY, request(age_s=age_s)) for age_s in (310, -310)]
    assert [*refused, await verify(BODY + b" ", good)] == [False] * 6
