"""An event that tests show, send and sign, and the variables that the examples of the configuration ask for."""

from typing import Any

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ENVIRON = {
    "CLERK_API_KEY": "k",
    "CLERK_API_KEY_US": "u",
    "CLERK_API_KEY_EU": "e",
    "OPS_WEBHOOK_SECRET": SECRET,
    "OPS_TOKEN": "t",
    "SLACK_APP_TOKEN": "xapp-1-A",
    "SLACK_BOT_TOKEN": "xoxb-1-A",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/s3cret",
    "DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/s3cret",
    "TEAMS_WEBHOOK_URL": "https://example.environment.api.powerplatform.com/workflows/1?sig=s3cret",
    "NTFY_TOKEN": "t",
    "PAGERDUTY_ROUTING_KEY": "k" * 32,
    "SMTP_PASSWORD": "p",
    "APPRISE_URL": "ntfys://ntfy.sh/s3cret",
    "HEARTBEAT_URL": "https://hc-ping.com/s3cret",
    "WATCHER_DB_PASSWORD": "p",
}

EVENT: dict[str, Any] = {
    "id": "0b0d5d1c-0000-5000-8000-000000000001",
    "type": "execution.failed",
    "time": "2026-11-24T10:00:00.600Z",
    "sequence": "0000000003",
    "subject": "9a1b0000-0000-4000-8000-000000000001",
    "data": {
        "account": "default",
        "pipeline": {"id": "0b5c", "name": "Sales agent"},
        "execution": {
            "id": "9a1b0000-0000-4000-8000-000000000001",
            "status": "failed",
            "durationSeconds": 5.1,
            "failedNodes": [{"name": "Greeting", "error": "[red]upstream timeout"}],
        },
        "observed": {"at": "2026-11-24T10:00:01.000Z", "delaySeconds": 0.4},
    },
}
