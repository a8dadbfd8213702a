"""The words of the page of events. A test holds them against the code."""

FIELDS = {
    "account": "the account, as the configuration names it",
    "labels": "the watch's labels",
    "link": "the account's `link`, with the ids filled in; absent if it needs an execution's id and there is none",
    "runbook": "the watch's `runbook`",
    "sink": "`sink.*` and `delivery.dead` only: the sink's name",
    "answer": "`sink.*` and `delivery.dead` only: its last answer, a status code or a word such as `timeout`; `none` "
    "if nothing came back, `never_tried` of a dead letter that was not tried",
    "remedy": "`delivery.dead` only: what a person has to do about that answer, where that is known",
    "count": "`delivery.dead` only: how many deliveries became dead letters since the last one",
    "newest.type": "`delivery.dead` only: of the newest of them the type of its event",
    "newest.id": "the id of that event",
    "newest.answer": "its last answer",
    "reason": "why: see the types that have it",
    "cause": "`account.degraded` only: what went wrong last: `timeout`, `dns`, `tls`, `refused`, `connection` and the "
    "like, or the status code of the answer, such as `503`; absent for `over_budget`",
    "atMost": "`pipeline.gap` only: how many executions may be missing at most; absent where unknown",
    "overdueSeconds": "`execution.overdue` only: how long past its limit it was when that was seen",
    "limitSeconds": "of `execution.overdue` the limit, `overdue_after` of its status; of `pipeline.slow` the time "
    "after which an execution was slow when the problem opened; of `pipeline.silent` the limit, `silent`",
    "silentSince": "`pipeline.silent` only: since when no execution had started; without any, since the first scan",
    "tokensPerExecution": "`execution.expensive` only: the limit, `tokens.execution`",
    "runningSeconds": "`pipeline.slow` only: for how long the slowest execution had been running",
    "usualSeconds": "`pipeline.slow` only: the usual duration: 95 % of the last successes were no longer",
    "slowCount": "`pipeline.slow` only: how many executions were slow",
    "percent": "`pipeline.overspending` only: 80 or 100",
    "tokensUsed": "`pipeline.overspending` only: the tokens of the executions that ended on that day so far",
    "tokensPerDay": "`pipeline.overspending` only: the limit, `tokens.per_day`",
    "day": "`pipeline.overspending` only: the day (UTC), such as `2026-11-24`",
    "error.node": "`pipeline.new_error` only: the first failed node, by name, else by id; absent where none is named",
    "error.text": "the first two lines of its error, cut to 300 characters",
    "error.fingerprint": "the kind of error: the same for errors of one kind in one node, 32 hexadecimal digits",
    "closesWhen": "of a `pipeline.failing` problem, while it is open: what closes it, in words, by the rule as it was "
    "when the problem opened",
    "lastEndedAt": "of a reminder of a `pipeline.failing` problem only: when an execution of the pipeline last ended",
    "latest.at": "of a reminder of a `pipeline.failing` problem, and when that is acknowledged or closed without a "
    "recovery: when its newest failure ended, by the watcher's clock",
    "latest.execution": "which execution that is",
    "latest.node": "its first failed node, by name, else by id; absent where no node failed",
    "latest.error": "that node's error, else the execution's, cut at 2 KiB",
    "problem.id": "of events that tell of a problem only: the problem, the same in all of them",
    "problem.kind": "the type of the event that opened it",
    "problem.severity": "`critical`, `error`, `warning` or `info`",
    "problem.openedAt": "when it was opened",
    "problem.closedAt": "when it was closed; absent while it is open",
    "problem.durationSeconds": "`closedAt` - `openedAt`",
    "problem.count": "of a `pipeline.failing` problem only: how many executions have failed so far, those that opened "
    "it included",
    "acknowledgement.by": "`problem.acknowledged` only: who took it, as they call themselves",
    "acknowledgement.comment": "what they said",
    "acknowledgement.until": "until when nobody is reminded; absent: as long as the problem is open",
    "pipeline.id": "the pipeline",
    "pipeline.name": "the watch's `name`, else the API's",
    "pipeline.versionId": "the version of the pipeline that runs",
    "pipeline.versionNumber": "its number",
    "execution.id": "the execution; also the event's `subject`",
    "execution.status": "the status now: `new`, `running`, `paused`, `success`, `failed`, `lost`, or the raw word",
    "execution.previousStatus": "the status before; absent at first sight. Statuses may be skipped between two polls",
    "execution.startedAt": "as the API says",
    "execution.finishedAt": "as the API says",
    "execution.durationSeconds": "`finishedAt` - `startedAt`, if both are known",
    "execution.error": "the API's error text, cut at 2 KiB; in `pipeline.failing`, of a success that counts as a "
    "failure, why it does",
    "execution.aiTokensUsed": "as the API says",
    "execution.nodesStarted": "as the API says",
    "execution.triggeredBy": "as the API says",
    "execution.triggeredByEntityId": "as the API says",
    "execution.conversationId": "the id alone; what was said never leaves the API",
    "execution.failedNodes": "nodes that failed or have an error: `id`, `name`, `error`; at most 20",
    "execution.goals": "the names of the goals that were reached; at most 20",
    "report.name": "`watcher.report` only: the report, as the configuration names it",
    "report.from": "since when it counts",
    "report.until": "until when, that hour not included",
    "report.timezone": "the zone by whose clock it is due",
    "report.link": "`http.public_url`",
    "report.lookCount": "how many pipelines need a look",
    "report.wellCount": "how many do not",
    "report.moreCount": "how many of them are not in `pipelines`",
    "report.lineCount": "how many entries `happened` has before it is cut to 20 or fewer",
    "report.happened": "what happened, first what is not over: `kind` (the type of the event that reported it, or "
    "`unknown` or `low_rate`), `about` (`account`, `sink` or `pipeline`), `names` (at most three), `what` happened to "
    "whom, the newest `error` or the reason, `from`, `until`, which is absent while it is not over, and `acknowledged`",
    "report.total.openProblems": "of all pipelines, and below `pipelines` of each: how many problems are open now",
    "report.total.ended": "how many executions ended",
    "report.total.failed": "how many of them failed",
    "report.total.successRate": "the share of them that succeeded, from 0 to 1, rounded down; absent if none ended",
    "report.total.successRateBefore": "that of the time before, which was as long; absent unless it differs by more "
    "than chance explains (p < 0.05)",
    "report.total.medianSeconds": "the median duration of those that succeeded, within 5 %; absent if none did",
    "report.total.p95Seconds": "what 95 % of them did not exceed",
    "report.total.tokens": "the AI tokens of those that ended",
    "report.pipelines": "the worst first: these figures, `account`, `id`, `name`, `state` (its worst open problem such "
    "as `failing`, `unknown` or `well`), `needsLook`, and `error`, its most frequent kind of error",
    "report.errors": "the three most frequent kinds of error: `pipeline` (its name), `node`, `text`, `count`",
    "observed.at": "when it was seen",
    "observed.notBefore": "the last poll that still saw the previous status; absent at first sight",
    "observed.delaySeconds": "`observed.at` - `time`, both by the watcher's clock, never negative; "
    "absent where `time` is no date of the API",
}
"""What each field of `data` means."""

