"""The words of the page of events. A test holds them against the code."""

FIELDS = {
    "account": "the account's name in the configuration",
    "labels": "the watch's labels",
    "link": "the account's `link`, with the ids filled in; absent if an id is missing",
    "runbook": "the watch's `runbook`",
    "sink": "the sink's name",
    "answer": "its last answer, a status code or a word such as `timeout`; `none` if nothing came back, `never_tried` "
    "of a dead letter that was not tried",
    "remedy": "what a person has to do about that answer, where known",
    "count": "the dead letters since the last `delivery.dead`",
    "newest.type": "of the newest of them the type of its event",
    "newest.id": "the id of that event",
    "newest.answer": "its last answer",
    "reason": "why: see the types that have it",
    "cause": "what went wrong last: `timeout`, `dns`, `tls`, `refused`, `connection` and the like, or the answer's "
    "status code; absent for `over_budget`",
    "atMost": "how many executions may be missing at most; absent where unknown",
    "overdueSeconds": "how long past its limit it was when that was seen",
    "limitSeconds": "the limit: `overdue_after` of the status, `silent`, or the time after which an execution was slow "
    "when the problem opened",
    "silentSince": "since when no execution had started; without any, since the first scan",
    "tokensPerExecution": "the limit, `tokens.execution`",
    "runningSeconds": "for how long the slowest execution had been running",
    "usualSeconds": "the usual duration: 95 % of the last successes were no longer",
    "slowCount": "how many executions were slow",
    "percent": "80 or 100",
    "tokensUsed": "the tokens of the executions that ended on that day so far",
    "tokensPerDay": "the limit, `tokens.per_day`",
    "day": "the day (UTC)",
    "error.node": "the first failed node, by name, else by id; absent where none is named",
    "error.text": "the first two lines of its error, cut to 300 characters",
    "error.fingerprint": "the same for errors of one kind in one node: 32 hexadecimal digits",
    "closesWhen": "what closes the problem, in words, by the rule as it was at its opening; absent once it is closed",
    "lastEndedAt": "when an execution of the pipeline last ended",
    "latest.at": "when the newest failure ended, by the watcher's clock; also in the problem's acknowledgement, and in "
    "a closing that is no recovery",
    "latest.execution": "the execution that failed",
    "latest.node": "its first failed node, by name, else by id; absent where no node failed",
    "latest.error": "that node's error, else the execution's, cut at 2 KiB",
    "problem.id": "the problem, the same in all of its events; other events have no `problem`",
    "problem.kind": "the type of the event that opened it",
    "problem.severity": "`critical`, `error`, `warning` or `info`",
    "problem.openedAt": "when it was opened",
    "problem.closedAt": "when it was closed; absent while it is open",
    "problem.durationSeconds": "`closedAt` - `openedAt`",
    "problem.count": "of `pipeline.failing` only: how many executions have failed so far, from its first one",
    "acknowledgement.by": "who acknowledged, as they call themselves",
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
    "execution.error": "the API's error text, cut at 2 KiB; of a success that counts as a failure, why it does",
    "execution.aiTokensUsed": "as the API says",
    "execution.nodesStarted": "as the API says",
    "execution.triggeredBy": "as the API says",
    "execution.triggeredByEntityId": "as the API says",
    "execution.conversationId": "the id alone; what was said never leaves the API",
    "execution.failedNodes": "nodes that failed or have an error: `id`, `name`, `error`; at most 20",
    "execution.goals": "the names of the goals that were reached; at most 20",
    "report.name": "the report's name in the configuration",
    "report.from": "since when it counts",
    "report.until": "until when, that hour not included",
    "report.timezone": "the zone by whose clock it is due",
    "report.link": "`http.public_url`",
    "report.lookCount": "how many pipelines need a look",
    "report.wellCount": "how many do not",
    "report.moreCount": "how many of them are not in `pipelines`",
    "report.lineCount": "how many entries `happened` has before it is cut to 20 or fewer",
    "report.happened": "what happened, first what is not over: `kind` (the type of the event that reported it, or "
    "`unknown` or `low_rate`), `about` (`account`, `sink` or `pipeline`), `names` (at most three), `what` happened, "
    "the newest `error` or the reason, `from`, `until` (absent while it is not over), and `acknowledged`",
    "report.total.openProblems": "of all pipelines (below `pipelines` of each): how many problems are open now",
    "report.total.ended": "how many executions ended",
    "report.total.failed": "how many of them failed",
    "report.total.successRate": "the share that succeeded, from 0 to 1, rounded down; absent if none ended",
    "report.total.successRateBefore": "that of the time before, as long; absent unless it differs by more than chance "
    "explains (p < 0.05)",
    "report.total.medianSeconds": "the median duration of successes, within 5 %; absent if there are none",
    "report.total.p95Seconds": "what 95 % of them did not exceed",
    "report.total.tokens": "the AI tokens of those that ended",
    "report.pipelines": "the worst first: these figures, `account`, `id`, `name`, `state` (its worst open problem such "
    "as `failing`, else `unknown` or `well`), `needsLook`, and `error`, its most frequent kind of error",
    "report.errors": "the three most frequent kinds of error: `pipeline` (its name), `node`, `text`, `count`",
    "observed.at": "when it was seen",
    "observed.notBefore": "the last poll that still saw the previous status; absent at first sight",
    "observed.delaySeconds": "`observed.at` - `time`, both by the watcher's clock, never negative; absent where `time` "
    "is no date of the API",
}
"""What each field of `data` means."""

