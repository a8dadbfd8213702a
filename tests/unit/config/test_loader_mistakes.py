"""Mistakes of a file: each is one line that says where it is and what would be right."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_core import ErrorDetails
from unit.config.conftest import Mistakes

from watcher.config.document import Document
from watcher.config.error_messages import translate
from watcher.domain.event import EventType
from watcher.rules import RulesSettings
from watcher.runtime.settings import key_of
from watcher.sinks.registry import SINK_KINDS

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
OTHER = "77aa0000-0000-4000-8000-000000000000"
RUN = "9a1b0000-0000-4000-8000-000000000001"
ACCOUNT = "accounts: {default: {api_key: k}}\n"
WATCH = f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions: [{RUN}]\n"
HOOK = "sinks:\n  ops:\n    type: webhook\n    url: https://h.example\n"
BOT = "sinks: {chat: {type: slack_bot, token: '%s', channel: '%s'}}"
MAIL = "sinks: {mail: {type: email, server: '%s', from: '%s', to: [%s]%s}}"
GOOD = ("smtp.example.com", "w@example.com", "o@example.com")
SERVER = "1:37: sinks.mail.server: is not host:port; write it like smtp.example.com:587"
ADDRESS = "is not an address of mail; write it alone, like ops@example.com"
BAD_KEY = (
    "is empty, or holds spaces, quotes or other characters no key has; copy the key again, without quotes or line ends"
)
ID_REMEDY = "address in Clerk Chat"
SERVICES = "see https://github.com/caronc/apprise/wiki"
SECRET_REMEDY = "write whsec_ + base64 of 24 to 64 bytes; make one: watcher init --secret"
NAME_REMEDY = "use 1 to 64 of the characters A-Z a-z 0-9 _ . -"
NAMES = "write it without scheme and port, such as watcher.internal"
BASE_REMEDY = "write only scheme and host, such as https://web-api.clerk.chat"
SQLITE = (
    "SQLite file or a PostgreSQL database; "
    "write sqlite:///watcher.db, sqlite:////var/lib/watcher/watcher.db or postgresql://user@host/db"
)
LISTEN = "write 127.0.0.1:8080, [::1]:8080 or :8080"
NO_BLOCK = "not a block of keys"
WRITE_ACCOUNTS = "write accounts: {default: {api_key: '${CLERK_API_KEY}'}}"
ALONE = "is not for consecutive; keep one of the two"
AT_LEAST_1 = "cannot be used; input should be greater than or equal to 1"
NEVER = "so it would never hold; raise of_last or lower at_least"
NO_DURATION = "is not a duration; write 500ms, 10s, 15m, 48h or 3d"
INTERVALS = "max_interval is below min_interval; raise max_interval, or lower min_interval"
NO_BOT_TOKEN = (
    "is not a bot's token; copy the Bot User OAuth Token, xoxb-…, of an app without token rotation "
    "(OAuth & Permissions)"
)
OURS = "is set by the watcher itself; remove it or choose another header"
TOO_LONG = "has 257 characters; shorten it to 256"
CENTURY = "is longer than a century; write at most 36500d"
TOP = "allowed: accounts, watch, defaults, polling, sinks, reports, silences, store, http, heartbeat, log"
OF_EXECUTIONS = f"write {', '.join(type_ for type_ in EventType if type_.startswith('execution.'))}"
WEBHOOK = (
    "Allowed: events, match, timeout, rate_limit, retry, group, after, remind_every, allow_private, tls, type, "
    "template, routing_key, routing_key_file, url, url_file, secret, secret_file, headers"
)
ALL = "give at least one, or remove the key to watch every execution"

TABLE = [
    # unknown keys, and keys of a later version
    ("acounts: {}", f'1:1: acounts: unknown key "acounts"; did you mean "accounts"? A{TOP[1:]}'),
    ("colour: red", f'1:1: colour: unknown key "colour"; {TOP}'),
    ("? https://h.example/secret\n: 1", f"1:3: …: unknown key, with characters that no key has; {TOP}"),
    (HOOK + "    match: {team: sales}", ('5:13: sinks.ops.match.team: unknown key "team"; '
     "allowed: labels, pipelines")),
    ("accounts:\n  api_key: k\n", f"2:12: accounts.api_key: is a single value, {NO_BLOCK}; {WRITE_ACCOUNTS}"),
    ("log: debug", f"1:6: log: is a single value, {NO_BLOCK}; write its keys below it: level, format"),
    ("accounts: {default: {api_key: {CLERK_API_KEY}}}",
     "1:31: accounts.default.api_key: is a block of keys, not a single value; write api_key: ${CLERK_API_KEY}"),
    ("log: {level: 'a/$LEVEL'}", "1:14: log.level: a $NAME is not filled in without braces; write ${NAME}, or $$NAME"),
    ("polling: {cadance: fixed}", ('1:11: polling.cadance: unknown key "cadance"; did you mean "cadence"? Allowed: '
     "cadence, min_interval, max_interval, concurrency, first_sight, lookback, details, lost_after, lost_grace, "
     "degraded_after")),
    *((WATCH + f"    rules: {{failing: {{{keys}}}}}", f"5:{place[0]}: watch[0].rules.failing{place[1]}: {said}")
      for keys, place, said in (
          ("", (22, ""), "needs consecutive or rate; write consecutive: 3, or rate: 20%"),
          ("consecutive: 3, rate: 20%", (45, ".rate"), ALONE),
          ("consecutive: 3, at_least: 3", (49, ".at_least"), ALONE),
          ("rate: 20%, recover_after: 3", (49, ".recover_after"), "is not for rate; keep one of the two"),
          ("rate: 20%, quiet_for: 5m", (45, ".quiet_for"), "is not for rate; keep one of the two"),
          ("consecutive: 3, recover_after: 0", (54, ".recover_after"), f'"0" {AT_LEAST_1}'),
          ("consecutive: 0", (36, ".consecutive"), f'"0" {AT_LEAST_1}'),
          ("rate: 20", (29, ".rate"), '"20" is not a share; write a percentage, such as 20%'),
          ("rate: 20%, at_least: 30", (44, ".at_least"), f"at_least 30 is more than of_last 20, {NEVER}"),
          ("rate: 20%, of_last: 4", (43, ".of_last"), f"at_least 5 is more than of_last 4, {NEVER}"),
          ("consecutive: 3, also: {shorter_than: 5}", (60, ".also.shorter_than"), f'"5" {NO_DURATION}'),
      )),
    (WATCH + "    rules: {slow: {times: [3]}}",
     "5:27: watch[0].rules.slow.times: is a list, not a single value; write one value behind the key"),
    (WATCH + "    rules: {tokens: {}}",
     ("5:21: watch[0].rules.tokens: needs execution or per_day; "
      "write execution: 20000, or per_day: 2000000, or both")),
    (WATCH + "    rules: {also: {shorter_than: 5s}}",
     ('5:13: watch[0].rules.also: unknown key "also"; it belongs under failing. '
      f"Allowed: {', '.join(key_of(RulesSettings, name=name) for name in RulesSettings.model_fields)}")),
    (WATCH + "    rules: {new_error: yes please}",
     '5:24: watch[0].rules.new_error: "yes please" cannot be used; write true or false'),
    (WATCH + "    rules: {silent: 6h}",
     ("5:12: watch[0].rules: silent needs a pipeline that is watched whole; "
      "remove silent, or remove executions to watch every one")),
    (HOOK + "    allow_private: never", ('5:20: sinks.ops.allow_private: "never" cannot be used; write true or false')),
    (HOOK + "    allow_private: [no]",
     "5:20: sinks.ops.allow_private: is a list, not a single value; write one value behind the key"),
    ("sinks: {out: {type: stdout, tls: {ca_file: ca.pem}}}",
     ('1:29: sinks.out.tls: unknown key "tls"; it belongs to type webhook or to type slack_bot or '
     "to type email. Allowed: events, match, type, format")),
    (HOOK + "    channel: C0123456789",
     f'5:5: sinks.ops.channel: unknown key "channel"; it belongs to type slack_bot. {WEBHOOK}'),
    (HOOK + "    runbook: https://w.example",
     f'5:5: sinks.ops.runbook: unknown key "runbook"; it belongs under an entry of watch or under defaults. {WEBHOOK}'),
    (HOOK + "    heartbeat: {}",
     f'5:5: sinks.ops.heartbeat: unknown key "heartbeat"; it belongs in the first column. {WEBHOOK}'),
    ("rules: {silent: 6h}",
     f'1:1: rules: unknown key "rules"; it belongs under an entry of watch or under defaults. A{TOP[1:]}'),
    ("slack: {}",
     f'1:1: slack: unknown key "slack"; it belongs under an entry of sinks, as template: slack. A{TOP[1:]}'),
    ("polling: {rate_limit: 5/s}",
     ('1:11: polling.rate_limit: unknown key "rate_limit"; it belongs under an entry of accounts or under an entry of '
      "sinks. Allowed: cadence, min_interval, max_interval, concurrency, first_sight, lookback, details, lost_after, "
      "lost_grace, degraded_after")),
    ("accounts: {default: 'api_key:abc'}",
     f"1:21: accounts.default: is a single value, {NO_BLOCK}; write key: value, with a space behind the colon"),
    # bounds
    *((text % value, f'{place} "{value}" cannot be used; input should be {bound}') for text, place, value, bound in (
        (WATCH + "    rules: {failing: {rate: 20%%, of_last: %s}}", "5:43: watch[0].rules.failing.of_last:", "5000",
         "less than or equal to 1000"),
        (WATCH + "    rules: {slow: {times: %s}}", "5:27: watch[0].rules.slow.times:", "1", "greater than 1"),
        ("polling: {concurrency: %s}", "1:24: polling.concurrency:", "0", "greater than or equal to 1"),
        (HOOK + "    group: {max: %s}", "5:18: sinks.ops.group.max:", "10001", "less than or equal to 10000"),
    )),
    # apprise
    ("sinks: {phone: {type: apprise, url: s3cr3t}}",
     ("1:37: sinks.phone.url: does not begin with the scheme of a service; write it like ntfys://ntfy.sh/topic")),
    ("sinks: {phone: {type: apprise, url: 'ntfy://h/a,ntfy://h/b'}}",
     "1:37: sinks.phone.url: holds several URLs; write a sink for each"),
    ("sinks: {phone: {type: apprise, url: 's3cr3t://x'}}",
     f"1:37: sinks.phone.url: is of no service that Apprise knows; {SERVICES}"),
    ("sinks: {phone: {type: apprise, url: 'file:///s3cr3t'}}",
     f"1:37: sinks.phone.url: is of no service that Apprise knows; {SERVICES}"),
    ("sinks: {phone: {type: apprise, url: 'tgram://s3cr3t'}}",
     f"1:37: sinks.phone.url: is not what Apprise needs for tgram://; {SERVICES}"),
    ("sinks: {phone: {type: apprise, url: 'windows://'}}",
     f"1:37: sinks.phone.url: windows:// needs something that is missing here, such as a package; {SERVICES}"),
    # email
    *((MAIL % (server, *GOOD[1:], ""), SERVER) for server in (
        "smtp://s3cr3t@h", "https://smtp.example.com:587", "user:s3cr3t@h:25", "h:0", "h:65536", "h:", "::1", ".h",
        f"{'h' * 64}.example.com", "",
    )),
    *((MAIL % (GOOD[0], address, GOOD[2], ""), f"1:63: sinks.mail.from: {ADDRESS}") for address in (
        "watcher", "@example.com", "w@", "Watcher <w@example.com>", "w@example.com, x@example.com", "w w@example.com",
        "ä@example.com", "w@example..com",
    )),
    (MAIL % (GOOD[0], GOOD[1], "", ""), "1:84: sinks.mail.to: is empty; give at least one"),
    (MAIL % (*GOOD, ", username: w"),
     "1:9: sinks.mail.password: username and password go together; give both, or none"),
    (MAIL % (*GOOD, ", password: s3cr3t"),
     "1:111: sinks.mail.password: username and password go together; give both, or none"),
    (MAIL % (*GOOD, ", username: w, password: s3cr3t, tls: none"),
     "1:137: sinks.mail.tls: none shows others the password; write starttls, or tls"),
    (MAIL % (*GOOD, ", tls: ssl"), '1:106: sinks.mail.tls: "ssl" is not known; allowed: starttls, tls, none'),
    # heartbeat
    ("heartbeat: {url: hc-ping.com/x}",
     "1:18: heartbeat.url: does not begin with http:// or https://; write it like https://hc-ping.com/your-check"),
    # store
    ("store: {url: postgresql://u:p@h/db}",
     "1:14: store.url: holds a password; write it into a file, and name that in store.password_file"),
    ("store: {url: 'postgresql://u@h/db?password=p'}",
     "1:14: store.url: holds a password; write it into a file, and name that in store.password_file"),
    ("store: {url: 'postgresql://u@[h/db'}", "1:14: store.url: is not a URL; write postgresql://user@host/db"),
    ("store: {url: 'postgresql://u@h/%zz'}", "1:14: store.url: is not a URL; write postgresql://user@host/db"),
    ("store: {url: 'postgresql://u@h/a#b'}", "1:14: store.url: holds a #; write %23 for it"),
    ("store: {url: 'postgresql://h/db?ssl_mode=require'}",
     ("1:14: store.url: has the parameter ssl_mode, which libpq does not know; "
      "write postgresql://user@host/db")),
    ("store: {url: 'postgresql://u:secret/db'}",
     "1:14: store.url: has a port that is no number; write postgresql://user@host/db"),
    ("store: {password: '${DB}'}",
     "1:19: store.password: ${DB} is not set; export it, or use password_file: /run/secrets/db"),
    ("store: {password: x, password_file: y}",
     "1:22: store: both password and password_file are given; keep one"),
    # accounts
    ("accounts: {default: {api_key: '${CLERK_API_KEY}'}}",
     ("1:31: accounts.default.api_key: ${CLERK_API_KEY} is not set; "
      "export it, or use api_key_file: /run/secrets/clerk_api_key")),
    ("accounts:\n  default:\n    api_key: k\n    api_key_file: key",
     "4:5: accounts.default: both api_key and api_key_file are given; keep one"),
    ("accounts: {default: {api_key: a b}}", f"1:31: accounts.default.api_key: {BAD_KEY}"),
    ("accounts: {default: {api_key: '${QUOTED}'}}", f"1:31: accounts.default.api_key: {BAD_KEY}"),
    ("accounts: {a: {api_key: k}, b: {api_key: k}}", ("1:42: accounts.b.api_key: the same key as another account's at "
     "line 1; one account per key: its rate limit is one")),
    ("accounts: {a b: {api_key: k}}", f"1:12: accounts.…: the key is not a name; {NAME_REMEDY}"),
    ("accounts: {default: {api_key: k, rate_limit: 0/s}}",
     '1:46: accounts.default.rate_limit: "0/s" is no usable rate; write more than 0/s, at most 1000000/s, such as 5/s'),
    ("accounts: {default: {api_key: k, timeout: 0s}}",
     '1:43: accounts.default.timeout: "0s" is too short; write a duration above 0, such as 10s'),
    ("accounts: {default: {api_key: k, timeout: 1d12h}}",
     '1:43: accounts.default.timeout: "1d12h" is not a duration; write 36h: one number and one unit'),
    ("accounts: {default: {api_key: k, base_url: 'https://u:p@h'}}",
     f"1:44: accounts.default.base_url: holds more than an address; {BASE_REMEDY}"),
    *((f"accounts: {{default: {{api_key: k, base_url: '{url}'}}}}",
       ("1:44: accounts.default.base_url: has a path, and the watcher adds the API's own, /public/pipelines/…; "
        "end it before that, as https://web-api.clerk.chat does"))
      for url in ("https://web-api.clerk.chat/v1", "https://h/clerk/public", "https://h/pipelines/x")),
    ("accounts: {default: {api_key: k, link: 'https://h/{runId}'}}",
     ("1:40: accounts.default.link: holds a placeholder "
     "that is not known; only {pipelineId} and {executionId} are filled in")),
    ("accounts: {default: {api_key: k, link: 'javascript:{executionId}'}}",
     ("1:40: accounts.default.link: does not begin "
     "with http:// or https://; write it like https://example.com/agents/{pipelineId}/runs/{executionId}")),
    ("accounts: {default: {api_key: k}}\nwatch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, runbook: 'https://h/<x>'}]",
     ("2:67: watch[0].runbook: cannot be shown as a link everywhere; "
     "write at most 512 characters, with %20 for a space and the like")),
    ("accounts: {default: }", "1:12: accounts.default: has no value; give one or remove the key"),
    ("accounts: {default: {api_key: k, timeout: [10s]}}",
     "1:43: accounts.default.timeout: is not a single value; write one value"),
    # watches
    (f"watch:\n  - pipeline: {PIPELINE}\n    executions: [{RUN}]\n  - pipeline: {OTHER}",
     "2:5: watch[0]: there is no account to ask with; write accounts: {default: {api_key: '${CLERK_API_KEY}'}}"),
    (WATCH.replace("}}", "}, eu: {api_key: e}}"),
     "3:5: watch[0]: names no account, and there are several; add account: with one of default, eu"),
    (f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions:\n",
     f"4:5: watch[0].executions: has no value; {ALL}"),
    (f"{ACCOUNT}watch:\n  - executions: [{RUN}]",
     f"3:5: watch[0]: needs pipeline; copy the id from the pipeline's {ID_REMEDY}"),
    (f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions: [12345678]",
     f'4:18: watch[0].executions[0]: "12345678" is not a UUID; copy the id from the execution\'s {ID_REMEDY}'),
    (f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions: [{{a: b}}]",
     "4:18: watch[0].executions[0]: is a block of keys, not a single value; write one value behind the key"),
    (f"{WATCH}  - pipeline: {PIPELINE.upper()}\n    executions: [{PIPELINE}]",
     "5:15: watch[1].pipeline: already watched at line 3 with the same account; merge the two entries"),
    (f"{WATCH}  - pipeline: {OTHER}\n    executions: ['{{{RUN}}}']",
     "6:18: watch[1].executions[0]: already watched at line 4 with the same account; remove one of them"),
    (f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions:\n      - {RUN}\n      - {RUN.replace('-', '')}",
     "6:9: watch[0].executions[1]: already watched at line 5 with the same account; remove one of them"),
    (WATCH + f"    labels: {{a: {'x' * 257}}}", "5:17: watch[0].labels.a: has 257 characters; shorten it to 256"),
    (WATCH + f"    labels: {{{'x' * 257}: a}}", "5:14: watch[0].labels.…: the key " + TOO_LONG),
    (WATCH + "    labels: {'': a}", "5:14: watch[0].labels.…: the key is empty; name the label"),
    (WATCH + "    labels: {" + ", ".join(f"k{i}: v" for i in range(33)) + "}",
     "5:13: watch[0].labels: cannot be used; dictionary should have at most 32 items after validation, not more"),
    # polling
    ("polling:\n  max_interval: 500ms", f"2:17: polling.max_interval: {INTERVALS}"),
    ("polling:\n  min_interval: 2m", f"2:17: polling.min_interval: {INTERVALS}"),
    ("polling: {lost_after: %s}" % ("9" * 5000), '1:23: polling.lost_after: "%s…" cannot be used; '
     "unable to parse input string as an integer, exceeded maximum size" % ("9" * 60)),
    ("polling: {cadence: fix}",
     '1:20: polling.cadence: "fix" is not known; did you mean "fixed"? Allowed: fixed, backoff'),
    # sinks
    ("sinks: {ops: {type: webhok}}",
     ('1:21: sinks.ops.type: "webhok" is not known; did you mean "webhook"? '
      f'Allowed: {", ".join(SINK_KINDS)}')),
    ("sinks: {a: {type: stdout}, b: {type: stdout}}",
     "1:38: sinks.b.type: a second stdout sink, the first is at line 1; merge the two: events: takes a list"),
    (HOOK + "    secret: whsec_abc", f"5:13: sinks.ops.secret: not a signing secret; {SECRET_REMEDY}"),
    (HOOK + "    secret: [whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz, MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz]",
     f"5:54: sinks.ops.secret[1]: not a signing secret; {SECRET_REMEDY}"),
    (HOOK + "    secret: []", "5:13: sinks.ops.secret: is an empty list; give at least one value or remove the key"),
    (HOOK + "    secret: {a: b}",
     "5:13: sinks.ops.secret: is a block of keys, not a list; write secret: ${OPS_WEBHOOK_SECRET}"),
    (HOOK + "    events: [execution.fail]", ('5:14: sinks.ops.events[0]: "execution.fail" matches no event type; '
     f'did you mean "execution.failed"? W{OF_EXECUTIONS[1:]}')),
    (HOOK + "    events: [execution.error]",
     f'5:14: sinks.ops.events[0]: "execution.error" matches no event type; {OF_EXECUTIONS}'),
    (HOOK + "    events: [account.down]",
     '5:14: sinks.ops.events[0]: "account.down" matches no event type; write account.degraded, account.recovered'),
    (HOOK + "    events: [failed]", ('5:14: sinks.ops.events[0]: "failed" matches no event type; '
     'did you mean "execution.failed"? Globs such as "execution.*" work')),
    (HOOK + "    events: [elephant]",
     '5:14: sinks.ops.events[0]: "elephant" matches no event type; globs such as "execution.*" work'),
    (HOOK + "    events: []", "5:13: sinks.ops.events: is empty; give at least one"),
    (HOOK + "    match: {pipelines: [sales]}",
     f'5:25: sinks.ops.match.pipelines[0]: "sales" is not a UUID; copy the id from the pipeline\'s {ID_REMEDY}'),
    (HOOK + "    headers: {Content-Type: x}",
     '5:15: sinks.ops.headers.Content-Type: "Content-Type" ' + OURS),
    (HOOK + "    headers: {Webhook-Id: x}",
     '5:15: sinks.ops.headers.Webhook-Id: "Webhook-Id" ' + OURS),
    (HOOK + "    headers: {a b: x}", "5:15: sinks.ops.headers.…: the key is not a header's name; write it like X-Team"),
    (HOOK + '    headers: {X-A: "a\\nb"}',
     "5:20: sinks.ops.headers.X-A: holds a line end or control character; write it on one line"),
    # templates and groups
    ("sinks: {chat: {type: slack, url: x}}",
     '1:22: sinks.chat.type: "slack" is a template of webhooks; write type: webhook and template: slack'),
    *((BOT % (token, "C0123456789"), f"1:40: sinks.chat.token: {NO_BOT_TOKEN}")
      for token in ("", "xapp-1-A", "xoxp-1-A", "xoxe.xoxb-1-A")),
    (BOT % ("xoxb-1-A", "#ops"), ('1:61: sinks.chat.channel: "#ops" is a channel\'s name, which may change; write its '
     "id, such as C0123456789: it stands at the end of the channel's details in Slack")),
    (BOT % ("xoxb-1-A", "U0123456789"), ('1:61: sinks.chat.channel: "U0123456789" is not a channel\'s id; write its '
     "id, such as C0123456789: it stands at the end of the channel's details in Slack")),
    ("sinks: {page: {type: webhook, template: pagerduty}}", ("1:9: sinks.page.routing_key: template pagerduty needs "
     "routing_key or routing_key_file; write routing_key: ${PAGERDUTY_ROUTING_KEY}, an integration key of 32 "
     "characters")),
    ("sinks: {page: {type: webhook, template: pagerduty, routing_key: abcdefghijklmnopqrst}}",
     ("1:65: sinks.page.routing_key: has 20 characters; copy the Integration Key of an Events API v2 integration: "
      "32 letters and digits")),
    ("sinks: {page: {type: webhook, template: pagerduty, routing_key: '%s!'}}" % ("a" * 31),
     ("1:65: sinks.page.routing_key: is not a routing key; copy the Integration Key of an Events API v2 integration: "
      "32 letters and digits")),
    (HOOK + f"    routing_key: {'a' * 32}",
     "5:18: sinks.ops.routing_key: is of template pagerduty only; add that template, or remove it"),
    (HOOK + f"    template: slack\n    routing_key: {'a' * 32}",
     "6:18: sinks.ops.routing_key: is of template pagerduty only; add that template, or remove it"),
    (HOOK + "    group: {by: [pipline]}", ('5:18: sinks.ops.group.by[0]: "pipline" is nothing to group by; '
     'did you mean "pipeline"? Write pipeline, account, type or labels.NAME')),
    (HOOK + "    group: {by: [labels.]}", ('5:18: sinks.ops.group.by[0]: "labels." is nothing to group by; '
     "write pipeline, account, type or labels.NAME")),
    (HOOK + "    template: pagerduty\n    routing_key: " + "k" * 32 + "\n    group: {by: [type]}",
     "7:12: sinks.ops.group: type is not for incidents; write pipeline, account or labels.NAME"),
    # what people plausibly write
    (f"accounts: {{a: {{api_key: k}}}}\nwatch: [{{pipeline: {PIPELINE}, account: aa}}]",
     '2:67: watch[0].account: "aa" is not defined; accounts are: a'),
    (f"{ACCOUNT}watch: {{pipeline: {PIPELINE}}}",
     f"2:8: watch: is a block of keys, not a list; write watch: [{{pipeline: {PIPELINE}}}]"),
    (f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions: []", f"4:17: watch[0].executions: is empty; {ALL}"),
    (f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions: {RUN}",
     f"4:17: watch[0].executions: is a single value, not a list; write executions: [{RUN}]"),
    (WATCH + "    labels: team=sales",
     f"5:13: watch[0].labels: is a single value, {NO_BLOCK}; write labels: {{team: sales}}"),
    (WATCH + "    overdue_after: 15m", (f"5:20: watch[0].overdue_after: is a single value, {NO_BLOCK}; "
     "write overdue_after: {new: 2m, running: 15m, paused: 48h}")),
    (WATCH + "    overdue_after: {success: 1m}",
     '5:21: watch[0].overdue_after.success: unknown key "success"; allowed: new, running, paused'),
    ("sinks: [{type: stdout}]", (f"1:8: sinks: is a list, {NO_BLOCK}; "
     "write sinks: {ops: {type: webhook, url: https://hooks.example.com/clerk}}")),
    ("sinks: {x: {type: webhook, template: teams, url: 'https://acme.webhook.office.com/webhookb2/x'}}",
     ("1:50: sinks.x.url: is an Office 365 connector, which Microsoft has switched off; make the flow "
     '"Post to a channel when a webhook request is received" in Teams, and copy its URL')),
    ("sinks: {x: {type: slack_bot, channel: C0123456789}}",
     "1:9: sinks.x: needs token or token_file; write token: ${SLACK_BOT_TOKEN}"),
    (HOOK + "    retry: {max: 3}", ('5:13: sinks.ops.retry.max: unknown key "max"; '
     "it belongs under group of an entry of sinks. Allowed: schedule, give_up_after")),
    ("http: {public_url: watcher.acme.io}", ("1:20: http.public_url: does not begin with http:// or https://; "
     "write it like https://watcher.example.com")),
    ("http: {public_url: 'https://acme.io/watcher'}", ("1:20: http.public_url: holds more than scheme and host; "
     "write only scheme and host, such as https://watcher.example.com")),
    ("store: sqlite:///w.db", (f"1:8: store: is a single value, {NO_BLOCK}; "
     "write its keys below it: url, password, password_file, retention")),
    # the rest
    ("store: {url: 'sqlite://watcher.db'}", f"1:14: store.url: is not the address of a {SQLITE}"),
    ("store: {url: 'sqlite:///:memory:'}", f"1:14: store.url: is not the address of a {SQLITE}"),
    ("store: {retention: 99999999d}", '1:20: store.retention: "99999999d" ' + CENTURY),
    ("http: {names: [https://vm]}", f'1:16: http.names[0]: "https://vm" is not a host name alone; {NAMES}'),
    ("http: {names: ['vm:8080']}", f'1:16: http.names[0]: "vm:8080" is not a host name alone; {NAMES}'),
    ("http: {names: vm}",
     "1:15: http.names: is a single value, not a list; write names: [watcher.internal, 192.0.2.7]"),
    ("http: {token: s3cr3t, read_token: s3cr3t}",
     "1:35: http.read_token: is the same as token; make another one: openssl rand -hex 32"),
    ("http: {listen: ':70000'}", f'1:16: http.listen: ":70000" is not host:port; {LISTEN}'),
    ("log: {level: !!python/name:os.system debug}",
     "1:14: log.level: has a tag (a word after !) that means nothing here; remove the tag"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), TABLE, ids=[line.split(": ")[1] for _, line in TABLE])
def test_a_mistake_is_reported_where_it_is_with_what_would_be_right(text: str, line: str, mistakes: Mistakes) -> None:
    assert mistakes(text, QUOTED='"k"') == [f"watcher.yaml:{line}", "1 problem in watcher.yaml"]


SECRETS = (
    "https://hooks.example.com/services/T1/B2/s3cret",
    "https://user:s3cret@hooks.example.com",
    "slack://s3cret/B2",
    "xoxb-s3cret",
    "whsec_s3cret",
    "sk_live_s3cret",
    "0123456789abcdef0123456789s3cret",
)
OTHER_PLACES = (
    "log: {level: '%s'}",
    "http: {listen: '%s'}",
    "heartbeat: {url: 'http://h.example', every: '%s'}",
    "accounts: {default: {api_key: k, rate_limit: '%s'}}",
    "watch: [{pipeline: '%s'}]",
    "sinks: {ops: {type: '%s'}}",
    "sinks: {ops: {type: webhook, url: 'http://h.example', template: '%s'}}",
    "sinks: {ops: {type: slack_bot, token: xoxb-0123456789012345, channel: '%s'}}",
    "sinks: {ops: {type: stdout, events: ['%s']}}",
    "silences: [{match: {events: [x]}, from: '%s', until: 2026-12-27T00:00:00Z}]",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("text", OTHER_PLACES)
def test_what_looks_like_a_secret_in_a_wrong_place_is_not_shown(text: str, secret: str, mistakes: Mistakes) -> None:
    assert "s3cret" not in "\n".join(mistakes(text % secret))


def test_all_mistakes_are_reported_at_once_and_nothing_else(mistakes: Mistakes, load: Callable[..., object]) -> None:
    text = (
        "log: {level: loud}\n"
        'accounts:\n  default: {api_key: "${NOPE}", timeout: 10}\n'
        f"watch:\n  - pipeline: sales\n    executions: [{RUN}]\n    acount: x\n"
        "http: {listen: here}\n"
        "polling: {max_interval: 500ms, cadence: never}\n"
    )
    *lines, total = mistakes(text)
    assert [line.split(": ")[1] for line in lines] == [
        "log.level",
        "accounts.default.api_key",
        "accounts.default.timeout",
        "watch[0].pipeline",
        "watch[0].acount",
        "http.listen",
        "polling.max_interval",
        "polling.cadence",
    ]
    assert total == "8 problems in watcher.yaml"
    lines = mistakes(f"accounts: [k]\nwatch:\n  - {{pipeline: {PIPELINE}, executions: [{RUN}]}}")
    assert lines == [
        f"watcher.yaml:1:11: accounts: is a list, {NO_BLOCK}; {WRITE_ACCOUNTS}",
        "1 problem in watcher.yaml",
    ]
    lines = mistakes("accounts: {a b: {api_key: k, timeout: 10}}")
    assert [line.split(": ")[1] for line in lines[:-1]] == ["accounts.…", "accounts.….timeout"]
    accounts = "accounts: {a: {api_key: k}, b: {api_key: l}}\nwatch:\n"
    load(accounts + "".join(f"  - {{pipeline: {PIPELINE}, account: {name}, executions: [{RUN}]}}\n" for name in "ab"))


ERRORS: list[ErrorDetails] = [
    {
        "type": "value_error",
        "loc": ("log", "level"),
        "msg": "hunter2",
        "input": "x",
        "ctx": {"error": ValueError("hunter2")},
    },
    {"type": "some_new_type", "loc": ("log", "level"), "msg": "hunter2", "input": "hunter2"},
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error["type"])
def test_an_unknown_error_is_still_reported_in_our_words(
    error: ErrorDetails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (file := Path("watcher.yaml")).write_text("log: {level: x}")
    document = Document(file=str(file))
    document.open(file, environ={})
    translate([error], document=document)
    assert [str(problem) for problem in document.problems] == [
        "watcher.yaml:1:14: log.level: cannot be used; compare it with config/watcher.example.yaml"
    ]