HEAD = """\
# Events

Made by `make docs`: every example below was emitted in a run with a clock set by hand.

Each event is a [CloudEvents 1.0](https://cloudevents.io) document in JSON: one line on stdout, one POST to each webhook
that asked for its type. What the API names keeps the API's name. What is absent is left out, never null.

## The envelope

| field | meaning |
|---|---|
| `specversion` | `1.0` |
| `id` | the event's id, a UUID; the same on every attempt, at every sink, for ever |
| `source` | `/accounts/NAME/pipelines/ID`, `/accounts/NAME`, `/sinks/NAME`, `/problems/ID` or `/reports/NAME` |
| `type` | one of those below |
| `subject` | the execution's id; absent where there is none |
| `time` | when it happened: `finishedAt` of the two ends, `startedAt` of the first `running`, else when it was seen |
| `datacontenttype` | `application/json` |
| `sequence` | ten digits, from `0000000001` without holes, per `source` and `subject` |
| `data` | below |

**Ids.** An event of an execution has a UUIDv5 of account, pipeline, execution, type and raw status, and its ordinal
among the events of that type for this execution. So `execution.failed` of one execution has one id for ever, even from
an empty store. A report has a UUIDv5 of its name and moment. Other events without an execution have a UUIDv7 (its
random part is zeros below).

**Order.** A sink gets the events of one execution in the order of their `sequence`. A failing delivery blocks
the later ones of its own execution until it succeeds or is a dead letter. It blocks no others.

**Size.** A line stays under 16 KiB. Texts are cut at 2 KiB, lists at 20 entries. Where that is not enough, the tails of
lists and texts go first, then the link, and the labels last. Ids, statuses and times are never cut.

## The data

| field | meaning |
|---|---|
{fields}

## The types

| type | when |
|---|---|
| `execution.new` `.running` `.paused` `.success` `.failed` | first seen in, or moved to, this status |
| `execution.overdue` | longer in one status than `overdue_after` |
| `execution.lost` | the API keeps answering 404 or an error for it |
| `execution.unrecognized` | a status the API's documentation does not know |
| `execution.expensive` | it used more tokens than a rule of yours allows |
| `pipeline.failing` `.recovered` | too many executions of a pipeline fail / no longer do, by a rule of yours |
| `pipeline.silent` `.active` | no execution of a pipeline has started for too long / one did |
| `pipeline.slow` `.on_time` | an open execution runs for much longer than usual / none does any more |
| `pipeline.overspending` | the executions of a day used 80 %, or all, of a pipeline's tokens |
| `pipeline.new_error` | an execution failed with a kind of error that was not seen for 30 days |
| `pipeline.gap` | a scan may have missed executions |
| `account.degraded` `.recovered` | the API cannot be used with this key, and why / it can again |
| `sink.failing` `.recovered` `.disabled` | a sink has been failing for 5 minutes; sent to the other sinks |
| `delivery.dead` | deliveries of a sink became dead letters: how many, and why; sent to the other sinks |
| `problem.reminder` `.acknowledged` `.closed` | a problem is still open / somebody took it / it is watched no more |
"""