OWN = {
    "`sink.*`, `delivery.dead`": ("sink", "answer"),
    "`delivery.dead`": ("remedy", "count", "newest.type", "newest.id", "newest.answer"),
    "`account.degraded`": ("cause",),
    "`pipeline.gap`": ("atMost",),
    "`execution.overdue`": ("overdueSeconds",),
    "`execution.overdue`, `pipeline.silent`, `pipeline.slow`": ("limitSeconds",),
    "`pipeline.silent`": ("silentSince",),
    "`pipeline.slow`": ("runningSeconds", "usualSeconds", "slowCount"),
    "`execution.expensive`": ("tokensPerExecution",),
    "`pipeline.overspending`": ("percent", "tokensUsed", "tokensPerDay", "day"),
    "`pipeline.new_error`": ("error.node", "error.text", "error.fingerprint"),
    "Events of a `pipeline.failing` problem": ("closesWhen",),
    "Reminders of it": ("lastEndedAt", "latest.at", "latest.execution", "latest.node", "latest.error"),
    "`problem.acknowledged`": ("acknowledgement.by", "acknowledgement.comment", "acknowledgement.until"),
    "`watcher.report`": tuple(name for name in FIELDS if name.startswith("report.")),
}
"""The fields that only some types have."""

HEAD = """\
# Events

Made by `make docs`, each example in a run with a clock set by hand. Six types are shown whole, of the others the part
of `data` that is their own. How to receive them: [receive.md](../receive.md).

Each event is a [CloudEvents 1.0](https://cloudevents.io) document in JSON: one line on stdout, one POST to each webhook
that asked for its type. What the API names keeps the API's name. What is absent is left out, never null.

## The envelope

- `specversion`: `1.0`
- `id`: the event's id, a UUID; the same on every attempt, at every sink, for ever
- `source`: `/accounts/NAME/pipelines/ID`, `/accounts/NAME`, `/sinks/NAME`, `/problems/ID` or `/reports/NAME`
- `type`: one of those below
- `subject`: the execution's id; absent where there is none
- `time`: when it happened: `finishedAt` of the two ends, `startedAt` of the first `running`, else when it was seen
- `datacontenttype`: `application/json`
- `sequence`: ten digits, from `0000000001` without holes, per `source` and `subject`
- `data`: below

**Ids.** An event of an execution has a UUIDv5 of account, pipeline, execution, type and raw status, and its ordinal
among the execution's events of that type. So `execution.failed` has one id for ever, even from an empty store. A report
has a UUIDv5 of its name and moment. Other events have a UUIDv7 (its random part is zeros below).

**Order.** A sink gets the events of one execution in the order of their `sequence`. A failing delivery blocks
the later ones of its own execution, and no others, until it succeeds or is a dead letter.

**Size.** A line stays under 16 KiB. Texts are cut at 2 KiB, lists at 20 entries. Where that is not enough, the tails of
lists and texts go first, then the link, and the labels last. Ids, statuses and times are never cut.

## The data

{fields}

## The types

In this order: executions, pipelines, accounts, sinks and deliveries, problems, the watcher.
"""