TAIL = """\
## Receiving them

A webhook gets `POST` with the event as its body, `Content-Type: application/cloudevents+json; charset=utf-8`, and the
headers of [Standard Webhooks](https://www.standardwebhooks.com): `webhook-id` (the event's id), `webhook-timestamp`
(of this attempt) and, if the sink has a `secret`, `webhook-signature`. Verify the body as it came, before parsing it:

```python
from standardwebhooks import Webhook, WebhookVerificationError


def receive(body: bytes, headers: dict[str, str], *, secret: str, seen: set[str], queue: list[dict]) -> int:
    try:
        event = Webhook(secret).verify(body, headers)  # the signature, and that it is no older than 5 minutes
    except WebhookVerificationError:
        return 401
    if event["id"] not in seen:  # a repeated attempt brings the same id
        seen.add(event["id"])
        queue.append(event)  # work on it later, answer now
    return 204
```

1. **Answer 2xx fast**, once the event is safe with you; work afterwards. An attempt ends after the sink's `timeout`.
2. **Take each id once.** A kill or a lost answer repeats what was in flight, under the same id. Of a
   [group](../groups.md#groups) go by the events' ids: a retry may hold more events, under another `webhook-id`.
3. **Order by `sequence`** within `source` and `subject`, if you need order: never by the time of arrival.
4. **Ignore what you do not know**: later versions add types and fields.

| answer | what becomes of the delivery |
|---|---|
| 2xx | delivered |
| 410 | the sink is disabled (`sink.disabled`); deliveries wait until its block changes, or it is enabled |
| 400, 413, 422 | retried; the fifth in a row makes it a dead letter: this body will never be accepted |
| 429 with `Retry-After` | retried; until then, at most 1 h, nothing else is sent to this sink either |
| 3xx | never followed; retried |
| anything else, or none | retried |

**When it is retried.** A delivery that fails waits for the next step of `retry.schedule` (±20 %), or for `Retry-After`
if that is longer, up to 1 h. The last step repeats.

5 failures in a row open the sink's circuit breaker. Then one delivery at a time is tried: one that was never tried, at
most one a second; else, after 1 s, doubling to 30 s, the one that was tried longest ago, whatever its own wait. 2xx,
400, 413 or 422 closes it. When a 2xx does, all that waits comes due within a minute, evenly spread, whatever its step
or `Retry-After` said. So an event that your receiver can never process holds up its own execution only. After an outage
of any length everything arrives within about a minute, plus the time to send it at the sink's `rate_limit`.

**When it is given up.** `retry.give_up_after` (3 days) after it was first due, it is a dead letter: kept, counted,
logged, and no longer blocking later deliveries. That time stands still while the daemon is off or the sink disabled.

"""

VERIFY = r"""## Verify a signature

A signature is an HMAC-SHA256, with the key behind `whsec_`, of `webhook-id`, `webhook-timestamp` and the body, joined
by dots. Take the body as it came, before anything parses it. Compare with every signature in the header: while a secret
is rotated there are two. Refuse what is older than five minutes, so that nobody can send it again. There are
[libraries for ten languages](https://www.standardwebhooks.com); this is all they do.

Python, with `pip install standardwebhooks`. It raises if anything is wrong:

```python
import json

from standardwebhooks import Webhook


def events_of(body: bytes, headers: dict[str, str], secret: str) -> list[dict]:
    Webhook(secret).verify(body, headers)
    found = json.loads(body)
    return found if isinstance(found, list) else [found]  # a sink with a `group` posts lists
```

Node, without any package. `body` is the Buffer that came (`express.raw({type: "*/*"})`), `headers` have lower-case
names:

```js
import { createHmac, timingSafeEqual } from "node:crypto";

export function verify(body, headers, secret) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures = "" } = headers;
  const isRecent = Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300;
  const key = Buffer.from(secret.replace("whsec_", ""), "base64");
  const wanted = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  return isRecent && signatures.split(" ").some((signature) => {
    const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  });
}
```

A shell, to look into one request by hand. Others on the machine can see the key while `openssl` runs:

```sh
verify() {  # verify SECRET ID TIMESTAMP SIGNATURES < body
  key=$(printf %s "${1#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
  wanted=$({ printf '%s.%s.' "$2" "$3"; cat; } | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary |
    openssl base64 -A)
  age=$(($(date +%s) - $3))
  [ "${age#-}" -le 300 ] || return 1
  for signature in $4; do
    [ "$signature" = "v1,$wanted" ] && return 0
  done
  return 1
}
```
"""
